"""What a switch makes of a route: weights, overrides of single methods, replacement, stickiness.

Pure: a route and the services' instances in, a route out. Nothing here reads or writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from fan.errors import FailedPrecondition, InvalidArgument
from fan.model import WHOLE, Route, ServiceInfo
from fan.names import unknown_method
from fan.versions import best, newest_last

ROUTE = "route/"

_decode = msgspec.json.Decoder(Route).decode


class Aim(msgspec.Struct, frozen=True, kw_only=True):
    """Where the calls of a service are to go: to a `version` of its own, or to the service `other`
    (at `version`; without one, wherever that one's route goes). With `method` only those of one
    method; without a version that goes where the rest goes again."""

    service: str
    method: str = ""
    version: str = ""
    other: str = ""


def decode_route(body: bytes | None) -> Route | None:
    """The route of a body; None for nothing, and for what somebody else damaged."""
    if body is None:
        return None
    try:
        return _decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None


def routed(route: Route) -> set[str]:
    """The versions that take calls: of the service, or of one of its methods."""
    return {v for each in weights_of(route) for v, weight in each.items() if weight > 0}


def weights_of(route: Route) -> Iterator[dict[str, int]]:
    """The weights of the service, and of each method that has its own."""
    yield route.versions
    yield from route.overrides.values()


def live_versions(info: ServiceInfo) -> dict[str, int]:
    """How many instances of each version are up."""
    found: dict[str, int] = {}
    for instance in info.instances:
        if instance.state == "up":
            found[instance.version] = found.get(instance.version, 0) + 1
    return found


def known_versions(info: ServiceInfo) -> list[str]:
    """Every version that was ever registered, ascending."""
    return newest_last({*info.interfaces, *(i.version for i in info.instances)})


def resolve(info: ServiceInfo, want: str, *, force: bool = False) -> str:
    """The version that `want` names: exactly, or as a prefix the highest live match. Raises
    FailedPrecondition: version_missing where none was ever registered, no_live_instance where none
    is up; with `force` one that is not up will do, and one that is not known if it is named
    exactly."""
    if not want:
        raise InvalidArgument(f"a version of {info.name} is needed", reason="bad_version")
    known = known_versions(info)
    found = want if want in known else best(want, live_versions(info)) or best(want, known)
    if found is not None:
        return found
    if force and want[0] not in "<>=!~":
        return want
    raise version_missing(info, want)


def version_missing(info: ServiceInfo, want: str) -> FailedPrecondition:
    """The error for a version that nobody ever registered."""
    available = known_versions(info)
    return FailedPrecondition(
        f"{info.name} has no version {want}; there is {', '.join(available) or 'none'}",
        reason="version_missing",
        details={"wanted": want, "available": available},
    )


def check_live(info: ServiceInfo, version: str, at_least: int = 1) -> None:
    """Raise FailedPrecondition (no_live_instance, too_few_instances) where fewer instances of a
    version are up."""
    count = live_versions(info).get(version, 0)
    if count >= at_least:
        return
    details = {"service": info.name, "version": version, "up": count, "wanted": at_least}
    if not count:
        states = sorted(i.state for i in info.instances if i.version == version)
        others = f" ({', '.join(states)})" if states else ""
        raise FailedPrecondition(
            f"{info.name} {version} has no live instance{others}: start one, or --force",
            reason="no_live_instance",
            details=details,
        )
    raise FailedPrecondition(
        f"{info.name} {version} has {count} live instances of the {at_least} that are wanted",
        reason="too_few_instances",
        details=details,
    )


def check_method(info: ServiceInfo, version: str, method: str) -> None:
    """Raise Unimplemented (unknown_method) where it is known that a version has no such method."""
    interface = info.interfaces.get(version)
    if interface is not None and interface.method(method) is None:
        raise unknown_method(f"{info.name} {version}", method, [m.name for m in interface.methods])


def aimed(
    route: Route | None, aim: Aim, weights: Mapping[str, int] | None = None
) -> Route:
    """The route with the calls going where `aim` says; `weights` leave others a share."""
    before = route or Route()
    if aim.other:
        to = f"{aim.other}@{aim.version}" if aim.version else aim.other
        return msgspec.structs.replace(before, replaced_by=to)
    if not aim.method:
        versions = shared(before.versions, weights or {aim.version: WHOLE}, aim.version)
        after = msgspec.structs.replace(before, versions=versions, replaced_by="")
        return _unretired(after)
    if not before.versions:
        raise FailedPrecondition(
            f"{aim.service} has no route: switch it before one of its methods", reason="unrouted"
        )
    overrides = dict(before.overrides)
    mine = overrides.pop(aim.method, before.versions)
    if aim.version:
        overrides[aim.method] = shared(mine, weights or {aim.version: WHOLE}, aim.version)
    return _unretired(msgspec.structs.replace(before, overrides=overrides))


def _unretired(route: Route) -> Route:
    """What takes calls again is not retired any more."""
    left = tuple(v for v in route.retired if v not in routed(route))
    return msgspec.structs.replace(route, retired=left)


def shared(before: Mapping[str, int], given: Mapping[str, int], rest: str = "") -> dict[str, int]:
    """Weights that sum to the whole: those `given`, and what is left for `rest`, or, where that is
    among the given, for the other versions in proportion to what they have. Raises InvalidArgument
    (bad_weight), FailedPrecondition (no_other_version)."""
    total = sum(given.values())
    if total > WHOLE or any(weight < 0 for weight in given.values()):
        raise InvalidArgument(
            f"the weights are {total / 100:g} % together: at most 100 %", reason="bad_weight"
        )
    left = WHOLE - total
    others = {v: w for v, w in before.items() if w > 0 and v not in given}
    if rest and rest not in given:
        others = {rest: WHOLE}
    if left and not others:
        raise FailedPrecondition(
            f"the other {left / 100:g} % have nowhere to go: the route names no other version",
            reason="no_other_version",
        )
    weights = {**given, **_proportional(others, left)}
    return {v: weights[v] for v in newest_last(weights) if weights[v] > 0}


def _proportional(shares: Mapping[str, int], whole: int) -> dict[str, int]:
    """`whole` divided as the shares are, by largest remainder: exact, and the same everywhere."""
    if not whole:
        return {}
    total = sum(shares.values())
    parts = {version: divmod(whole * share, total) for version, share in shares.items()}
    missing = whole - sum(part for part, _ in parts.values())
    by_remainder = sorted(newest_last(parts), key=lambda v: -parts[v][1])
    return {v: parts[v][0] + (v in by_remainder[:missing]) for v in parts}


def canary(service: str, route: Route | None, want: str = "") -> str:
    """The routed version with the smaller weight, or the routed one that `want` names. Raises
    FailedPrecondition (no_canary)."""
    weights = {v: w for v, w in (route.versions if route else {}).items() if w > 0}
    if want:
        found = best(want, weights)
    else:
        newest = newest_last(weights)[::-1]
        found = min(newest, key=lambda v: weights[v]) if len(weights) > 1 else None
    if found is None:
        what = f"no share for {want}" if want else "one version, and no canary beside it"
        raise FailedPrecondition(f"the route of {service} has {what}", reason="no_canary")
    return found


def check_not_paused(service: str, route: Route | None) -> None:
    """Raise FailedPrecondition (paused)."""
    if route is not None and route.is_paused:
        raise FailedPrecondition(
            f"the route of {service} is paused: fan version resume {service}", reason="paused"
        )
