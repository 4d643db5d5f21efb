"""What is registered, as rows, objects and text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from fan import Instance, Interface, MethodInfo, Override, Param, ServiceInfo

VERSION_COLUMNS = ("service", "version", "weight", "up", "transports", "unmet")
INSTANCE_COLUMNS = ("id", "version", "state", "addresses", "pid", "host", "started_at", "unmet")

#: A weight of the whole, in basis points.
_WHOLE = 10_000


def version_rows(info: ServiceInfo) -> list[dict[str, Any]]:
    """One row for each version, the oldest first; `weight` is in basis points, None where no route
    says where the calls go."""
    from fan import plugins

    weights = info.route.versions if info.route is not None else {}
    unnamed = None if info.is_unrouted else 0
    rows = []
    for version in versions(info):
        instances = [i for i in info.instances if i.version == version]
        schemes = {a.url.partition(":")[0] for i in instances for a in i.addresses}
        rows.append(
            {
                "service": info.name,
                "version": version,
                "weight": weights.get(version, unnamed),
                "up": sum(i.state == "up" for i in instances),
                "all": len(instances),
                "transports": sorted({plugins.transport_name(scheme) for scheme in schemes}),
                "unmet": sorted({each for i in instances for each in i.unmet}),
            }
        )
    return rows


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `version_rows` for a person: `100%`, `1/2`."""
    weight = row["weight"]
    return {
        **row,
        "weight": "unrouted" if weight is None else f"{weight * 100 / _WHOLE:g}%",
        "up": f"{row['up']}/{row['all']}",
    }


def versions(info: ServiceInfo) -> list[str]:
    """Every version that is known, ascending."""
    known = {*info.interfaces, *(i.version for i in info.instances)}
    if info.route is not None:
        known |= info.route.versions.keys()
    from fan import versions as order

    return order.newest_last(known)


def instance_row(instance: Instance, override: Override | None = None) -> dict[str, Any]:
    """One instance, and what an operator says of it."""
    return {
        "id": instance.id,
        "service": instance.service,
        "version": instance.version,
        "state": instance.state,
        "addresses": [a.url for a in instance.addresses],
        "pid": instance.pid,
        "host": instance.host,
        "started_at": instance.started_at,
        "unmet": list(instance.unmet),
        "meta": dict(instance.meta),
        "tags": list(instance.tags),
        "shards": dict(instance.shards),
        "override": None if override is None else msgspec.to_builtins(override),
    }


def service_object(info: ServiceInfo) -> dict[str, Any]:
    """A service for --json."""
    route = msgspec.to_builtins(info.route) if info.route is not None else None
    return {
        "service": info.name,
        "gen": info.gen,
        "route": route,
        "versions": [
            {key: value for key, value in row.items() if key != "service"}
            for row in version_rows(info)
        ],
        "instances": [instance_row(i, info.overrides.get(i.id)) for i in info.instances],
        "pushes": [method.name for method in methods(info) if method.is_push],
        "topics": sorted({each for method in methods(info) for each in method.topics}),
    }


def methods(info: ServiceInfo) -> tuple[MethodInfo, ...]:
    """The methods of the routed version."""
    interface = info.interface_for()
    return interface.methods if interface is not None else ()


def summary(info: ServiceInfo) -> list[str]:
    """A service in a few lines, above its instances."""
    return [
        f"{info.name}, generation {info.gen}",
        *(
            f"  {r['version']}  weight {r['weight']}  up {r['up']}"
            for r in map(shown, version_rows(info))
        ),
        *(f"  {m.name} is to be pushed" for m in methods(info) if m.is_push),
        *(f"  {m.name} {_heard(each)}" for m in methods(info) for each in m.topics),
        *(f"  {line}" for line in _overrides(info)),
    ]


def _overrides(info: ServiceInfo) -> list[str]:
    """Who took which instance out of service, and why."""
    lines = []
    for instance in info.instances:
        said = info.overrides.get(instance.id)
        if said is not None:
            why = f": {said.why}" if said.why else ""
            lines.append(f"{instance.id}  {said.state} by {said.who or 'somebody'}{why}")
    return lines


