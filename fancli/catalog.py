"""What is registered, as rows, objects and text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from fancli.describing import heard, to_text

if TYPE_CHECKING:
    from fan import Instance, Interface, MethodInfo, Override, ServiceInfo

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
        *(f"  {m.name} {heard(each)}" for m in methods(info) for each in m.topics),
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


def event_text(event: Mapping[str, Any]) -> str:
    """One line of `fan discover watch`."""
    mark = {"gone": "-", "changed": "~"}.get(event["event"], "+")
    about = [str(event[key]) for key in ("service", "version", "instance") if event.get(key)]
    rest = event.get("state") or event.get("versions") or ""
    where = " ".join(event.get("addresses") or ())
    shown = rest if isinstance(rest, str) else to_text(rest)
    return " ".join(part for part in (mark, event["kind"], *about, shown, where) if part)
