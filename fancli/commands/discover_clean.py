"""`fan discover deregister` and `gc`: what is left over in the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fancli.complete import complete_instances
from fancli.fleet import noting, parse_named, report
from fancli.group import command
from fancli.options import Common, common, listing
from fancli.output import Format

if TYPE_CHECKING:
    from fan import Leftover

COLUMNS = ("name", "kind", "why")


@command(
    "deregister",
    short_help="Remove an instance from the registry.",
    examples=("fan discover deregister billing/billing-1", "fan discover deregister billing/b -y"),
)
@click.argument("instance", metavar="SVC/ID", shell_complete=complete_instances)
@common
@noting
def deregister(common: Common, *, instance: str, why: str, dry_run: bool, yes: bool) -> None:
    """Remove an instance, and what `drain` and `down` said of it: one that was registered for good,
    or whose process hangs. One that lives is back at its next change; `down` keeps calls away from
    it."""
    named = parse_named(instance, one=True)
    with common.app() as app:
        found = named.find(app)
        wants = yes or dry_run or common.out.ask(f"remove {named.text} ({found[0].state})?")
        is_gone = wants and not dry_run and app.operations.deregister(named.service, named.id)
    report(common, found if is_gone or dry_run else (), "is gone", dry_run)


@command(
    "gc",
    short_help="Remove what nobody needs any more.",
    examples=("fan discover gc --dry-run", "fan discover gc -y"),
)
@common
@listing
@noting
def gc(
    common: Common, *, render: tuple[Format, bool], why: str, dry_run: bool, yes: bool
) -> None:
    """Remove interfaces of versions that nobody runs and no route returns to, what operators said
    of instances that are gone, and places of `unique` services that nobody holds. Prints what
    went."""
    with common.app() as app:
        found = app.operations.leftovers()
        if found and not (yes or dry_run):
            for each in found:
                common.out.note(f"{each.kind} {each.name}: {each.why}")
            if not common.out.ask(f"remove these {len(found)}?"):
                return
        if not dry_run:
            app.operations.remove(found)
    rows = [_row(each) for each in found]
    common.out.rows(rows, COLUMNS, render[0], wants_head=render[1])
    if not rows:
        common.out.note("nothing is left over")


def _row(leftover: Leftover) -> dict[str, str]:
    return {"name": leftover.name, "kind": leftover.kind, "why": leftover.why}
