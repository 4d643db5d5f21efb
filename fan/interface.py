"""A service's interface: what is registered of it, so that it can be described and its arguments
coerced without it being up."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from fan.error_types import ErrorTypes
from fan.errors import InvalidArgument
from fan.model import Interface, MethodInfo
from fan.service import Method, Service, method_table, service_name


def interface_of(service: Service) -> Interface:
    """The interface of a service object. Raises ValueError for a bad name or version."""
    if service.registered_interface is not None:
        given: Interface = service.registered_interface
        return given
    from packaging.version import InvalidVersion, Version

    name = service_name(service)
    try:
        Version(service.version)
    except (InvalidVersion, TypeError):
        raise ValueError(f"{name}: {service.version!r} is no version (PEP 440, as 1.2.3)") from None
    methods = tuple(describe(m, name) for _, m in sorted(method_table(service).items()))
    bare = Interface(
        service=name,
        version=service.version,
        doc=inspect.cleandoc(type(service).__doc__ or ""),
        methods=methods,
        depend=dependencies(service),
        policy=_policy(service, name),
    )
    digest = hashlib.blake2b(msgspec.json.encode(bare), digest_size=8).hexdigest()
    return msgspec.structs.replace(bare, hash=digest)


def describe(method: Method, service: str = "") -> MethodInfo:
    """What a caller may know of one method of a service."""
    schemas, definitions = _schemas(method.signature.annotations())
    types = ErrorTypes()
    for cls in method.raises:
        types.register(cls, may_share=True)
    return MethodInfo(
        name=method.name,
        doc=inspect.getdoc(method.fn) or "",
        params=method.signature.params(schemas),
        returns=schemas.get("return", {}),
        is_stream=method.is_stream,
        is_idempotent=method.is_idempotent,
        timeout=method.timeout,
        raises=tuple(types.name_of(cls) for cls in method.raises),
        is_push=method.is_push,
        topics=tuple(f"{t.name}/{service if t.group is None else t.group}" for t in method.topics),
        definitions=definitions,
    )


def dependencies(service: Service) -> dict[str, dict[str, str]]:
    """`depend` in its full form: {"hard": {service: range}, "soft": {...}}; an empty range is
    any. A plain list is what is hard. Raises ValueError for what makes no sense."""
    name = service_name(service)
    depend: Any = service.depend
    if isinstance(depend, list | tuple):
        depend = {"hard": depend}
    if not isinstance(depend, Mapping):
        raise ValueError(f"{name}: depend is {depend!r}: write {{'hard': [...], 'soft': [...]}}")
    out: dict[str, dict[str, str]] = {}
    for strength, wanted in depend.items():
        if strength not in ("hard", "soft"):
            raise ValueError(f"{name}: depend has {strength!r}, not hard or soft")
        if isinstance(wanted, str) or not isinstance(wanted, Collection):  # no list of letters
            raise ValueError(
                f"{name}: depend has {strength!r}: {wanted!r}: write a list of services, or a dict"
                " of services and version ranges"
            )
        ranges = dict(wanted) if isinstance(wanted, Mapping) else dict.fromkeys(wanted, "")
        out[strength] = {needed: _range(name, needed, ranges[needed]) for needed in ranges}
    return out


def shards_of(service: Service) -> dict[str, list[str]]:
    """The shards that a service object owns. Raises ValueError for what makes no sense."""
    name, shards = service_name(service), service.shards
    try:
        return msgspec.convert(dict(shards), dict[str, list[str]])
    except (msgspec.ValidationError, TypeError, ValueError):
        raise ValueError(
            f"{name}: shards is {shards!r}: write a dict of lists: {{'shard1': ['a', 'b']}}"
        ) from None


def _policy(service: Service, name: str) -> dict[str, Any]:
    """What a service says of how it is called. Raises ValueError for what has no JSON form."""
    try:
        policy: dict[str, Any] = msgspec.to_builtins(dict(service.policy), str_keys=True)
        msgspec.json.encode(policy)
    except (TypeError, ValueError, RecursionError) as exc:
        raise ValueError(f"{name}: the policy has no JSON form: {exc}") from None
    return policy


def _range(name: str, needed: Any, text: Any) -> str:
    """A version range that can be compared with."""
    from fan.versions import matches

    if isinstance(needed, str) and isinstance(text, str):
        try:
            matches("0", text)
        except InvalidArgument as exc:
            raise ValueError(f"{name}: depend: {needed}: {exc.message}") from None
        return text
    raise ValueError(f"{name}: depend has {needed!r}: {text!r}, not a service and a version range")


def _schemas(hints: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """JSON Schema per name, and the definitions that they share."""
    names = [name for name, hint in hints.items() if hint is not Any]
    try:
        found, definitions = msgspec.json.schema_components(
            [hints[name] for name in names], ref_template="#/$defs/{name}"
        )
    except (TypeError, ValueError):  # a type without a JSON form: the rest is described one by one
        return {name: schema for name in names if (schema := _one_schema(hints[name]))}, {}
    return dict(zip(names, found, strict=True)), definitions


def _one_schema(hint: Any) -> dict[str, Any]:
    try:
        return msgspec.json.schema(hint)
    except (TypeError, ValueError):
        return {}
