"""What is wrong with what is registered, before a caller meets it: `fan discover check`."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from fan.discovery import Discovery
from fan.errors import FanError
from fan.model import Instance, ServiceInfo
from fan.needs import unmet
from fan.shard import Sharding
from fan.stores.base import Store


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong. `kind` is unmet (a hard dependency), down (a routed version without
    a live instance), unrouted, hole and overlap (of shards), unknown (shards without a variable),
    bad_shard, or server (what stores the registry)."""

    kind: str
    what: str
    service: str = ""
    version: str = ""
    instance: str = ""


def findings(
    discovery: Discovery, store: Store, service: str, deadline: float
) -> list[Finding]:
    """Of all services and of the store, or of one service."""
    if service:
        infos = [discovery.service(service, deadline)]
        return [found for info in infos for found in _of_service(info, discovery)]
    found = [Finding("server", sentence) for sentence in store.problems(deadline=deadline)]
    for info in discovery.services(deadline):
        found += _of_service(info, discovery)
    return found


def _of_service(info: ServiceInfo, discovery: Discovery) -> Iterator[Finding]:
    yield from _unmet(info, discovery)
    route = info.route
    if route is None:
        if info.instances:
            yield Finding("unrouted", "no route: the highest final release answers", info.name)
        return
    if route.replaced_by:
        return
    for version in _routed(info):
        if not info.live(version):
            weight = route.versions.get(version, 0) / 100
            what = f"no live instance, and {weight:g} % of the calls"
            yield Finding("down", what, info.name, version)
    yield from _shards(info)


def _routed(info: ServiceInfo) -> list[str]:
    from fan.versions import newest_last

    assert info.route is not None
    weights = (info.route.versions, *info.route.overrides.values())
    return newest_last({v for each in weights for v, weight in each.items() if weight > 0})


def _unmet(info: ServiceInfo, discovery: Discovery) -> Iterator[Finding]:
    """What instances say that they miss, and what no instance could have."""
    for instance in info.instances:
        for missing in instance.unmet:
            yield _finding("unmet", missing, instance)
    said = {missing for i in info.instances for missing in i.unmet}
    for version, interface in info.interfaces.items():
        if info.instances and not any(i.version == version for i in info.instances):
            continue  # nobody runs it
        for missing in unmet(interface.depend.get("hard", {}), discovery):
            if missing not in said and any(i.version == version for i in info.instances):
                yield Finding("unmet", missing, info.name, version)


def _finding(kind: str, what: str, instance: Instance) -> Finding:
    return Finding(kind, what, instance.service, instance.version, instance.id)


def _shards(info: ServiceInfo) -> Iterator[Finding]:
    try:
        sharding = Sharding.of(info.name, info.route)
    except FanError as exc:
        yield Finding("bad_shard", str(exc), info.name)
        return
    if sharding is None:
        return
    for version in _routed(info):
        live = info.live(version)
        if live:  # without one all of it is down, which is said already
            known = [i for i in info.instances if i.version == version]
            for sentence in sharding.problems(live, known):
                kind, _, what = sentence.partition(": ")
                yield Finding(kind, what, info.name, version)
