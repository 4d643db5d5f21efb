"""`fan config apply`, `export`, `import` and `validate`: many configs at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fancli.complete import complete_key
from fancli.configs import TYPES, opened, read_map, read_schema, value_of
from fancli.exits import Exit
from fancli.group import command
from fancli.options import Common, common
from fancli.params import Usage
from fancli.writes import Writing, writing

if TYPE_CHECKING:
    from fan import Configs


@command(
    "apply",
    short_help="Set many configs in one generation.",
    examples=(
        "fan config apply -f orders.json -m 'spring sale'",
        "jq -n '{\"orders/theme\":\"dark\"}' | fan config apply -f -",
    ),
)
@click.option(
    "-f", "--file", "path", metavar="FILE|-", required=True, help="A map of key to value."
)
@common
@writing
def apply(common: Common, *, writing: Writing, path: str) -> int:
    """Set every config of a flat JSON map of key to value: all of them in one generation, or none.
    A member `$schemas` maps keys to the JSON Schemas that they carry."""
    values, schemas = read_map(path.removeprefix("@"), "-f", common.env)
    with opened(common) as (config, deadline):
        done = config.apply(values, schemas=schemas, how=writing.how, deadline=deadline)
    return writing.report(done)


@command(
    "export",
    short_help="Print all configs as one document.",
    examples=("fan config export > configs.json", "fan config export orders/ --gen 40"),
)
@click.argument("prefix", required=False, default="", shell_complete=complete_key)
@click.option("--gen", type=click.IntRange(min=0), metavar="G", help="As of generation G.")
@common
def export(common: Common, *, prefix: str, gen: int | None) -> None:
    """Print the configs whose keys begin with PREFIX as one JSON map of key to value, with their
    schemas under `$schemas`: what `fan config import` and `apply` take."""
    with opened(common) as (config, deadline):
        found = config.list(prefix, gen=gen, deadline=deadline)
        at = found[0].gen if found else gen
        schemas = config.schemas(prefix, gen=at, deadline=deadline)
    values = {entry.key: entry.value for entry in found}
    if common.env.is_json:
        told = {"v": 1, "ok": True, "gen": at, "configs": values, "schemas": schemas}
        common.out.object(told)
    else:
        common.out.object({**values, **({"$schemas": schemas} if schemas else {})})


@command(
    "import",
    short_help="Load what export printed.",
    examples=("fan config import configs.json", "fan config export | fan -n test config import -"),
)
@click.argument("path", metavar="[FILE|-]", required=False)
@click.option("-f", "--file", "option", metavar="FILE|-", help="The same as FILE.")
@common
@writing
def import_(common: Common, *, writing: Writing, path: str | None, option: str | None) -> int:
    """Set every config and schema of a document that `fan config export` printed, in one
    generation; what is not in it stays."""
    if (path is None) == (option is None):
        raise Usage("a FILE is needed, once", "fan config import FILE")
    given = path if path is not None else option or ""
    values, schemas = read_map(given.removeprefix("@"), "FILE", common.env)
    with opened(common) as (config, deadline):
        done = config.apply(
            values, schemas=schemas, how=writing.how, verb="import", deadline=deadline
        )
    return writing.report(done)


@command(
    "validate",
    short_help="Check values against their schemas.",
    examples=(
        "fan config validate",
        "fan config validate orders/port 80",
        "fan config validate orders/limits @limits.json --schema @limits.schema.json",
        "fan config validate -f orders.json",
    ),
)
@click.argument("key", required=False, shell_complete=complete_key)
@click.argument("value", metavar="[VALUE|@FILE|-]", required=False)
@click.option("--type", "kind", type=click.Choice(TYPES), help="What VALUE is.")
@click.option("--schema", metavar="JSON|@FILE", help="This schema instead of the one it carries.")
@click.option("-f", "--file", "path", metavar="FILE|-", help="Check a map of key to value.")
@common
def validate(
    common: Common,
    *,
    key: str | None,
    value: str | None,
    kind: str | None,
    schema: str | None,
    path: str | None,
) -> int:
    """Check a value against the JSON Schema that the config KEY carries; without VALUE the one in
    force, without KEY every config. Writes nothing; what does not fit is exit 4."""
    if path is not None and key is not None:
        raise Usage("-f and KEY", "one of them")
    if schema is not None and key is None:
        raise Usage("--schema: of which config?", "fan config validate KEY --schema ...")
    with opened(common, key or "") as (config, deadline):
        if key is not None:
            own: Any = {} if schema is None else {"schema": read_schema(schema, common.env)}
            checked = _one(common, config, key, value, kind, own, deadline)
        else:
            values, schemas = _all(common, config, path, deadline)
            for name, found in values.items():
                config.check(name, found, schemas.get(name))
            checked = list(values)
    if common.env.is_json:
        common.out.object({"v": 1, "ok": True, "valid": True, "keys": checked})
    else:
        common.out.note(f"valid: {len(checked)}")
    return Exit.OK


def _one(
    common: Common,
    config: Configs,
    key: str,
    value: str | None,
    kind: str | None,
    own: dict[str, Any],
    deadline: float,
) -> list[str]:
    from fan import InvalidArgument

    schema = own["schema"] if own else config.schema(key, deadline=deadline)
    if value is None:
        config.check(key, config.entry(key, deadline=deadline).value, schema)
        return [key]

    def fits(found: Any) -> bool:
        try:
            config.check(key, found, schema)
        except InvalidArgument:
            return False
        return True

    config.check(key, value_of(value, kind, schema, fits, common.env), schema)
    return [key]


def _all(
    common: Common, config: Configs, path: str | None, deadline: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values to check and the schemas that they would carry."""
    carried = config.schemas(deadline=deadline)
    if path is not None:
        values, schemas = read_map(path.removeprefix("@"), "-f", common.env)
        return values, {**carried, **schemas}
    return {entry.key: entry.value for entry in config.list(deadline=deadline)}, carried
