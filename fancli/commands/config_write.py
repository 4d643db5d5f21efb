"""`fan config set`, `patch`, `delete` and `rollback`: changes of one config."""

from __future__ import annotations

from typing import Any

import click

from fancli.configs import TYPES, key_argument, opened, read_json, read_schema, value_of
from fancli.group import command
from fancli.options import Common, common
from fancli.params import Usage
from fancli.writes import Writing, if_rev, writing


@command(
    "set",
    short_help="Give a config a value, and a schema.",
    examples=(
        "fan config set orders/theme dark -m 'new look'",
        "fan config set orders/limits '{\"max\":5}' --type json --if-rev 31",
        "fan config set orders/tls.pem @tls.pem",
        'fan config set orders/port 8080 --schema \'{"type":"integer","minimum":1}\'',
    ),
)
@key_argument
@click.argument("value", metavar="VALUE|@FILE|-")
@click.option(
    "--type",
    "kind",
    type=click.Choice(TYPES),
    help="What VALUE is. [the type of its schema, else str]",
)
@if_rev
@click.option("--create", is_flag=True, help="Only if there is no such config.")
@click.option(
    "--schema",
    metavar="JSON|@FILE|none",
    help="The JSON Schema that it carries from now on.",
)
@common
@writing
def set_(
    common: Common,
    *,
    writing: Writing,
    key: str,
    value: str,
    kind: str | None,
    if_rev: int | None,
    create: bool,
    schema: str | None,
) -> int:
    """Give a config a value. An equal value changes nothing and is no new generation; one that does
    not fit the JSON Schema which the config carries is refused, with the path that is wrong."""
    if create and if_rev is not None:
        raise Usage("--create and --if-rev", "one of them; --if-rev 0 is --create")
    if schema is not None and [value, schema].count("-") > 1:
        raise Usage("VALUE and --schema: stdin can be read once")
    with opened(common, key) as (config, deadline):
        given = read_schema(schema, common.env)
        carried = given if schema is not None else config.schema(key, deadline=deadline)

        def fits(value: Any) -> bool:
            from fan import InvalidArgument

            try:
                config.check(key, value, carried)
            except InvalidArgument:
                return False
            return True

        found = value_of(value, kind, carried, fits, common.env)
        more: dict[str, Any] = {} if schema is None else {"schema": given}
        done = config.set(
            key,
            found,
            if_rev=if_rev,
            create=create,
            how=writing.how,
            deadline=deadline,
            **more,
        )
    return writing.report(done)


@command(
    "patch",
    short_help="Change members of a config.",
    examples=(
        "fan config patch orders/limits --merge '{\"max\":7,\"min\":null}'",
        "fan config patch orders/limits --merge @patch.json --dry-run",
    ),
)
@key_argument
@click.option(
    "--merge", metavar="JSON|@FILE|-", required=True, help="A JSON merge patch (RFC 7396)."
)
@if_rev
@common
@writing
def patch(
    common: Common, *, writing: Writing, key: str, merge: str, if_rev: int | None
) -> int:
    """Change the members of a config that the patch names; null takes one away."""
    given = read_json(merge, "--merge", common.env)
    with opened(common, key) as (config, deadline):
        done = config.patch(key, given, if_rev=if_rev, how=writing.how, deadline=deadline)
    return writing.report(done)


@command(
    "delete",
    short_help="Delete a config.",
    examples=("fan config delete orders/theme", "fan config delete orders/theme --if-rev 31 -y"),
)
@key_argument
@if_rev
@common
@writing
def delete(common: Common, *, writing: Writing, key: str, if_rev: int | None) -> int:
    """Delete a config. Its history stays, and `fan config rollback KEY` brings it back; one that is
    deleted already changes nothing."""
    with opened(common, key) as (config, deadline):
        done = config.delete(key, if_rev=if_rev, how=writing.how, deadline=deadline)
    return writing.report(done)


@command(
    "rollback",
    short_help="Bring an earlier revision back.",
    examples=(
        "fan config rollback orders/theme",
        "fan config rollback orders/theme --to-rev 31 -m 'the new one is slow'",
    ),
)
@key_argument
@click.option(
    "--to-rev", type=click.IntRange(min=1), metavar="N", help="Revision N. [the one before]"
)
@common
@writing
def rollback(common: Common, *, writing: Writing, key: str, to_rev: int | None) -> int:
    """Put the revision in force that the present one replaced; doing it again walks further back.
    It is a new generation: the history stays."""
    with opened(common, key) as (config, deadline):
        done = config.rollback(key, to_rev, how=writing.how, deadline=deadline)
    return writing.report(done)
