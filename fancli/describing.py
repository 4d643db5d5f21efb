"""A service and a method as their users read them: signatures, types, documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from fancli.fitting import fitted, hung
from fancli.render import clean

if TYPE_CHECKING:
    from fan import Interface, MethodInfo, Param


def interface_text(interface: Interface, width: int) -> str:
    """A service for a person: its doc and the signatures of its methods."""
    lines = [f"{interface.service} {interface.version}", *_doc(interface.doc, width)]
    for method in interface.methods:
        lines += ["", *hung(f"  {signature(method)}", width)]
        first = method.doc.strip().partition("\n")[0]
        said = [first] if first else []
        if method.is_push:
            said.append("to be pushed")
        for each in (*said, *map(heard, method.topics)):
            lines += hung(f"      {each}", width, deeper=0)
    for strength, wanted in interface.depend.items():
        names = ", ".join(f"{name}{range}" for name, range in wanted.items())
        lines += ["", *hung(f"  needs ({strength}): {names}", width)] if names else []
    return "\n".join(map(clean, lines))


def method_text(interface: Interface, method: MethodInfo, width: int) -> str:
    """A method for a person."""
    lines = [*hung(f"{interface.service}.{signature(method)}", width), ""]
    lines += [*_doc(method.doc, width), ""] if method.doc else []
    for param in method.params:
        default = "required" if param.required else f"default {to_text(param.default)}"
        if param.kind.startswith("var_"):
            default = "any number"
        lines += hung(f"  {param.name:<12} {type_of(param.schema):<20} {default}", width)
    types = _types(method)
    lines += ["", *(line for each in types for line in hung(each, width))] if types else []
    facts = [f"version {interface.version}"]
    if method.is_push:
        facts.append("to be pushed")
    if method.is_stream:
        facts.append("a stream")
    if method.is_idempotent:
        facts.append("idempotent")
    if method.timeout is not None:
        facts.append(f"timeout {method.timeout:g}s")
    if method.raises:
        facts.append(f"raises {', '.join(method.raises)}")
    lines += ["", *hung(f"  {', '.join(facts)}", width)]
    lines += [line for each in method.topics for line in hung(f"  {heard(each)}", width)]
    return "\n".join(map(clean, lines))


def _doc(doc: str, width: int) -> list[str]:
    """What the author wrote, in lines that fit; what is indented stays as it is."""
    return [f"  {line}".rstrip() for line in fitted(doc, width - 2).splitlines()]


def heard(topic: str) -> str:
    """`orders.created/shop` in words."""
    name, _, group = topic.rpartition("/")
    return f"hears {name}, {f'one of group {group}' if group else 'every instance'}"


def _types(method: MethodInfo) -> list[str]:
    """A line for each type that the parameters name: its fields."""
    shared = dict(method.definitions)
    for param in method.params:
        shared |= param.schema.get("$defs") or {}
    lines: list[str] = []
    for name, schema in shared.items():
        fields = schema.get("properties") or {}
        required = schema.get("required") or ()
        said = [
            f"{field}: {type_of(each)}" + ("" if field in required else _default(each))
            for field, each in fields.items()
        ]
        lines.append(
            f"  {name}: {{{', '.join(said)}}}" if fields else f"  {name}: {type_of(schema)}"
        )
    return lines


def _default(schema: Mapping[str, Any]) -> str:
    return f" = {to_text(schema['default'])}" if "default" in schema else " (optional)"


def signature(method: MethodInfo) -> str:
    """`hello(name: string = "World") -> string`, types as JSON Schema names them."""
    parts: list[str] = []
    has_star = False
    for param in method.params:
        if param.kind == "keyword_only" and not has_star:
            parts.append("*")
            has_star = True
        has_star = has_star or param.kind == "var_positional"
        parts.append(_param(param))
    returns = type_of(method.returns)
    stream = "stream of " if method.is_stream else ""
    return f"{method.name}({', '.join(parts)}) -> {stream}{returns}"


def _param(param: Param) -> str:
    mark = {"var_positional": "*", "var_keyword": "**"}.get(param.kind, "")
    text = f"{mark}{param.name}"
    kind = type_of(param.schema)
    if kind != "any":
        text += f": {kind}"
    if not param.required and not mark:
        text += f" = {to_text(param.default)}"
    return text


def type_of(schema: Mapping[str, Any]) -> str:
    """A JSON Schema in a word or two."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return " | ".join(to_text(each) for each in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(type_of(each) for each in schema["anyOf"])
    said = schema.get("type")
    if said == "array" and isinstance(schema.get("items"), dict):
        return f"array[{type_of(schema['items'])}]"
    if isinstance(said, list):
        return " | ".join(map(str, said))
    return str(schema.get("format") or said or "any")


def skeleton(method: MethodInfo) -> dict[str, Any]:
    """A payload to fill in: defaults where there are some, else an empty value of the type."""
    return {
        param.name: param.default
        if not param.required
        else _empty(param.schema, method.definitions, 0)
        for param in method.params
        if not param.kind.startswith("var_")
    }


def _empty(schema: Mapping[str, Any], shared: Mapping[str, Any], depth: int) -> Any:
    shared = schema.get("$defs") or shared  # a parameter may carry its own
    if "$ref" in schema and depth < 8:
        name = str(schema["$ref"]).rpartition("/")[2]
        return _empty(shared.get(name, {}), shared, depth + 1)
    if "default" in schema:
        return schema["default"]
    if schema.get("enum"):
        return schema["enum"][0]
    if schema.get("anyOf"):
        return _empty(schema["anyOf"][0], shared, depth + 1)
    if schema.get("type") == "object":
        properties = schema.get("properties") or {}
        if depth >= 8:
            return {}
        return {key: _empty(each, shared, depth + 1) for key, each in properties.items()}
    empty: dict[str, Any] = {"string": "", "integer": 0, "number": 0, "boolean": False, "array": []}
    return empty.get(str(schema.get("type")))


def to_text(value: Any) -> str:
    """A value as JSON."""
    return msgspec.json.encode(value).decode()