def interface(info: ServiceInfo, want: str) -> Interface:
    """The interface of the wanted version, else of the routed one. Raises FailedPrecondition
    (version_missing) and NotFound."""
    from fan import FailedPrecondition, NotFound

    found = info.interface_for("")
    if want and want != "canary":
        from fan import versions as order

        best = order.best(want, info.interfaces)
        found = info.interfaces.get(best) if best else None
        if found is None:
            known = ", ".join(versions(info))
            raise FailedPrecondition(
                f"{info.name} has no version {want}; there is {known or 'none'}",
                reason="version_missing",
                details={"wanted": want, "available": versions(info)},
            )
    if found is None:
        found = next(iter(info.interfaces.values()), None)
    if found is None:
        raise NotFound(f"{info.name} has no interface", reason="no_interface")
    return found


def method(interface: Interface, name: str) -> MethodInfo:
    """One method of an interface. Raises Unimplemented (unknown_method)."""
    found = interface.method(name)
    if found is None:
        from fan import Unimplemented

        raise Unimplemented(
            f"{interface.service} {interface.version} has no method {name}",
            reason="unknown_method",
            details={"similar": near(name, [m.name for m in interface.methods])},
        )
    return found


def handler_of(infos: Iterable[ServiceInfo], topic: str) -> MethodInfo | None:
    """A method that handles a topic, of the routed version where that has one."""
    for info in infos:
        routed = info.interface_for()
        for interface in filter(None, (routed, *info.interfaces.values())):
            for method in interface.methods:
                if any(each.rpartition("/")[0] == topic for each in method.topics):
                    return method
    return None


def near(name: str, known: list[str]) -> list[str]:
    """The names that are alike, at most three."""
    from difflib import get_close_matches

    return get_close_matches(name, known, n=3)


def interface_text(interface: Interface) -> str:
    """A service for a person: its doc and the signatures of its methods."""
    lines = [f"{interface.service} {interface.version}"]
    lines += [f"  {line}".rstrip() for line in interface.doc.splitlines()]
    for method in interface.methods:
        lines += ["", f"  {signature(method)}"]
        first = method.doc.strip().partition("\n")[0]
        if first:
            lines.append(f"      {first}")
        if method.is_push:
            lines.append("      to be pushed")
        lines += [f"      {_heard(each)}" for each in method.topics]
    for strength, wanted in interface.depend.items():
        names = ", ".join(f"{name}{range}" for name, range in wanted.items())
        lines += ["", f"  needs ({strength}): {names}"] if names else []
    return "\n".join(lines)


def method_text(interface: Interface, method: MethodInfo) -> str:
    """A method for a person."""
    lines = [f"{interface.service}.{signature(method)}", ""]
    lines += [f"  {line}".rstrip() for line in method.doc.splitlines()]
    if method.doc:
        lines.append("")
    for param in method.params:
        default = "required" if param.required else f"default {_json(param.default)}"
        if param.kind.startswith("var_"):
            default = "any number"
        lines.append(f"  {param.name:<12} {type_of(param.schema):<20} {default}")
    lines += _types_text(method)
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
    lines += ["", f"  {', '.join(facts)}"]
    return "\n".join([*lines, *(f"  {_heard(each)}" for each in method.topics)])


def _heard(topic: str) -> str:
    """`orders.created/shop` in words."""
    name, _, group = topic.rpartition("/")
    return f"hears {name}, {f'one of group {group}' if group else 'every instance'}"


def _types_text(method: MethodInfo) -> list[str]:
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
    return ["", *lines] if lines else []


def _default(schema: Mapping[str, Any]) -> str:
    return f" = {_json(schema['default'])}" if "default" in schema else " (optional)"


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
        text += f" = {_json(param.default)}"
    return text


def type_of(schema: Mapping[str, Any]) -> str:
    """A JSON Schema in a word or two."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return " | ".join(_json(each) for each in schema["enum"])
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


def event_text(event: Mapping[str, Any]) -> str:
    """One line of `fan discover watch`."""
    mark = {"gone": "-", "changed": "~"}.get(event["event"], "+")
    about = [str(event[key]) for key in ("service", "version", "instance") if event.get(key)]
    rest = event.get("state") or event.get("versions") or ""
    where = " ".join(event.get("addresses") or ())
    shown = rest if isinstance(rest, str) else _json(rest)
    return " ".join(part for part in (mark, event["kind"], *about, shown, where) if part)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
