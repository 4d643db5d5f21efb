"""Typed text to the values that a method's JSON Schema asks for; a mistake names the parameter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from fancli.params import did_you_mean
from fancli.payload import Payload, Text

if TYPE_CHECKING:
    from fan import FanError, MethodInfo, Param

Schema = Mapping[str, Any]

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
_INTEGER = r"[-+]?\d+"
_WORDS = {
    "integer": "an integer", "number": "a number", "boolean": "true or false", "string": "text",
}  # fmt: skip


def coerce(payload: Payload, method: MethodInfo | None) -> Payload:
    """The payload with every `Text` turned into a value: by the schema of its parameter, or to a
    string where nothing is known of the method. Raises InvalidArgument (bad_signature)."""
    if not payload.has_text:
        return payload
    shared = method.definitions if method is not None else {}
    positional, named = _schemas(method.params if method is not None else ())
    rest = positional.pop("*", {})
    order = list(positional.items())
    args = []
    for index, value in enumerate(payload.args):
        name, schema = order[index] if index < len(order) else (f"argument {index + 1}", rest)
        args.append(_coerce(value, schema, name, shared))
    other = named.get("**", {})
    kwargs = {
        name: _coerce(value, named.get(name, other), name, shared)
        for name, value in payload.kwargs.items()
    }
    return Payload(args, kwargs)


def check(payload: Payload, method: MethodInfo) -> None:
    """Refuse what the callee would refuse: unknown and missing parameters. Raises
    InvalidArgument."""
    params = {param.name: param for param in method.params if not param.kind.startswith("var_")}
    kinds = {param.kind for param in method.params}
    by_place = [param.name for param in method.params if param.kind.startswith("positional")]
    if len(payload.args) > len(by_place) and "var_positional" not in kinds:
        raise _refusal(f"takes {len(by_place)} positional arguments, got {len(payload.args)}")
    given = {*by_place[: len(payload.args)], *payload.kwargs}
    unknown = sorted(given - params.keys())
    if unknown and "var_keyword" not in kinds:
        near = did_you_mean(unknown[0], params)
        raise _refusal(f"no such parameter: {unknown[0]}{near and f'; {near}'}")
    missing = [name for name, param in params.items() if param.required and name not in given]
    if missing:
        raise _refusal(f"missing: {', '.join(missing)}")
    positional, named = _schemas(method.params)
    rest, other = positional.pop("*", {}), named.get("**", {})
    order = [*positional.items()]
    for index, value in enumerate(payload.args):
        name, schema = order[index] if index < len(order) else (f"argument {index + 1}", rest)
        _refuse_misfit(value, schema, name, method.definitions)
    for name, value in payload.kwargs.items():
        _refuse_misfit(value, named.get(name, other), name, method.definitions)


def _refuse_misfit(value: Any, schema: Schema, name: str, shared: Schema) -> None:
    if misfit := _misfit(value, schema, name, shared):
        raise _refusal(misfit)


def _misfit(value: Any, schema: Schema, where: str, shared: Schema) -> str:
    """What of a JSON value is of another type than its schema's, in words; empty when nothing is.
    Formats and bounds are the callee's to check."""
    schema = _resolve(schema, shared)
    if alternatives := [_resolve(each, shared) for each in schema.get("anyOf", ())]:
        if any(not _misfit(value, each, where, shared) for each in alternatives):
            return ""
        wanted = " or ".join(dict.fromkeys(_describe(each) for each in alternatives))
        return f"{where}: {_shown(value)} is not {wanted}"
    types = _types(schema)
    if types and not types & _types_of(value, schema):
        return f"{where}: {_shown(value)} is not {_describe(schema)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where}: {_shown(value)} is not one of {', '.join(map(str, schema['enum']))}"
    if isinstance(value, dict):
        properties, others = schema.get("properties") or {}, schema.get("additionalProperties")
        for name in schema.get("required", ()):
            if name not in value:
                return f"{where}[{name}] is missing"
        other = others if isinstance(others, dict) else {}
        inner = [(name, item, properties.get(name, other)) for name, item in value.items()]
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        inner = [(str(index), item, schema["items"]) for index, item in enumerate(value)]
    else:
        return ""
    found = (_misfit(item, each, f"{where}[{name}]", shared) for name, item, each in inner)
    return next(filter(None, found), "")


def _types_of(value: Any, schema: Schema) -> set[str]:
    """The names that JSON Schema has for the type of a value."""
    if value is None or isinstance(value, bool):
        return {"null" if value is None else "boolean"}
    if isinstance(value, (int, float)):
        names = {"number", "integer"} if isinstance(value, int) else {"number"}
        return names | ({"string"} if schema.get("format") == "decimal" else set())
    if isinstance(value, str):
        return {"string"}
    return {"array" if isinstance(value, list) else "object"}


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."


