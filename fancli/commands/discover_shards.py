"""`fan discover reshard`: how the keys of a service are spread over its instances."""

from __future__ import annotations

from collections.abc import Sequence

import click

from fancli.complete import complete_service
from fancli.group import command
from fancli.options import Common, common
from fancli.params import Usage, check_name
from fancli.writes import Writing, writing


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
    none: bool,
) -> int:
    """Say which instance a call goes to by its shard key, which is given (--sk) or made of the
    arguments that TEMPLATE names. In the mode `owned` instances say what is theirs (`fan serve
    --shard`); in `hashed` every key has one of the live instances. --map stands above both.

    It is a part of the service's route: one generation, which `fan version rollback` takes back.
    A key that no instance has is refused, as is a call without one; `fan discover check` tells of
    such holes beforehand.
    """
    from fan import ShardRule

    check_name("SERVICE", service)
    common.env.target = service
    if none and (template or mode or pairs):
        raise Usage("--none and another option", "one of them")
    if not none and not template:
        raise Usage("--template is missing", "--template '/store/{shard1}/', or --none")
    rule = None
    if template:
        rule = ShardRule(template, mode or "hashed", _parse_map(pairs))  # type: ignore[arg-type]
    with common.app() as app:
        done = app.operations.reshard(service, rule, writing.how)
    return writing.report(done)


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
