"""`fan discover check` and `subs`: what is wrong, and who follows the registry."""

from __future__ import annotations

import click
import msgspec

from fancli.complete import complete_service
from fancli.exits import Exit
from fancli.group import command
from fancli.options import Common, common, listing
from fancli.output import Format
from fancli.params import check_name

COLUMNS = ("kind", "service", "version", "instance", "what")
SUBSCRIBER_COLUMNS = ("id", "app", "gen", "nack", "uses", "pid", "host", "at")


@command(
    "check",
    short_help="What is wrong with what is registered.",
    examples=("fan discover check", "fan discover check store", "fan discover check --json"),
)
@click.argument("service", required=False, default="", shell_complete=complete_service)
@common
@listing
def check(common: Common, *, service: str, render: tuple[Format, bool]) -> int:
    """Look for what a caller would meet sooner or later: hard dependencies that nobody meets,
    routed versions without a live instance, services without a route, holes and overlaps of shards,
    and servers of the registry that are away or too old. What is found is printed, and is exit
    4."""
    if service:
        common.env.target = check_name("SERVICE", service)
    with common.app() as app:
        found = app.operations.check(service)
    rows = [msgspec.to_builtins(each) for each in found]
    said = f"{len(rows)} finding{'s' * (len(rows) != 1)}"
    if common.env.is_json:
        told = {"v": 1, "ok": not rows, "findings": rows}
        if rows:
            told["error"] = {
                "code": "failed_precondition", "reason": "unsound", "exit": int(Exit.REFUSED),
                "message": said, "executed": "no", "retryable": False,
            }  # fmt: skip
        common.out.object(told)
    else:
        common.out.rows(rows, COLUMNS, render[0], wants_head=render[1])
        common.out.note(said)
    return Exit.REFUSED if rows else Exit.OK


@command(
    "subs",
    short_help="Who follows the registry, and how far.",
    examples=("fan discover subs", "fan discover subs greeter --json"),
)
@click.argument("service", required=False, default="", shell_complete=complete_service)
@common
@listing
def subs(common: Common, *, service: str, render: tuple[Format, bool]) -> None:
    """List the Apps that follow the registry, or those that use a service: the generation that each
    has in force, and the one that it refused."""
    if service:
        check_name("SERVICE", service)
    with common.app() as app:
        found = app.operations.subscribers()
    rows = [
        {
            "id": one.id,
            "app": one.app,
            "gen": one.applied.gen,
            "nack": f"{one.nack.gen}: {one.nack.error}" if one.nack is not None else "",
            "uses": list(one.uses),
            "pid": one.pid,
            "host": one.host,
            "at": one.at,
        }
        for one in found
        if not service or service in one.uses
    ]
    common.out.rows(rows, SUBSCRIBER_COLUMNS, render[0], wants_head=render[1])
