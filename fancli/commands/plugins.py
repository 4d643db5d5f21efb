"""`fan plugins`: what transports, stores, tracers and commands there are."""

from __future__ import annotations

from typing import Any

from fancli.extensions import extensions
from fancli.group import COMMANDS, command, load_extension
from fancli.options import Common, common, listing
from fancli.output import Format
from fancli.params import Usage


@command(
    "plugins",
    short_help="List transports, stores and plug-ins.",
    examples=("fan plugins", "fan plugins --format name", "fan plugins --json"),
)
@common
@listing
def plugins(common: Common, *, render: tuple[Format, bool]) -> None:
    """List the transports, stores and tracers that are built in or installed, and the commands that
    plug-ins bring, and say whether each can be used."""
    from fan import plugins as known

    rows = [
        {
            "name": row.name,
            "kind": row.kind,
            "origin": row.origin,
            "state": "ok" if row.is_ok else "broken",
            "error": row.error or None,
        }
        for row in known.listing()
    ] + _commands()
    common.out.rows(
        rows, ("name", "kind", "origin", "state", "error"), render[0], wants_head=render[1]
    )


def _commands() -> list[dict[str, Any]]:
    rows = []
    for extension in extensions():
        error = ""
        if extension.name in COMMANDS:
            error = "the name is taken by a command of fan's own"
        else:
            try:
                load_extension(extension)
            except Usage as exc:
                error = exc.message.partition(" cannot be loaded: ")[2]
        rows.append(
            {
                "name": extension.name,
                "kind": "command",
                "origin": extension.origin,
                "state": "broken" if error else "ok",
                "error": error or None,
            }
        )
    return rows
