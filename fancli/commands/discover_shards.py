"""`fan discover reshard`: how the keys of a service are spread over its instances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from fancli.complete import complete_service
from fancli.group import command
from fancli.options import Common, common
from fancli.params import Usage, check_name, parse_shards
from fancli.writes import Writing, writing

if TYPE_CHECKING:
    from fan import ShardRule


@command(
    "reshard",
    short_help="Spread a service's keys another way.",
    examples=(
        "fan discover reshard store --template '/store/{shard1}/item/{shard2}/' --mode hashed",
        "fan discover reshard store --template '{user}' --mode owned",
        "fan discover reshard store --template '{user}' --map user:ada=store-1,store-2",
        "fan discover reshard store --none",
    ),
)
@click.argument("service", metavar="SERVICE", shell_complete=complete_service)
@click.option("--template", metavar="PATH", default="", help="A path with {VARIABLES}, or one.")
@click.option(
    "--mode",
    type=click.Choice(["hashed", "owned"]),
    help="Spread by hash, or as instances declare. [hashed]",
)
@click.option(
    "--map",
    "pairs",
    metavar="NAME:VALUE=ID,ID",
    multiple=True,
    help="These instances have this value. May be repeated.",
)
@click.option(
    "--values",
    "wanted",
    metavar="NAME=V,V",
    multiple=True,
    help="Values that somebody has to have, for `check`. May be repeated.",
)
@click.option("--none", is_flag=True, help="Not sharded any more.")
@common
@writing
def reshard(
    common: Common,
    *,
    writing: Writing,
    service: str,
    template: str,
    mode: str | None,
    pairs: tuple[str, ...],
    wanted: tuple[str, ...],
    none: bool,
) -> int:
    """Say which instance a call goes to by its shard key, which is given (--sk) or made of the
    arguments that TEMPLATE names. In the mode `owned` instances say what is theirs (`fan serve
    --shard`); in `hashed` every key has one of the live instances. --map stands above both.

    It is a part of the service's route: one generation, which `fan version rollback` takes back.
    A key that no instance has is refused, as is a call without one; `fan discover check` tells of
    such holes beforehand.
    """
    check_name("SERVICE", service)
    common.env.target = service
    if none and (template or mode or pairs or wanted):
        raise Usage("--none and another option", "one of them")
    if not none and not template:
        raise Usage("--template is missing", "--template '/store/{shard1}/', or --none")
    rule = _rule(template, mode or "hashed", pairs, wanted) if template else None
    with common.app() as app:
        done = app.operations.reshard(service, rule, writing.how)
    return writing.report(done)


def _rule(template: str, mode: Any, pairs: Sequence[str], wanted: Sequence[str]) -> ShardRule:
    from fan import InvalidArgument, ShardRule

    rule = ShardRule(template, mode, _parse_map(pairs), parse_shards("--values", wanted))
    try:
        rule.check()
    except InvalidArgument as exc:
        raise Usage(exc.message, "--template '/store/{shard1}/item/{shard2}/'") from exc
    return rule


def _parse_map(pairs: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """`shard1:a=ID,ID` as {"shard1": {"a": ["ID", "ID"]}}; the last = splits."""
    found: dict[str, dict[str, list[str]]] = {}
    for text in pairs:
        left, equals, right = text.rpartition("=")
        name, colon, value = left.partition(":")
        ids = right.split(",")
        if not (equals and colon and name and value and all(ids)):
            raise Usage(f"--map {text!r}: a variable, its value, and ids", "--map user:ada=store-1")
        found.setdefault(name, {}).setdefault(value, []).extend(ids)
    return found
