"""`fan dev`: what a developer needs around services: private servers to run them against."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Any

import click
import msgspec

from fancli.group import Group, command
from fancli.options import Common, common, listing
from fancli.output import Format

if TYPE_CHECKING:
    from fan import Servers, ServerStatus

#: In the order of a listing.
NAMES = ("redis", "rabbitmq", "zookeeper")

dev = Group(
    "dev",
    help="What a developer needs around services.",
    short_help="Run private Redis, RabbitMQ and ZooKeeper servers.",
    examples=("fan dev servers start redis", "fan dev servers status"),
)

servers = Group(
    "servers",
    help="Private Redis, RabbitMQ and ZooKeeper servers on 127.0.0.1.",
    short_help="Private Redis, RabbitMQ and ZooKeeper servers.",
    examples=(
        'eval "$(fan dev servers start redis)"',
        "fan dev servers status",
        "fan dev servers stop",
    ),
)

named = click.argument("names", metavar="[NAME]...", nargs=-1, type=click.Choice(NAMES))


@command(
    "start",
    short_help="Start servers, and print how to use them.",
    examples=(
        "fan dev servers start",
        'eval "$(fan dev servers start redis zookeeper)"',
        "fan dev servers start rabbitmq --json",
    ),
)
@named
@common
def start(picked: Common, *, names: tuple[str, ...]) -> None:
    """Start redis, rabbitmq and zookeeper, or those that are named, and wait until they answer,
    60s where --timeout does not say otherwise. stdout is a line for the shell for each: `export
    FAN_REDIS_URL=redis://...`, FAN_AMQP_URL, FAN_REGISTRY.

    A server that runs already stays as it is. They outlive this command; their data and ports lie
    in the user's data folder and are there again at the next start.
    """
    known = _servers()
    found = known.start(names, *_within(picked))
    if picked.env.is_json:
        exports = {status.variable: status.url for status in found}
        picked.out.object({**_result(found), "export": exports})
        return
    for status in found:
        picked.out.text(f"export {status.variable}={quote(status.url or '')}")
        was = "started" if status.changed else "runs already"
        picked.out.note(f"{status.name} {was}: {status.url}, pid {status.pid}")


@command(
    "stop",
    short_help="Stop servers that `start` started.",
    examples=("fan dev servers stop", "fan dev servers stop rabbitmq --timeout 30s"),
)
@named
@common
def stop(picked: Common, *, names: tuple[str, ...]) -> None:
    """Stop all servers that `start` started, or those that are named. One that does not end within
    --timeout, 15s by default, is killed. Their data stays."""
    found = _servers().stop(names, *_within(picked))
    if picked.env.is_json:
        picked.out.object(_result(found))
        return
    for status in found:
        picked.out.note(f"{status.name} {'stopped' if status.changed else 'does not run'}")


@command(
    "status",
    short_help="Which servers run, and where.",
    examples=("fan dev servers status", "fan dev servers status redis --json"),
)
@named
@common
@listing
def status(picked: Common, *, names: tuple[str, ...], render: tuple[Format, bool]) -> None:
    """Show a row for each server: `up`, `starting` where it runs and does not answer, or `down`;
    its process id, port and URL."""
    rows = [_row(status) for status in _servers().status(names)]
    picked.out.rows(rows, ("name", "state", "pid", "port", "url"), render[0], wants_head=render[1])


def _servers() -> Servers:
    from fan import Servers

    return Servers()


def _within(picked: Common) -> tuple[float, ...]:
    return () if picked.timeout is None else (picked.timeout,)


def _result(found: list[ServerStatus]) -> dict[str, Any]:
    return {
        "v": 1,
        "ok": True,
        "changed": any(status.changed for status in found),
        "servers": [msgspec.to_builtins(status) for status in found],
    }


def _row(status: ServerStatus) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(status)
    del row["changed"]
    return row


for _command in (start, stop, status):
    servers.add_command(_command)
dev.add_command(servers)
