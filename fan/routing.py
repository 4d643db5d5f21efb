"""Which version of a service takes a call, and which instances of it can.

Weights are basis points picked by BLAKE2b-64(sticky key, service) mod 10000 against cumulative
bands in version order, so that raising a canary moves only what it gains and nobody flips back.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from fan.errors import FailedPrecondition, FanError, Unavailable
from fan.model import QUEUES, WHOLE, Address, Instance, Route, ServiceInfo, transport_of


class Target(tuple[str, str, str]):
    """(service, method, want) of `service.method@want`; see `parse_target`."""

    __slots__ = ()


def parse_target(text: str) -> Target:
    """Split `service.method` or `service.method@want` at its last dot before the `@`. Raises
    ValueError where there is none."""
    name, _, want = text.partition("@")
    service, dot, method = name.rpartition(".")
    if not dot or not service or not method:
        raise ValueError(f"{text!r} is no target: service.method, as in greeter.hello")
    return Target((service, method, want))


def choose_version(info: ServiceInfo, want: str, sticky: str, method: str = "") -> tuple[str, str]:
    """The version that takes a call, and the reason in words. Raises Unavailable (no_instance) and
    FailedPrecondition (version_missing)."""
    if want:
        return _wanted(info, want), f"version asked for: {want}"
    if info.route is None or not info.route.versions:
        version = _highest_live(info)
        return version, "unrouted: the highest final release with a live instance"
    weights = info.route.overrides.get(method) or info.route.versions
    version = by_weight(weights, sticky, info.name)
    share = weights[version] * 100 / WHOLE
    return version, f"route of generation {info.routed_at}: {version} has {share:g} %"


def by_weight(weights: dict[str, int], sticky: str, service: str) -> str:
    """The version whose band the key falls into."""
    live = {version: weight for version, weight in weights.items() if weight > 0}
    if len(live) == 1:
        return next(iter(live))
    if not live:
        raise Unavailable(f"the route of {service} names no version", reason="unroutable")
    from hashlib import blake2b

    from fan.versions import newest_last

    digest = blake2b(f"{sticky}\0{service}".encode(), digest_size=8).digest()
    point, upto = int.from_bytes(digest, "big") % WHOLE, 0
    ordered = newest_last(live)
    # The newest version has the lowest band: its bound moves when its weight does, and no other's
    # key.
    for version in reversed(ordered):
        upto += live[version]
        if point < upto:
            return version
    return ordered[0]


def candidates(info: ServiceInfo, version: str, instance: str = "") -> tuple[Instance, ...]:
    """The instances of a version that take calls, or the one named. Raises Unavailable
    (no_instance)."""
    if instance:
        found = tuple(i for i in info.instances if i.id == instance)
        if not found:
            raise no_instance(f"{info.name} has no instance {instance}")
        return found
    live = info.live(version)
    if not live:
        raise no_instance(f"{info.name} has no live instance of {version}")
    return live


def address_of(
    instance: Instance,
    transport: str,
    order: Sequence[str],
    host: str,
    avoided: Container[str] = (),
) -> Address:
    """Where to reach an instance: over the transport asked for, else ipc on the same host, else the
    first of `order` that it offers; not at an `avoided` URL where there is another. Raises
    Unavailable (no_instance)."""
    offered = {transport_of(a): a for a in reversed(instance.addresses)}
    if instance.host != host:
        offered.pop("ipc", None)
    if transport and transport != "auto":
        if transport not in offered:
            raise no_instance(f"{instance.id} does not answer over {transport}")
        return offered[transport]
    if not offered:
        raise no_instance(f"{instance.id} has no address that can be reached from here")
    if any(a.url in avoided for a in offered.values()):
        # Not for a queue: that one carries no calls, or carries them to whoever takes them there.
        left = {n: a for n, a in offered.items() if a.url not in avoided and n not in QUEUES}
        offered = left or offered
    for name in order:
        if name in offered:
            return offered[name]
    return next(iter(offered.values()))


def no_instance(message: str) -> FanError:
    """The error for a known service that nobody serves now."""
    return Unavailable(message, reason="no_instance")


def route_of(versions: dict[str, int]) -> Route:
    """A plain route."""
    return Route(versions=versions)


def _canary(info: ServiceInfo) -> str:
    weights = {v: w for v, w in (info.route.versions if info.route else {}).items() if w > 0}
    if len(weights) < 2:
        raise FailedPrecondition(
            f"{info.name} has no canary: its route names one version", reason="version_missing"
        )
    return min(weights, key=lambda v: weights[v])


def _wanted(info: ServiceInfo, want: str) -> str:
    from fan.versions import best, newest_last

    if want == "canary":
        return _canary(info)
    live = {i.version for i in info.instances if info.live(i.version)}
    version = best(want, live)
    if version is not None:
        return version
    known = {*info.interfaces, *(i.version for i in info.instances)}
    down = best(want, known)
    if down is not None:
        raise no_instance(f"{info.name}@{want} has no live instance ({down} is registered)")
    available = newest_last(known)
    raise FailedPrecondition(
        f"{info.name} has no version {want}; there is {', '.join(available) or 'none'}",
        reason="version_missing",
        details={"wanted": want, "available": available},
    )


def _highest_live(info: ServiceInfo) -> str:
    from fan.versions import newest_last, parse

    live = {i.version for i in info.instances if info.live(i.version)}
    final = [v for v in newest_last(live) if not parse(v).is_prerelease]
    if not final:
        what = "only pre-releases are live" if live else "no live instance"
        raise no_instance(f"{info.name}: {what}")
    return final[-1]
