"""`fan version history`, `diff` and `graph`: what was, and who needs whom."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
import msgspec

from fancli.exits import Exit
from fancli.group import command
from fancli.live import standing
from fancli.mask import mask_url
from fancli.options import Common, common, listing
from fancli.output import Format
from fancli.switching import change, line, opened, route_text

if TYPE_CHECKING:
    from fan import Generation
    from fancli.live import Live

_GEN = click.IntRange(min=0)


@command(
    "history",
    short_help="Who changed what, when and why.",
    examples=("fan version history", "fan version history -N 5 --json"),
)
@click.option(
    "-N", "--limit", type=click.IntRange(min=1), metavar="N", help="The newest N only."
)
@common
@listing
def history(common: Common, *, limit: int | None, render: tuple[Format, bool]) -> None:
    """The generations that are kept, the newest first: of routes and of configs, whose values are
    not shown."""
    with opened(common) as (versions, deadline):
        found = versions.history(limit, deadline=deadline)
    is_text = render[0] in ("table", "name")
    rows = [_row(common, each, is_text=is_text) for each in found]
    columns = ("gen", "when", "who", "verb", "changes", "message")
    common.out.rows(rows, columns, render[0], wants_head=render[1])


def _row(common: Common, each: Generation, *, is_text: bool) -> dict[str, Any]:
    message = each.message if common.env.show_secrets else mask_url(each.message)
    row = {
        "gen": each.gen,
        "when": each.at,
        "who": each.who,
        "verb": each.verb,
        "changes": [_object(step) for step in each.steps],
        "message": message,
        "host": each.host,
        "undo_of": each.undo_of or None,
        "undone_by": each.undone_by or None,
        "forced": each.forced,
        "op": each.op,
    }
    if is_text:
        marks = [f"of {each.undo_of}"] if each.undo_of else []
        marks += ["forced"] if each.forced else []
        marks += [f"undone by {each.undone_by}"] if each.undone_by else []
        row["verb"] = f"{each.verb} ({', '.join(marks)})" if marks else each.verb
        row["changes"] = "; ".join(_text(step) for step in each.steps)
    return row


def _object(step: Any) -> dict[str, Any]:
    kind, _, key = step.object.partition("/")
    found = {"kind": kind, "key": key, "from": step.before_rev, "to": step.after_rev}
    return {**found, "text": _text(step)} if kind == "route" else found


def _text(step: Any) -> str:
    kind, _, key = step.object.partition("/")
    if kind != "route":
        return f"{kind} {key}"
    sides = [
        route_text(None if body is None else msgspec.json.decode(body))
        for body in (step.before, step.after)
    ]
    return f"{key}: {' -> '.join(sides)}"


@command(
    "diff",
    short_help="Compare two generations.",
    examples=("fan version diff 41", "fan version diff 38 42 --json"),
)
@click.argument("first", metavar="G1", type=_GEN)
@click.argument("second", metavar="[G2]", required=False, type=_GEN)
@common
def diff(common: Common, *, first: int, second: int | None) -> int:
    """What is otherwise in generation G2, by default the newest, than in G1: routes and configs."""
    with opened(common) as (versions, deadline):
        steps = versions.diff(first, second, deadline=deadline)
    if common.env.is_json:
        changes = [change(common, 0, step) for step in steps]
        for each in changes:
            each["verb"] = "delete" if each["to"]["value"] is None else "set"
        told = {"from": first, "to": second, "changed": bool(steps), "changes": changes}
        common.out.object({"v": 1, "ok": True, **told})
        return Exit.OK
    for step in steps:
        common.out.text(line(common, step))
    return Exit.OK


@command(
    "graph",
    short_help="Who needs whom, with versions.",
    examples=("fan version graph", "fan version graph --watch", "fan version graph --json"),
)
@click.option("--watch", "is_watching", is_flag=True, help="Again after each change.")
@common
def graph(common: Common, *, is_watching: bool) -> int:
    """Draw the routed versions and the dependencies between them; `!` marks what is not met. With
    --watch it is drawn again after each change, until Ctrl-C; with --json an object a line."""
    with opened(common) as (versions, deadline):
        if not is_watching:
            _draw(common, versions.graph(deadline=deadline))
            return Exit.OK
        last = None
        with standing(common.out) as live:
            for _ in versions.follow():
                found = versions.graph()
                if last is None or (found.routes, found.edges) != (last.routes, last.edges):
                    _draw(common, found, live)
                last = found
    return Exit.OK


def _draw(common: Common, found: Any, live: Live | None = None) -> None:
    if common.env.is_json:
        nodes = [
            {"service": name, "version": version, "weight": weight}
            for name, route in sorted(found.routes.items())
            for version, weight in sorted(route.versions.items())
            if weight > 0
        ]
        edges = [
            {
                "service": e.service,
                "version": e.version,
                "needs": e.needed,
                "range": e.range,
                "strength": "hard" if e.is_hard else "soft",
                "have": list(e.have),
                "met": e.is_met,
            }
            for e in found.edges
        ]
        told = {"v": 1, "ok": True, "gen": found.gen, "nodes": nodes, "edges": edges}
        common.out.object(told) if live is None else common.out.line(told)
        return
    lines = list(_drawn(found))
    if live is not None and live.is_on:
        live.draw(*lines)
    elif lines:
        common.out.text("\n".join(lines))


def _drawn(found: Any) -> Iterator[str]:
    for name, route in sorted(found.routes.items()):
        yield f"{name} {route_text(msgspec.to_builtins(route))}"
        edges = [edge for edge in found.edges if edge.service == name]
        for number, edge in enumerate(edges, 1):
            arm = "└─" if number == len(edges) else "├─"
            mark = " " if edge.is_met else "!"
            soft = "" if edge.is_hard else " (soft)"
            yield f"{arm}{mark}{edge.version} needs {edge.wanted}{soft}: {edge.found}"
