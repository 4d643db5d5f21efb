"""`fan version rollback`: take a generation back, or go back to one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from fancli.complete import complete_service
from fancli.confirming import confirming, force
from fancli.group import command
from fancli.options import Common, common
from fancli.params import Usage, check_name
from fancli.switching import line, opened, report
from fancli.writes import Writing, writing

if TYPE_CHECKING:
    from fan import Confirm


@command(
    "rollback",
    short_help="Take a switch back.",
    examples=(
        "fan version rollback",
        "fan version rollback 42 -m 'too slow' --json",
        "fan version rollback --to 40 --only shop,stock --configs --dry-run",
    ),
)
@click.argument("gen", metavar="[GEN]", required=False, type=click.IntRange(min=1))
@click.option(
    "--to", type=click.IntRange(min=0), metavar="GEN", help="Bring its routes back."
)
@click.option(
    "--only",
    metavar="SVC,...",
    default="",
    shell_complete=complete_service,
    help="With --to: only those of these services.",
)
@click.option("--configs", is_flag=True, help="With --to: its configs, too.")
@force
@common
@writing
@confirming
def rollback(
    common: Common,
    *,
    writing: Writing,
    confirm: Confirm,
    gen: int | None,
    to: int | None,
    only: str,
    configs: bool,
    force: bool,
) -> int:
    """Take generation GEN back, by default the newest that switched a route which is in force:
    routes and configs together. Doing it again walks further back. What was changed again since
    stops it (exit 10), with the generation that did.

    With --to the routes become those of an earlier generation, and younger ones stay. It is a new
    generation each time: the history stays.
    """
    if to is not None and gen is not None:
        raise Usage("GEN and --to", "one of them")
    if to is None and (only or configs):
        raise Usage("--only and --configs belong to --to", "fan version rollback --to GEN")
    services = [check_name("--only", name) for name in only.split(",") if name]
    how: dict[str, Any] = {"force": force, "confirm": confirm}
    with opened(common, services[0] if services else "") as (versions, deadline):
        if to is None:
            done = versions.rollback(gen, how=writing.how, deadline=deadline, **how)
            return report(common, writing, done)
        how |= {"only": services, "configs": configs, "deadline": deadline}
        if not writing.how.dry_run and not common.env.is_json and not writing.how.op:
            dry = msgspec.structs.replace(writing.how, dry_run=True)
            for step in versions.restore(to, how=dry, **how).steps:
                common.out.note(line(common, step))
        done = versions.restore(to, how=writing.how, **how)
        return report(common, writing, done)