def _schemas(params: tuple[Param, ...]) -> tuple[dict[str, Schema], dict[str, Schema]]:
    """Schemas by position, with `*` for the rest, and by name, with `**` for the others."""
    positional: dict[str, Schema] = {}
    named: dict[str, Schema] = {}
    for param in params:
        if param.kind == "var_positional":
            positional["*"] = param.schema
        elif param.kind == "var_keyword":
            named["**"] = param.schema
        else:
            if param.kind != "keyword_only":
                positional[param.name] = param.schema
            named[param.name] = param.schema
    return positional, named


def _coerce(value: Any, schema: Schema, where: str, shared: Schema) -> Any:
    schema = _resolve(schema, shared)
    if isinstance(value, dict):
        properties = schema.get("properties") or {}
        others = schema.get("additionalProperties")
        other = others if isinstance(others, dict) else {}
        return {
            key: _coerce(item, properties.get(key, other), f"{where}[{key}]", shared)
            for key, item in value.items()
        }
    if isinstance(value, list):
        items = schema.get("items")
        item_schema = items if isinstance(items, dict) else {}
        return [
            _coerce(item, item_schema, f"{where}[{index}]", shared)
            for index, item in enumerate(value)
        ]
    if isinstance(value, Text):
        return _from_text(value.data, schema, where, shared)
    return value


def _from_text(data: str | bytes, schema: Schema, where: str, shared: Schema) -> Any:
    alternatives = [_resolve(each, shared) for each in schema.get("anyOf", ())] or [schema]
    if any(each.get("contentEncoding") == "base64" for each in alternatives):
        from base64 import b64encode

        return b64encode(data.encode() if isinstance(data, str) else data).decode()
    try:
        text = data if isinstance(data, str) else data.decode()
    except UnicodeDecodeError as exc:
        raise _refusal(f"{where}: the file is not UTF-8 text: {exc.reason}") from None
    # Text fits a string as it is, so a union that has one never turns "5" into a number.
    alternatives.sort(key=lambda each: _types(each) != {"string"})
    problem = ""
    for each in alternatives:
        value, problem = _try(text, each)
        if not problem:
            return value
    if len(alternatives) > 1:
        problem = " or ".join(dict.fromkeys(_describe(each) for each in alternatives))
    raise _refusal(f"{where}: {text!r} is not {problem}")


def _try(text: str, schema: Schema) -> tuple[Any, str]:
    """The value and "", or None and what was expected."""
    types = _types(schema)
    value: Any = text
    if not types or "string" in types:
        pass
    elif "integer" in types and re.fullmatch(_INTEGER, text):
        value = int(text)
    elif "number" in types and (number := _number(text)) is not None:
        value = number
    elif "boolean" in types and text.lower() in _TRUE | _FALSE:
        value = text.lower() in _TRUE
    elif "null" in types and text == "null":
        value = None
    elif types & {"array", "object"} and text[:1] in ("[", "{"):
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return None, f"JSON for {_describe(schema)}"
    else:
        return None, _describe(schema)
    if "enum" in schema and value not in schema["enum"]:
        near = did_you_mean(text, [str(each) for each in schema["enum"]])
        return None, f"one of {', '.join(map(str, schema['enum']))}{near and f'; {near}'}"
    return value, ""


def _number(text: str) -> float | int | None:
    try:
        return int(text) if re.fullmatch(_INTEGER, text) else float(text)
    except ValueError:
        return None


def _types(schema: Schema) -> set[str]:
    said = schema.get("type")
    if said is None and "enum" in schema:
        names: dict[type[Any], str] = {str: "string", bool: "boolean", int: "integer"}
        return {names.get(type(each), "null") for each in schema["enum"]}
    return {said} if isinstance(said, str) else set(said or ())


def _describe(schema: Schema) -> str:
    types = sorted(_types(schema))
    return " or ".join(_WORDS.get(t, t if t == "null" else f"an {t}") for t in types) or "a value"


def _resolve(schema: Schema, shared: Schema) -> Schema:
    """The schema behind `#/$defs/NAME`."""
    for _ in range(32):  # a definition that refers to itself ends nowhere
        ref = schema.get("$ref")
        if not isinstance(ref, str):
            break
        found = shared.get(ref.rpartition("/")[2])
        schema = found if isinstance(found, dict) else {}
    return schema


def _refusal(message: str) -> FanError:
    from fan import InvalidArgument

    return InvalidArgument(message, reason="bad_signature")
