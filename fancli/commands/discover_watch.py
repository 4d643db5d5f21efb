"""`fan discover watch`: every change of what is registered, as an event."""

from __future__ import annotations

from contextlib import closing

import click

from fancli import catalog
from fancli.complete import complete_service
from fancli.cursors import CursorFile
from fancli.group import command
from fancli.options import Common, common
from fancli.params import Usage, check_name
from fancli.watching import watch_services


@command(
    "watch",
    short_help="Every change of what is registered.",
    examples=(
        "fan discover watch",
        "fan discover watch greeter --json",
        "fan discover watch --since 5f1c:31 --once",
    ),
)
@click.argument("service", required=False, default="", shell_complete=complete_service)
@click.option("--since", metavar="E:G[:OP]", default="", help="Begin behind this cursor.")
@click.option("--cursor-file", metavar="FILE", default="", help="Go on where the last run ended.")
@click.option("--strict", is_flag=True, help="A history that is not kept any more is exit 11.")
@click.option("--once", is_flag=True, help="End when there is no more for now.")
@common
def watch(
    common: Common, *, service: str, since: str, cursor_file: str, strict: bool, once: bool
) -> None:
    """Print what is registered now, then every change, until Ctrl-C: `+` came, `-` went, `~`
    changed. With --json one event a line.

    Routes have generations: their events are told one by one, in order, and with a cursor, where
    --since goes on, only those that came after it. Instances and interfaces have none: those that
    are there come first, always. Further events are reset and compacted, when the history was put
    back or is not kept that far, with all routes behind; disconnected and connected.
    """
    if service:
        check_name("SERVICE", service)
    if since and cursor_file:
        raise Usage("--since and --cursor-file", "one of them")
    keeper = CursorFile(cursor_file) if cursor_file else None
    start = since or (keeper.read() if keeper else "")
    with closing(watch_services(common, service, since=start, strict=strict, once=once)) as events:
        for event in events:
            if common.env.is_json:
                common.out.line(event)
            else:
                common.out.text(catalog.event_text(event))
            if keeper and event.get("cursor"):
                keeper.store(event["cursor"])
