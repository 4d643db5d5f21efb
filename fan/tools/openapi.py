"""What an OpenAPI document (3.x, JSON or YAML) says of an HTTP service, as methods of ours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import yaml

from fan.errors import InvalidArgument
from fan.model import HttpForm, MethodInfo, Param
from fan.tools.foreign import Foreign, interface_at, method_at

_VERBS = ("get", "head", "post", "put", "patch", "delete", "options")


def read_openapi(
    text: str, name: str, version: str = "", urls: tuple[str, ...] = ()
) -> Foreign:
    """A service of that name with a method for each operation, named by its `operationId`, else
    `get_users_id`. Version and addresses are those of the document unless given. Raises
    InvalidArgument (bad_file)."""
    try:
        document = yaml.safe_load(text)  # JSON is YAML
    except yaml.YAMLError as exc:
        raise _bad(" ".join(str(exc).split())) from exc
    if not isinstance(document, dict) or not str(document.get("openapi", "")).startswith("3."):
        raise _bad("it is no OpenAPI document of version 3")
    try:
        info = document.get("info") or {}
        servers = tuple(s["url"] for s in document.get("servers") or () if "://" in s["url"])
        methods = {m.name: m for m in _methods(document)}
        doc = str(info.get("description") or info.get("title") or "")
        version = version or str(info.get("version") or "")
        interface = interface_at(name, version, tuple(methods.values()), doc)
    except (AttributeError, KeyError, TypeError) as exc:
        raise _bad(f"it is damaged: {exc!r}") from exc
    return Foreign(interface, urls or servers[:1])


def _methods(document: Mapping[str, Any]) -> Iterator[MethodInfo]:
    for path, item in (document.get("paths") or {}).items():
        for verb in _VERBS:
            if verb in item:
                yield _method(document, path, verb, item[verb], item.get("parameters") or [])


def _method(
    document: Mapping[str, Any],
    path: str,
    verb: str,
    operation: Mapping[str, Any],
    shared: list[Any],
) -> MethodInfo:
    params: dict[str, Param] = {}
    query = []
    for given in (*shared, *(operation.get("parameters") or ())):
        one = _resolved(document, given)
        if one.get("in") not in ("path", "query"):
            continue  # headers and cookies are the caller's own
        if one["in"] == "query":
            query.append(one["name"])
        is_required = bool(one.get("required")) or one["in"] == "path"
        params[one["name"]] = _param(one["name"], one.get("schema") or {}, is_required)
    content_type, body, fields = _body(document, operation)
    params |= fields
    form = HttpForm(verb.upper(), path, content_type, tuple(query), body)
    name = str(operation.get("operationId") or f"{verb}_{path.strip('/')}")
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_") or verb
    name = name if name[0].isalpha() else f"{verb}_{name}"
    doc = "\n\n".join(str(operation[k]) for k in ("summary", "description") if operation.get(k))
    shared_types = (document.get("components") or {}).get("schemas") or {}
    more: dict[str, Any] = {"doc": doc, "returns": _returns(document, operation)}
    more["definitions"] = _used(shared_types, [p.schema for p in params.values()], more["returns"])
    return method_at(name, form, params, **more)


def _body(
    document: Mapping[str, Any], operation: Mapping[str, Any]
) -> tuple[str, str, dict[str, Param]]:
    """Content type of the body, the parameter that is all of it, and the parameters in it."""
    given = _resolved(document, operation.get("requestBody") or {})
    content = given.get("content") or {}
    if not content:
        return "application/json", "", {}
    content_type = "application/json" if "application/json" in content else next(iter(content))
    schema = _resolved(document, content[content_type].get("schema") or {})
    fields = schema.get("properties")
    if not fields:
        return content_type, "body", {"body": _param("body", schema, bool(given.get("required")))}
    required = schema.get("required") or ()
    found = {name: _param(name, each, name in required) for name, each in fields.items()}
    return content_type, "", found


def _param(name: str, schema: Mapping[str, Any], is_required: bool) -> Param:
    return Param(name, _renamed(schema), required=is_required, default=schema.get("default"))


def _returns(document: Mapping[str, Any], operation: Mapping[str, Any]) -> dict[str, Any]:
    for status, given in (operation.get("responses") or {}).items():
        if str(status).startswith("2"):
            content = _resolved(document, given).get("content") or {}
            schema = (content.get("application/json") or {}).get("schema") or {}
            return dict(_renamed(schema))
    return {}


def _resolved(document: Mapping[str, Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a `$ref` into the same document points to. Raises InvalidArgument for another one."""
    for _ in range(8):
        ref = given.get("$ref")
        if ref is None:
            return given
        found: Any = document
        for part in str(ref).removeprefix("#/").split("/"):
            found = found.get(part) if isinstance(found, dict) else None
        if not str(ref).startswith("#/") or not isinstance(found, dict):
            raise _bad(f"{ref!r} points to nothing in the document")
        given = found
    raise _bad("its references go in a circle")


def _renamed(schema: Any) -> Any:
    """A schema whose references are those of an interface."""
    text = msgspec.json.encode(schema).replace(b"#/components/schemas/", b"#/$defs/")
    return msgspec.json.decode(text)


def _used(types: Mapping[str, Any], *of: Any) -> dict[str, Any]:
    """The types that something refers to, and those that these refer to."""
    found: dict[str, Any] = {}
    waiting = [*of]
    while waiting:
        for name in re.findall(rb'"#/\$defs/([^"]+)"', msgspec.json.encode(waiting.pop())):
            key = name.decode()
            if key in types and key not in found:
                found[key] = _renamed(types[key])
                waiting.append(found[key])
    return found


def _bad(message: str) -> InvalidArgument:
    return InvalidArgument(message, reason="bad_file")
