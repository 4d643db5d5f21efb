"""Keys and values of configs: what is allowed, how it is stored, and the schema a value must fit.

Keys of the store that live here: objects `config/<key>`, whose body is the value as JSON and
nothing else, and `schema/<key>`, the JSON Schema that the config of that key carries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from fan.errors import DataLoss, FanError, InvalidArgument
from fan.stores.base import LIMIT, View

CONFIG = "config/"
SCHEMA = "schema/"

#: Bytes of the longest key.
LONGEST_KEY = 1024

#: Member of a file of configs that holds their schemas, and hence no key.
SCHEMAS = "$schemas"

#: What a wrong value is told by the schema's own words, which name members and never a value.
_TELLING = frozenset(
    {"required", "additionalProperties", "unevaluatedProperties", "dependentRequired"}
)


class Missing(msgspec.Struct, frozen=True):
    """The type of `MISSING`: no value, where None is one."""


MISSING = Missing()


def check_key(key: str) -> str:
    """A key as it is. Raises InvalidArgument (bad_key) for what no config can be called."""
    problem = ""
    if not key:
        problem = "it is empty"
    elif key.endswith("/"):
        problem = "a name that ends in / is a prefix of keys"
    elif len(key.encode("utf-8", "surrogatepass")) > LONGEST_KEY:
        problem = f"a key has at most {LONGEST_KEY} bytes"
    elif key == SCHEMAS:
        problem = "that is where a file keeps schemas"
    elif any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in key):
        problem = "it holds a control character"
    if problem:
        raise InvalidArgument(f"{key[:80]!r} is no config key: {problem}", reason="bad_key")
    return key


def owner_of(key: str) -> str:
    """The service that a config belongs to: the first part of its key."""
    return key.partition("/")[0]


def encode(key: str, value: Any) -> bytes:
    """The body of a value: JSON with sorted members, so that equal values are equal bytes. Raises
    InvalidArgument (bad_value, payload_too_large)."""
    try:
        plain = msgspec.to_builtins(value, str_keys=True)
        _check_numbers(plain)
        body = msgspec.json.encode(plain, order="sorted")
    except (TypeError, ValueError, RecursionError) as exc:
        text = "it is nested too deeply" if isinstance(exc, RecursionError) else str(exc)
        raise InvalidArgument(
            f"the value of config {key} is no JSON: {text}", reason="bad_value"
        ) from exc
    if len(body) > LIMIT:
        raise InvalidArgument(
            f"config {key} is {len(body)} bytes: the registry takes at most {LIMIT} in one write",
            reason="payload_too_large",
            details={"key": key, "size": len(body), "limit": LIMIT},
        )
    return body


def _check_numbers(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a JSON number")
    for item in value.values() if isinstance(value, dict) else value if _is_list(value) else ():
        _check_numbers(item)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def decode(object: str, body: bytes) -> Any:
    """The value of a body. Raises DataLoss for one that somebody else damaged."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise DataLoss(f"{object} holds no JSON: {exc}", reason="bad_value", executed="no") from exc


def merge(target: Any, patch: Any) -> Any:
    """`target` with a JSON merge patch applied: https://www.rfc-editor.org/rfc/rfc7396#section-2"""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, item in patch.items():
        if item is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), item)
    return merged


# --- schemas ---


def encode_schema(key: str, schema: Any) -> bytes:
    """The body of a JSON Schema. Raises InvalidArgument (bad_schema) for what is none."""
    if not isinstance(schema, dict | bool):
        raise InvalidArgument(
            f"the schema of config {key} must be a JSON object, true or false", reason="bad_schema"
        )
    body = encode(key, schema)
    _validator(key, body)
    return body


@lru_cache(maxsize=64)
def _validator(key: str, body: bytes) -> Any:
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing.jsonschema import EMPTY_REGISTRY

    schema = decode(SCHEMA + key, body)
    cls = validator_for(schema, default=Draft202012Validator)
    try:
        cls.check_schema(schema)
    except SchemaError as exc:
        raise InvalidArgument(
            f"the schema of config {key} is no JSON Schema: {exc.json_path}: {exc.message}",
            reason="bad_schema",
            details={"key": key, "path": exc.json_path},
        ) from None
    # A registry of its own, since the default would fetch what a $ref names from the network.
    return cls(schema, registry=EMPTY_REGISTRY, format_checker=cls.FORMAT_CHECKER)


def check_value(key: str, value: Any, schema: bytes) -> None:
    """Raise InvalidArgument (bad_value, `details` key and path) where a value does not fit its
    schema. The message names the path and what is wanted, and never the value: it may be secret."""
    from jsonschema.exceptions import best_match
    from referencing.exceptions import Unresolvable

    validator = _validator(key, schema)
    try:
        found = best_match(validator.iter_errors(value))
    except Unresolvable as exc:
        raise InvalidArgument(
            f"the schema of config {key} refers to {exc.ref}, which is not in it",
            reason="bad_schema",
        ) from None
    except RecursionError:
        raise InvalidArgument(
            f"the schema of config {key} refers to itself without an end", reason="bad_schema"
        ) from None
    if found is None:
        return
    raise InvalidArgument(
        f"config {key}: {found.json_path}: {_wanted(found)}",
        reason="bad_value",
        details={"key": key, "path": found.json_path, "rule": str(found.validator)},
    )


def _wanted(error: Any) -> str:
    if error.validator in _TELLING:
        return str(error.message)
    if error.validator == "type":
        kinds = error.validator_value
        named = kinds if isinstance(kinds, str) else " or ".join(kinds)
        return f"it must be of type {named}, and is of type {_kind(error.instance)}"
    rule = msgspec.json.encode({str(error.validator): error.validator_value}).decode()
    return f"it must fit {rule if len(rule) <= 200 else rule[:200] + '...'}"


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds: Mapping[type, str] = {
        bool: "boolean", int: "integer", float: "number", str: "string", list: "array",
    }  # fmt: skip
    return kinds.get(type(value), "object")


def check_all(view: View, keys: tuple[str, ...]) -> None:
    """For `Plan.check`: every one of the configs fits the schema that it would carry."""
    for key in keys:
        body, schema = view.get(CONFIG + key), view.get(SCHEMA + key)
        if body is not None and schema is not None:
            check_value(key, decode(CONFIG + key, body), schema)


def warm_up(key: str, schema: bytes) -> None:
    """Make a schema's validator before a commit holds everybody up for its import."""
    try:
        _validator(key, schema)
    except FanError:
        return  # said again, with a better reason, where the value is checked
