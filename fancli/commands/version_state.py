"""`fan version list`, `show`, `status`, `check` and `wait`: how things stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from fancli import catalog
from fancli.complete import complete_service
from fancli.confirming import progress, waiting
from fancli.exits import Exit
from fancli.group import command
from fancli.live import standing
from fancli.options import Common, common, listing
from fancli.output import Format
from fancli.params import check_name
from fancli.switching import consumer_object, opened, report_wait, route_text

if TYPE_CHECKING:
    from fan import ServiceInfo, Status
    from fancli.live import Live

_COLUMNS = ("service", "version", "weight", "up", "note")


@command(
    "list",
    short_help="Every version, and its share of the calls.",
    examples=("fan version list", "fan version list shop", "fan version list --json"),
)
@click.argument("service", metavar="[SVC]", default="", shell_complete=complete_service)
@common
@listing
def list_(common: Common, *, service: str, render: tuple[Format, bool]) -> None:
    """List the versions of all services, or of one: the share of the calls that each takes, and its
    instances that are up of all of them."""
    with common.app() as app:
        found = app.discovery
        infos = [found.service(check_name("SVC", service))] if service else found.services()
    rows = [row for info in infos for row in _versions(info)]
    if render[0] in ("table", "name"):
        rows = [catalog.shown(row) for row in rows]
    common.out.rows(rows, _COLUMNS, render[0], wants_head=render[1])


def _versions(info: ServiceInfo) -> list[dict[str, Any]]:
    rows = []
    for row in catalog.version_rows(info):
        notes = []
        if info.route is None:
            notes.append("unrouted")
        elif row["version"] in info.route.retired:
            notes.append("retired")
        elif info.route.replaced_by:
            notes.append(f"replaced by {info.route.replaced_by}")
        if info.route is not None and info.route.is_paused:
            notes.append("paused")
        rows.append({**row, "note": ", ".join(notes)})
    return rows


@command(
    "show",
    short_help="One service: its route and versions.",
    examples=("fan version show shop", "fan version show shop --json"),
)
@click.argument("service", metavar="SVC", shell_complete=complete_service)
@common
@listing
def show(common: Common, *, service: str, render: tuple[Format, bool]) -> int:
    """Show a service's route in full, since which generation it is in force, its versions, and who
    uses it."""
    common.env.target = check_name("SVC", service) if common.env.is_json else ""
    with common.app() as app:
        info = app.discovery.service(service)
        found = app.versions.status(service)
    if common.env.is_json:
        told = catalog.service_object(info)
        told |= {"routed_at": info.routed_at or None, "subscribers": _subscribers(found)}
        common.out.object({"v": 1, "ok": True, **told})
        return Exit.OK
    route = msgspec.to_builtins(info.route) if info.route is not None else None
    common.out.note(f"{service}: {route_text(route)}")
    if info.routed_at:
        common.out.note(f"the route is that of generation {info.routed_at}")
    common.out.note(f"subscribers: {len(found.subscribers)}")
    rows = [catalog.shown(row) for row in _versions(info)]
    common.out.rows(rows, _COLUMNS[1:], render[0], wants_head=render[1])
    return Exit.OK


@command(
    "status",
    short_help="What is in force, and who has applied it.",
    examples=("fan version status", "fan version status shop --watch", "fan version status --json"),
)
@click.argument("service", metavar="[SVC]", default="", shell_complete=complete_service)
@click.option("--watch", "is_watching", is_flag=True, help="Again after each change.")
@common
def status(common: Common, *, service: str, is_watching: bool) -> int:
    """Show the generation in force, the routes and the configs' revisions in it, and which
    generation each subscriber has applied. With --watch it is told again after each change, until
    Ctrl-C; with --json an object a line."""
    if service:
        check_name("SVC", service)
    with opened(common, service) as (versions, deadline):
        if not is_watching:
            _tell(common, versions.status(service, deadline=deadline))
            return Exit.OK
        with standing(common.out) as live:
            for found in versions.follow(service):
                _tell(common, found, live)
    return Exit.OK


def _tell(common: Common, found: Status, live: Live | None = None) -> None:
    if common.env.is_json:
        told = {"v": 1, "ok": True, **_object(found)}
        common.out.object(told) if live is None else common.out.line(told)
        return
    head, rows, columns = f"generation {found.gen}", _rows(found), ("kind", "name", "gen", "state")
    if live is not None and live.is_on:
        live.show(f"{head}\n{common.out.table(rows, columns)}")
        return
    common.out.text(head)
    common.out.rows(rows, columns)


def _rows(found: Status) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name, route in sorted(found.routes.items()):
        text = route_text(msgspec.to_builtins(route))
        rows.append({"kind": "route", "name": name, "gen": None, "state": text})
    for key, rev in sorted(found.configs.items()):
        rows.append({"kind": "config", "name": key, "gen": rev, "state": ""})
    for each in _subscribers(found):
        name = f"{each['app'] or each['id']} host {each['host']} pid {each['pid']}"
        rows.append(
            {"kind": "subscriber", "name": name, "gen": each["gen"], "state": each["state"]}
        )
    return rows


def _object(found: Status) -> dict[str, Any]:
    return {
        "gen": found.gen,
        "routes": {
            name: {version: weight for version, weight in route.versions.items() if weight > 0}
            for name, route in found.routes.items()
        },
        "configs": found.configs,
        "subscribers": _subscribers(found),
        "paused": [name for name, route in found.routes.items() if route.is_paused],
        "replaced": {n: r.replaced_by for n, r in found.routes.items() if r.replaced_by},
        "overrides": {n: r.overrides for n, r in found.routes.items() if r.overrides},
    }


def _subscribers(found: Status) -> list[dict[str, Any]]:
    return [
        {
            **consumer_object(each.consumer),
            "uses": list(each.consumer.uses),
            "wanted": each.wanted or None,
            "state": _state(each),
        }
        for each in found.subscribers
    ]


def _state(each: Any) -> str:
    if each.consumer.nack is not None:
        return "nacked"
    return "behind" if each.is_behind else "current"


@command(
    "check",
    short_help="What is wrong with what is routed.",
    examples=("fan version check", "fan version check --json"),
)
@common
def check(common: Common) -> int:
    """Look for dependencies that are not met, replacements that lead nowhere and versions that take
    calls without a live instance (exit 4); paused and unrouted services are warnings."""
    with opened(common) as (versions, deadline):
        problems = versions.check(deadline=deadline)
    errors = [each for each in problems if not each.is_warning]
    rows = [
        {
            "level": "warning" if each.is_warning else "error",
            "kind": each.kind,
            "service": each.service,
            "version": each.version or None,
            "message": each.message,
        }
        for each in problems
    ]
    if not common.env.is_json:
        common.out.rows(rows, ("level", "kind", "service", "version", "message"))
        return Exit.REFUSED if errors else Exit.OK
    told: dict[str, Any] = {"v": 1, "ok": not errors, "problems": rows}
    if errors:
        from fan import FailedPrecondition

        exc = FailedPrecondition(errors[0].message, reason=errors[0].kind)
        told = {**common.out.failure_of(exc, Exit.REFUSED), **told}
    common.out.object(told)
    return Exit.REFUSED if errors else Exit.OK


@command(
    "wait",
    short_help="Wait until a generation is confirmed.",
    examples=("fan version wait --gen 42", "fan version wait --gen 42 --confirm 90% --json"),
)
@click.option(
    "--gen", type=click.IntRange(min=1), metavar="G", help="Which one. [the newest]"
)
@waiting
@common
def wait(common: Common, *, gen: int | None, confirm: float, confirm_timeout: float) -> int:
    """Wait until the subscribers of what a generation changed have applied it: 0 once they have, 9
    where they do not in time, 12 where it was undone or overtaken since."""
    from fan import Confirm

    how = Confirm(need=confirm, timeout=confirm_timeout, on_progress=progress(common))
    with opened(common) as (versions, deadline):
        try:
            done = versions.wait(gen, confirm=how, deadline=deadline)
        finally:
            common.out.progress("")
        return report_wait(common, done)
