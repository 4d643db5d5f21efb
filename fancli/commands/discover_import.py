"""`fan discover import`: what an older kit registered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fancli.exits import Exit
from fancli.group import command
from fancli.options import Common, common, listing
from fancli.output import Format
from fancli.params import Usage, check_registry, dereferenced

if TYPE_CHECKING:
    from fan import App

COLUMNS = ("service", "version", "outcome", "addresses", "path")


@command(
    "import",
    short_help="Take over what an older kit registered.",
    examples=(
        "fan discover import --legacy --from zk://zk1:2181/prod --dry-run",
        "fan discover import --legacy --from zk://zk1:2181/prod",
    ),
)
@click.option("--legacy", is_flag=True, help="From versions before 0.19: /endpoints on ZooKeeper.")
@click.option("--from", "place", metavar="URL", default="", help="zk://HOST[,HOST]/CHROOT.")
@click.option("--dry-run", is_flag=True, help="Say what would be taken over; change nothing.")
@common
@listing
def import_(
    common: Common, *, legacy: bool, place: str, dry_run: bool, render: tuple[Format, bool]
) -> int:
    """Register what stands in the layout of before, by default on the servers of the registry in
    force: a row for each instance, and why one cannot be taken over (then it is exit 9). They stay
    until `fan discover deregister`, whatever becomes of the old nodes; the old registry is only
    read, and doing it again changes nothing."""
    from fan import read_legacy

    if not legacy:
        raise Usage("of what? --legacy is the only kind", "fan discover import --legacy")
    with common.app() as app:
        source = app.settings.registry_url
        if place:
            source = dereferenced("--from", check_registry(place, "--from"), common.env.vars)
        found = read_legacy(source, app.settings.timeout)
        rows = [_row(app, each, dry_run) for each in found]
    common.out.rows(rows, COLUMNS, render[0], wants_head=render[1])
    failed = sum(each.foreign is None for each in found)
    return Exit.PARTIAL if failed else Exit.OK


def _row(app: App, each: Any, dry_run: bool) -> dict[str, Any]:
    from fan import AlreadyExists

    foreign = each.foreign
    if foreign is None:
        return {"path": each.path, "service": "", "version": "", "addresses": [],
                "outcome": f"skipped: {each.why}"}  # fmt: skip
    outcome = "imported"
    if not dry_run:
        try:
            app.operations.register(foreign.interface, foreign.urls, id=foreign.id)
        except AlreadyExists:
            outcome = "unchanged"
    return {
        "path": each.path,
        "service": foreign.interface.service,
        "version": foreign.interface.version,
        "addresses": list(foreign.urls),
        "outcome": outcome,
    }
