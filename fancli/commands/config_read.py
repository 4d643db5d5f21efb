"""`fan config get`, `list`, `history` and `diff`: what configs are and were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fancli.complete import complete_key
from fancli.configs import key_argument, opened, shown, text_of
from fancli.exits import Exit
from fancli.group import command
from fancli.mask import mask_url
from fancli.options import Common, common, listing, reading
from fancli.output import Format
from fancli.params import Usage

if TYPE_CHECKING:
    from fan import ConfigEntry, ConfigEvent

#: Characters of a value in a table on a terminal.
_LONGEST = 60

_REV = click.IntRange(min=1)


@command(
    "get",
    short_help="Print a config's value.",
    examples=(
        "fan config get orders/theme",
        "fan config get orders/theme --default light",
        "fan config get orders/limits --gen 40 --json",
        "fan config get orders/tls.pem --raw > tls.pem",
    ),
)
@key_argument
@click.option("--rev", type=_REV, metavar="N", help="Its revision N.")
@click.option("--gen", type=click.IntRange(min=0), metavar="G", help="As of generation G.")
@click.option("--raw", is_flag=True, help="The value and nothing else, without a newline.")
@click.option("--default", metavar="V", help="Print this where there is no such config.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema that it carries instead.")
@common
@reading
def get(
    common: Common,
    *,
    key: str,
    rev: int | None,
    gen: int | None,
    raw: bool,
    default: str | None,
    schema: bool,
) -> int:
    """Print a config's value: a string as it is, anything else as JSON. A config that is not there
    is exit 3."""
    if rev is not None and gen is not None:
        raise Usage("--rev and --gen", "one of them")
    from fan import NotFound

    with opened(common, key) as (config, deadline):
        if schema:
            return _schema(common, key, config.schema(key, deadline=deadline))
        try:
            found = config.entry(key, rev=rev, gen=gen, deadline=deadline)
            told = {"value": found.value, "rev": found.rev, "gen": found.gen}
        except NotFound as exc:
            if default is None or exc.reason != "no_such_config":
                raise
            told = {"value": default, "rev": 0, "gen": gen}
    if common.env.is_json:
        common.out.object({"v": 1, "ok": True, "key": key, **told})
    elif raw:
        common.out.write(text_of(told["value"]).encode())
    elif isinstance(told["value"], str):
        common.out.text(told["value"])
    else:
        common.out.object(told["value"])
    return Exit.OK


def _schema(common: Common, key: str, schema: Any) -> int:
    from fan import NotFound

    if schema is None:
        raise NotFound(f"config {key} carries no schema", reason="no_such_config")
    found = {"v": 1, "ok": True, "key": key, "schema": schema}
    common.out.object(found if common.env.is_json else schema)
    return Exit.OK


@command(
    "list",
    short_help="Every config.",
    examples=(
        "fan config list",
        "fan config list orders/ --format name",
        "fan config list --json | jq -r .key",
    ),
)
@click.argument("prefix", required=False, default="", shell_complete=complete_key)
@click.option("--gen", type=click.IntRange(min=0), metavar="G", help="As of generation G.")
@common
@reading
@listing
def list_(common: Common, *, prefix: str, gen: int | None, render: tuple[Format, bool]) -> None:
    """List the configs whose keys begin with PREFIX: key, value, revision, and who set it when."""
    with opened(common) as (config, deadline):
        rows = [_row(entry) for entry in config.list(prefix, gen=gen, deadline=deadline)]
    if render[0] == "table" and common.env.stdout_is_tty:
        rows = [{**row, "value": _short(text_of(row["value"]))} for row in rows]
    columns = ("key", "value", "rev", "at", "who")
    common.out.rows(rows, columns, render[0], wants_head=render[1])


def _short(text: str) -> str:
    """As much of a value as a row of a terminal bears."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _row(entry: ConfigEntry) -> dict[str, Any]:
    return {
        "key": entry.key,
        "value": entry.value,
        "rev": entry.rev,
        "at": entry.at,
        "who": entry.who,
    }


@command(
    "history",
    short_help="Who changed a config, when and why.",
    examples=("fan config history orders/theme", "fan config history orders/theme -N 1 --json"),
)
@key_argument
@click.option("-N", "--limit", type=_REV, metavar="N", help="The newest N only.")
@common
@listing
def history(
    common: Common, *, key: str, limit: int | None, render: tuple[Format, bool]
) -> None:
    """The changes of a config that the history keeps, the newest first. Secrets are masked."""
    with opened(common, key) as (config, deadline):
        events = config.history(key, deadline=deadline)[:limit]
    rows = [_event(common, key, event) for event in events]
    columns = ("gen", "at", "who", "verb", "rev", "value", "message")
    common.out.rows(rows, columns, render[0], wants_head=render[1])


def _event(common: Common, key: str, event: ConfigEvent) -> dict[str, Any]:
    message = event.message if common.env.show_secrets else mask_url(event.message)
    return {
        "gen": event.gen,
        "rev": event.rev,
        "at": event.at,
        "who": event.who,
        "host": event.host,
        "verb": event.verb,
        "value": None if event.is_deleted else shown(common.env, key, event.value),
        "message": message,
    }


@command(
    "diff",
    short_help="Compare two revisions of a config.",
    examples=(
        "fan config diff orders/limits",
        "fan config diff orders/limits 31",
        "fan config diff orders/limits 31 40 --json",
    ),
)
@key_argument
@click.argument("first", metavar="[R1", required=False, type=_REV)
@click.argument("second", metavar="[R2]]", required=False, type=_REV)
@common
def diff(common: Common, *, key: str, first: int | None, second: int | None) -> None:
    """Compare revisions R1 and R2 of a config: by default the one before with the one in force,
    with R1 alone that one with the one in force. Equal ones print nothing."""
    with opened(common, key) as (config, deadline):
        old, new = config.diff(key, first, second, deadline=deadline)
    lines = _compared(old, new)
    if common.env.is_json:
        sides = {
            name: {"rev": side.rev, "value": None if side.is_deleted else side.value}
            for name, side in (("from", old), ("to", new))
        }
        is_changed = old.is_deleted != new.is_deleted or old.value != new.value
        told = {"v": 1, "ok": True, "key": key, **sides, "changed": is_changed, "diff": lines}
        common.out.object(told)
    elif lines:
        common.out.text("\n".join(lines))


def _compared(old: ConfigEntry, new: ConfigEntry) -> list[str]:
    from difflib import unified_diff

    before, after = (f"{side.key} revision {side.rev}" for side in (old, new))
    return list(unified_diff(_lines(old), _lines(new), before, after, lineterm=""))


def _lines(entry: ConfigEntry) -> list[str]:
    import msgspec

    if entry.is_deleted:
        return []
    if isinstance(entry.value, str):
        return entry.value.splitlines()
    return msgspec.json.format(msgspec.json.encode(entry.value), indent=2).decode().splitlines()
