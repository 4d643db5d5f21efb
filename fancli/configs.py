"""What the commands of `fan config` share: the configs of the registry in force, and values as text
and back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
import msgspec

from fancli.complete import complete_key
from fancli.mask import MASK, is_secret, mask_value
from fancli.params import Usage, parse_json, read_bytes, read_text

if TYPE_CHECKING:
    from fan import Configs
    from fancli.env import Environment
    from fancli.options import Common

#: What a schema of an object or an array says.
_MEMBERS = frozenset({"properties", "required", "patternProperties", "items", "prefixItems"})

TYPES = ("json", "str", "int", "float", "bool")

#: The argument KEY of a command.
key_argument: Callable[[Any], Any] = click.argument(
    "key", metavar="KEY", shell_complete=complete_key
)


@contextmanager
def opened(common: Common, key: str = "") -> Iterator[tuple[Configs, float]]:
    """The configs, and the deadline of the command. `key` is what an error in JSON is about."""
    from fan import Configs, check_config, plugins

    if common.env.is_json:
        common.env.target = key
    settings = common.load().settings
    deadline = time.monotonic() + settings.timeout
    with plugins.open_store(
        settings.registry_url, settings.namespace, settings, on_stale=common.on_stale
    ) as store:
        config = Configs(lambda: store, live=False, timeout=settings.timeout, check=check_config)
        try:
            yield config, deadline
        finally:
            config.close()


def text_of(value: Any) -> str:
    """A value as text: a string as it is, anything else as JSON."""
    from fancli.render import to_json

    return value if isinstance(value, str) else to_json(value).decode()


def shown(env: Environment, key: str, value: Any) -> Any:
    """A value for an echo, without secrets."""
    if env.show_secrets:
        return value
    return MASK if is_secret(key) and value is not None else mask_value(value)


def typed_text(given: str, env: Environment) -> str:
    """The text of `V`, `@FILE` or `-`."""
    if given == "-" or given.startswith("@"):
        return read_text(given.removeprefix("@"), "VALUE", env)
    return given


def value_of(
    given: str, type: str | None, schema: Any, fits: Callable[[Any], bool], env: Environment
) -> Any:
    """The value that was typed: of the type `type`, or whatever `fits` a schema that is there, or a
    string. Raises Usage."""
    text = typed_text(given, env)
    if type is not None:
        return _as(type, text)
    if schema is None or (fits(text) and not _wants_members(schema, text)):
        return text
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text  # the schema says better what is wrong with it


def _wants_members(schema: Any, text: str) -> bool:
    """Whether a schema without a type, which any string fits, speaks of an object or an array, and
    the text is one."""
    return (
        isinstance(schema, dict)
        and "type" not in schema
        and not _MEMBERS.isdisjoint(schema)
        and text.lstrip()[:1] in ("{", "[")
    )


def _as(type: str, text: str) -> Any:
    if type == "str":
        return text
    if type == "json":
        return parse_json(text, "VALUE")
    word = text.strip()
    if type == "bool":
        if word not in ("true", "false"):
            raise Usage(f"VALUE {text!r} is no bool", "true or false")
        return word == "true"
    try:
        number = int(word) if type == "int" else float(word)
    except ValueError:
        raise Usage(f"VALUE {text!r} is no {type}") from None
    if number != number or number in (float("inf"), float("-inf")):
        raise Usage(f"VALUE {text!r} is no {type} that JSON has")
    return number


def read_json(given: str, option: str, env: Environment) -> Any:
    """JSON as it was typed, or that of a file: `JSON`, `@FILE`, `-`, `@-`."""
    if given == "-" or given.startswith("@"):
        return parse_json(read_bytes(given.removeprefix("@"), option, env), option)
    return parse_json(given, option)


def read_schema(given: str | None, env: Environment) -> Any:
    """The value of `--schema`: JSON, `@FILE` or `-`; `none` is None."""
    return None if given in (None, "none") else read_json(given, "--schema", env)


def read_map(path: str, option: str, env: Environment) -> tuple[dict[str, Any], dict[str, Any]]:
    """A file of configs as values and schemas: a flat map of key to value, whose member `$schemas`
    holds schemas; or what `fan config export --json` prints. Raises Usage."""
    found = parse_json(read_bytes(path, option, env), option)
    if not isinstance(found, dict):
        raise Usage(f"{option}: a map of key to value is needed", '{"orders/theme": "dark"}')
    if found.get("v") == 1 and found.get("ok") is True and isinstance(found.get("configs"), dict):
        return found["configs"], found.get("schemas") or {}
    schemas = found.pop("$schemas", {})
    if not isinstance(schemas, dict):
        raise Usage(f"{option}: $schemas is a map of key to JSON Schema")
    return found, schemas
