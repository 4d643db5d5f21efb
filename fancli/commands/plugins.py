"""`fan plugins`: what transports, stores and commands there are."""

from __future__ import annotations

from fancli.group import command
from fancli.options import Common, common, listing
from fancli.output import Format


@command(
    "plugins",
    short_help="List transports and stores.",
    examples=("fan plugins", "fan plugins --format name", "fan plugins --json"),
)
@common
@listing
def plugins(common: Common, *, render: tuple[Format, bool]) -> None:
    """List the transports and stores that are built in or installed, and whether each can be
    used."""
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
    ]
    common.out.rows(
        rows, ("name", "kind", "origin", "state", "error"), render[0], wants_head=render[1]
    )
