"""`fan version weight`, `promote`, `abort`, `pause`, `resume` and `retire`: one service's route."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from fancli.complete import complete_service, complete_share, complete_version
from fancli.confirming import (
    committed,
    confirming,
    force,
    min_healthy,
    progress,
    shares_of,
    waiting,
)
from fancli.group import command
from fancli.options import Common, common
from fancli.params import Usage, check_name
from fancli.switching import WHOLE, opened, report
from fancli.writes import Writing, writing

if TYPE_CHECKING:
    from fan import Confirm

service_argument: Callable[[Any], Any] = click.argument(
    "service", metavar="SVC", shell_complete=complete_service
)


@command(
    "weight",
    short_help="Give a version a share of the calls.",
    examples=(
        "fan version weight shop 2.0.0=5%",
        "fan version weight shop 2=10% --confirm 90% -m 'more of it'",
        "fan version weight shop 2=0%",
    ),
)
@service_argument
@click.argument("shares", metavar="V=5%...", nargs=-1, required=True, shell_complete=complete_share)
@min_healthy
@force
@common
@writing
@confirming
def weight(
    common: Common,
    *,
    writing: Writing,
    confirm: Confirm,
    service: str,
    shares: tuple[str, ...],
    min_healthy: int,
    force: bool,
) -> int:
    """Give versions of a service their shares of the calls. The other routed versions share the
    rest, in proportion to what they have. Who calls one version stays there while its share
    grows."""
    check_name("SVC", service)
    given = shares_of(shares, "V=5%")
    if sum(given.values()) > WHOLE:
        raise Usage("the weights are more than 100% together")
    with opened(common, service) as (versions, deadline):
        done = versions.weight(
            service,
            given,
            min_healthy=min_healthy,
            force=force,
            how=writing.how,
            confirm=confirm,
            deadline=deadline,
        )
        return report(common, writing, done)


@command(
    "promote",
    short_help="Give the canary all calls.",
    examples=("fan version promote shop", "fan version promote shop 2.0.0 --auto-rollback"),
)
@service_argument
@click.argument("version", metavar="[V]", default="", shell_complete=complete_version)
@force
@common
@writing
@confirming
def promote(
    common: Common,
    *,
    writing: Writing,
    confirm: Confirm,
    service: str,
    version: str,
    force: bool,
) -> int:
    """Give all calls to the canary, the routed version with the smaller weight; or to the routed
    version V."""
    check_name("SVC", service)
    with opened(common, service) as (versions, deadline):
        done = versions.promote(
            service, version, force=force, how=writing.how, confirm=confirm, deadline=deadline
        )
        return report(common, writing, done)


@command(
    "abort",
    short_help="Take all calls from the canary.",
    examples=("fan version abort shop", "fan version abort shop 2.0.0 -m 'too many errors'"),
)
@service_argument
@click.argument("version", metavar="[V]", default="", shell_complete=complete_version)
@force
@common
@writing
@confirming
def abort(
    common: Common,
    *,
    writing: Writing,
    confirm: Confirm,
    service: str,
    version: str,
    force: bool,
) -> int:
    """Take all calls from the canary, or from the routed version V, and give them back to the other
    routed versions; also where the route is paused."""
    check_name("SVC", service)
    with opened(common, service) as (versions, deadline):
        done = versions.abort(
            service, version, force=force, how=writing.how, confirm=confirm, deadline=deadline
        )
        return report(common, writing, done)


@command(
    "pause",
    short_help="Have a route refuse switches.",
    examples=("fan version pause shop -m 'sale until Monday'",),
)
@service_argument
@common
@writing
def pause(common: Common, *, writing: Writing, service: str) -> int:
    """Have a route refuse switches, weights and promotions until it is resumed. Calls go on as they
    are."""
    return _freeze(common, writing, service, "pause")


@command(
    "resume",
    short_help="Let a route be switched again.",
    examples=("fan version resume shop",),
)
@service_argument
@common
@writing
def resume(common: Common, *, writing: Writing, service: str) -> int:
    """Let a paused route be switched again."""
    return _freeze(common, writing, service, "resume")


def _freeze(common: Common, writing: Writing, service: str, verb: str) -> int:
    from fan import Confirm

    check_name("SVC", service)
    how = Confirm(need=0.0, on_commit=committed(common))
    with opened(common, service) as (versions, deadline):
        act = versions.pause if verb == "pause" else versions.resume
        done = act(service, how=writing.how, confirm=how, deadline=deadline)
        return report(common, writing, done)


@command(
    "retire",
    short_help="End a version for good.",
    examples=("fan version retire shop 1.0.0", "fan version retire shop 1.0.0 --dry-run"),
)
@service_argument
@click.argument("version", metavar="V", shell_complete=complete_version)
@waiting
@common
@writing
def retire(
    common: Common,
    *,
    writing: Writing,
    service: str,
    version: str,
    confirm: float,
    confirm_timeout: float,
) -> int:
    """Have a version take no calls any more: those that still reach it are sent on. Refused for a
    version that takes calls, and for those that the next two rollbacks would return to. It waits
    until every subscriber has applied the present route, and then as long as a call may take."""
    from fan import Confirm

    check_name("SVC", service)

    def tell(seconds: float) -> None:
        common.out.note(f"waits {seconds:.1f}s: so long may a call that began before be under way")

    how = Confirm(
        need=confirm,
        timeout=confirm_timeout,
        on_commit=committed(common),
        on_progress=progress(common),
    )
    with opened(common, service) as (versions, deadline):
        try:
            done = versions.retire(
                service, version, how=writing.how, confirm=how, tell=tell, deadline=deadline
            )
        finally:
            common.out.progress("")
        return report(common, writing, done)
