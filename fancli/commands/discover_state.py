"""`fan discover drain`, `undrain` and `down`: instances out of service, and back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import click

from fancli.exits import Exit
from fancli.fleet import Named, instances_argument, noting, parse_named, report
from fancli.group import command
from fancli.options import Common, common
from fancli.params import Duration

if TYPE_CHECKING:
    from fan import App, Instance

until_option: Callable[[Any], Any] = click.option(
    "--until", type=Duration(), metavar="DUR", help="Take it back by itself after that long."
)


@command(
    "drain",
    short_help="Take instances out of service, gently.",
    examples=(
        "fan discover drain greeter/greeter-5f0c --wait",
        "fan discover drain greeter@1.0.0 --until 10m -m 'new kernel'",
    ),
)
@instances_argument
@click.option("--wait", is_flag=True, help="Return when they handle no call any more. [30s]")
@until_option
@common
@noting
def drain(
    common: Common,
    *,
    instances: tuple[str, ...],
    wait: bool,
    until: float | None,
    why: str,
    dry_run: bool,
    yes: bool,
) -> int:
    """Have instances get no new calls; those that they have are answered. They are listed as
    draining, and keep running, until `undrain` brings them back. SVC@V are all that run of a
    version now.

    --wait returns when no call is in flight and none comes any more; what is not idle after
    --timeout (by default the setting drain_timeout) is exit 9. An instance that is not of fan
    cannot be waited for.
    """
    named = [parse_named(text) for text in instances]
    with common.app() as app:
        found, changed = _set(app, named, "draining", until, why, dry_run)
        busy: list[Instance] = []
        if wait and not dry_run:
            limit = app.settings.drain_timeout if common.timeout is None else common.timeout
            busy = app.operations.wait_idle(found, limit)
    more = {"busy": [f"{i.service}/{i.id}" for i in busy]} if wait else {}
    report(common, changed, "is draining", dry_run, **more)
    for instance in busy:
        common.out.warn(f"{instance.service}/{instance.id} still handles calls", is_error=True)
    return Exit.PARTIAL if busy else Exit.OK


@command(
    "down",
    short_help="Mark instances as down.",
    examples=(
        "fan discover down greeter/greeter-5f0c -m 'disk full'",
        "fan discover down greeter@1.0.0 --until 1h",
    ),
)
@instances_argument
@until_option
@common
@noting
def down(
    common: Common,
    *,
    instances: tuple[str, ...],
    until: float | None,
    why: str,
    dry_run: bool,
    yes: bool,
) -> None:
    """Have instances get no calls whatever they say of themselves, listed as down, until `undrain`
    brings them back. It also holds for an instance that comes back under its id."""
    named = [parse_named(text) for text in instances]
    with common.app() as app:
        _, changed = _set(app, named, "down", until, why, dry_run)
    report(common, changed, "is down", dry_run)


@command(
    "undrain",
    short_help="Bring drained instances back.",
    examples=("fan discover undrain greeter/greeter-5f0c", "fan discover undrain greeter@1.0.0"),
)
@instances_argument
@common
@noting
def undrain(
    common: Common, *, instances: tuple[str, ...], why: str, dry_run: bool, yes: bool
) -> None:
    """Take back what `drain` and `down` said: the instances' own word counts again."""
    named = [parse_named(text) for text in instances]
    with common.app() as app:
        found = _find(app, named)
        if dry_run:
            overrides = {name.service: app.discovery.service(name.service) for name in named}
            changed = [i for i in found if i.id in overrides[i.service].overrides]
        else:
            changed = list(app.operations.lift(found))
    report(common, changed, "speaks for itself again", dry_run)


def _set(
    app: App,
    named: Sequence[Named],
    state: Literal["draining", "down"],
    until: float | None,
    why: str,
    dry_run: bool,
) -> tuple[list[Instance], Sequence[Instance]]:
    found = _find(app, named)
    if dry_run:
        return found, found
    end = None if until is None else time.time() + until
    return found, app.operations.override(found, state, until=end, why=why)


def _find(app: App, named: Sequence[Named]) -> list[Instance]:
    """All before the first is changed: one that is not there leaves the others alone."""
    return list({i.id: i for name in named for i in name.find(app)}.values())
