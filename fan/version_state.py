"""How the registry stands: what is routed where, who has it in force, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from fan.config_values import CONFIG
from fan.consumer import SUBSCRIBERS, registered
from fan.discovery import Discovery
from fan.model import Consumer, Route, ServiceInfo
from fan.stores.base import Cut, Entry, Revision, Store
from fan.version_confirm import services_of
from fan.version_depend import Dependencies, Edge
from fan.version_routes import ROUTE, decode_route, live_versions, routed


class Subscriber(msgspec.Struct, frozen=True, kw_only=True):
    """One consumer, and the newest generation that concerns it (`wanted`, 0 for none that the
    history keeps): it is behind where it has not applied that."""

    consumer: Consumer
    wanted: int = 0
    is_behind: bool = False


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The generation in force, with its routes, the revisions of its configs, and who uses it."""

    gen: int
    epoch: str = ""
    routes: dict[str, Route] = {}
    configs: dict[str, int] = {}
    subscribers: tuple[Subscriber, ...] = ()


def status(store: Store, service: str, deadline: float) -> Status:
    """How it stands; with `service` only what concerns that one. Raises NotFound
    (no_such_service) where nobody registered, routed or configured it."""
    if service:
        cut = store.read([ROUTE + service], prefix=f"{CONFIG}{service}", deadline=deadline)
        own = {CONFIG + service, ROUTE + service}
        under = f"{CONFIG}{service}/"
        found = {o: r for o, r in cut.objects.items() if o in own or o.startswith(under)}
        if not found:
            Discovery(lambda: store, live=False).service(service, deadline)
    else:
        cut = store.read(prefix=ROUTE, deadline=deadline)
        configs = store.read(prefix=CONFIG, gen=cut.head.gen or None, deadline=deadline)
        found = {**cut.objects, **configs.objects}
    return Status(
        gen=cut.head.gen,
        epoch=cut.head.epoch,
        routes=dict(_routes(found)),
        configs={o.removeprefix(CONFIG): r.rev for o, r in found.items() if o.startswith(CONFIG)},
        subscribers=tuple(_subscribers(store, cut, service, deadline)),
    )


def _routes(objects: Mapping[str, Revision]) -> Iterator[tuple[str, Route]]:
    for object, revision in objects.items():
        route = decode_route(revision.body) if object.startswith(ROUTE) else None
        if route is not None:
            yield object.removeprefix(ROUTE), route


def _subscribers(store: Store, cut: Cut, service: str, deadline: float) -> Iterator[Subscriber]:
    found = map(registered, store.list(SUBSCRIBERS, deadline=deadline))
    mine = [c for c in found if c is not None and (not service or service in c.uses)]
    log = store.log(cut.head.floor, cut.head.gen, deadline=deadline) if mine else []
    newest = _newest(log)
    ops = {entry.gen: entry.op for entry in log}
    for consumer in mine:
        wanted = max((newest.get(name, 0) for name in consumer.uses), default=0)
        said = consumer.applied
        is_other = said.gen > 0 and (
            said.epoch != cut.head.epoch
            or (said.gen in ops and ops[said.gen] != said.op)
            or said.gen < wanted
        )
        yield Subscriber(
            consumer=consumer, wanted=wanted, is_behind=is_other or (not said.gen and wanted > 0)
        )


def _newest(log: list[Entry]) -> dict[str, int]:
    """Service -> the newest generation that concerns its users."""
    return {
        service: entry.gen
        for entry in log
        for service in services_of(diff.object for diff in entry.diff)
    }


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """Who needs whom, of what takes calls in generation `gen`."""

    gen: int
    routes: dict[str, Route] = {}
    edges: tuple[Edge, ...] = ()


def graph(store: Store, deadline: float) -> Graph:
    """The dependencies between the routed versions."""
    cut = store.read(prefix=ROUTE, deadline=deadline)
    depend = Dependencies.read(store, deadline)
    routes = dict(_routes(cut.objects))
    edges = [edge for name in sorted(routes) for edge in depend.edges(name, routes.get)]
    return Graph(gen=cut.head.gen, routes=routes, edges=tuple(edges))


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that `check` found; a warning keeps nothing from working."""

    kind: str
    service: str
    message: str
    version: str = ""
    is_warning: bool = False


def check(store: Store, deadline: float) -> list[Problem]:
    """What is wrong with the routes, those of errors first."""
    found = graph(store, deadline)
    infos = {s.name: s for s in Discovery(lambda: store, live=False).services(deadline)}
    problems = [
        Problem(
            kind="unmet_dependency",
            service=edge.service,
            version=edge.version,
            message=str(edge),
            is_warning=not edge.is_hard,
        )
        for edge in found.edges
        if not edge.is_met
    ]
    for name in sorted(infos):
        problems += _of_service(infos[name], infos)
    return sorted(problems, key=lambda p: p.is_warning)


def _of_service(info: ServiceInfo, infos: Mapping[str, ServiceInfo]) -> Iterator[Problem]:
    name, route, live = info.name, info.route, live_versions(info)
    if route is None:
        yield Problem(
            kind="unrouted", service=name, message=f"{name} has no route", is_warning=True
        )
        return
    if route.is_paused:
        yield Problem(
            kind="paused", service=name, message=f"the route of {name} is paused", is_warning=True
        )
    if route.replaced_by:
        yield from _replacement(name, route.replaced_by, infos)
        return
    for version in sorted(routed(route)):
        if not live.get(version):
            yield Problem(
                kind="no_live_instance",
                service=name,
                version=version,
                message=f"{name} {version} takes calls and has no live instance",
            )


def _replacement(name: str, by: str, infos: Mapping[str, ServiceInfo]) -> Iterator[Problem]:
    from fan.versions import best

    other, _, version = by.partition("@")
    info = infos.get(other)
    if info is None or not best(version, live_versions(info)):
        what = "is not registered" if info is None else "has no live instance"
        yield Problem(
            kind="dangling_replacement",
            service=name,
            message=f"{name} is replaced by {by}, which {what}",
        )
