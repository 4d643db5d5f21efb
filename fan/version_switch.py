"""Plans of switches: which version is meant, whether it can take calls, what the routes become."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from fan.config_plans import changes_of
from fan.discovery import Discovery
from fan.errors import FailedPrecondition, InvalidArgument, NotFound
from fan.model import Route, ServiceInfo
from fan.stores.base import Change, Cut, Entry, Plan, Store
from fan.version_routes import (
    ROUTE,
    Aim,
    aimed,
    check_live,
    check_method,
    check_not_paused,
    decode_route,
    known_versions,
    live_versions,
    resolve,
    routed,
    version_missing,
    weights_of,
)
from fan.version_undo import pin_of
from fan.versions import best, matches

_STICKY = re.compile(r"trace|principal|header:[A-Za-z0-9!#$%&'*+.^_`|~-]+|baggage:[^\s=,;]+")


def check_sticky(text: str) -> str:
    """What calls stick to, as a route holds it: `header:x-user`, `baggage:KEY`, `principal` or
    `trace`. Raises InvalidArgument (bad_sticky)."""
    if not _STICKY.fullmatch(text):
        raise InvalidArgument(
            f"{text!r} is nothing that calls stick to: header:NAME, baggage:KEY, principal or"
            " trace",
            reason="bad_sticky",
        )
    return text.lower() if text.startswith("header:") else text


class Fleet:
    """The services as they are registered now, each read once. With `force` what is not live
    passes; `is_forced` says whether anything had to.

    An earlier try of the op that came through, `made`, decided already what is meant and that it
    can take calls: another version may be the highest by now, and the retry has to be the same.
    """

    def __init__(
        self,
        store: Store,
        deadline: float,
        *,
        at_least: int = 1,
        force: bool = False,
        made: Entry | None = None,
    ) -> None:
        self._made = None if made is None else _versions_of(store, made, deadline)
        self._discovery = Discovery(lambda: store, live=False)
        self._deadline = deadline
        self._at_least = at_least
        self._known: dict[str, ServiceInfo] = {}
        self.is_forcing = force
        self.is_forced = False

    def find(self, name: str) -> ServiceInfo:
        """One service. Raises NotFound (no_such_service) with similar names."""
        if name not in self._known:
            self._known[name] = self._discovery.service(name, self._deadline)
        return self._known[name]

    def split(self, name: str) -> tuple[str, str]:
        """The longest known service that `name` is or begins with, and the method behind it."""
        try:
            return self.find(name).name, ""
        except NotFound as exc:
            service, dot, method = name.rpartition(".")
            if not dot or not service or not method:
                raise
            try:
                return self.find(service).name, method
            except NotFound:
                raise exc from None

    def resolve(self, info: ServiceInfo, want: str) -> str:
        """The version that `want` names. Raises FailedPrecondition (version_missing)."""
        if self._made is not None and (found := best(want, self._made)):
            return found
        version = resolve(info, want, force=self.is_forcing)
        if version not in known_versions(info):
            self.is_forced = True
        return version

    def meant(self, info: ServiceInfo, want: str, routed: Iterable[str]) -> str | None:
        """The version that a weight names, of those that are routed or known."""
        for pool in (self._made or (), routed, live_versions(info), known_versions(info)):
            if (found := best(want, pool)) is not None:
                return found
        return None

    def weights(
        self, info: ServiceInfo, route: Route, given: Mapping[str, int]
    ) -> dict[str, int]:
        """Weights by the versions that are meant: routed ones, and others that are to be. Raises
        FailedPrecondition (version_missing), InvalidArgument (bad_weight)."""
        found: dict[str, int] = {}
        for want, weight in given.items():
            version = want if want in route.versions else None
            if version is None and not weight:
                version = best(want, route.versions)
            _put(found, info, version or self.resolve(info, want), weight)
        return found

    def check(self, name: str, version: str) -> None:
        """Raise FailedPrecondition where a version cannot take calls."""
        if self._made is not None:
            return
        try:
            info = self.find(name)
        except NotFound:
            info = ServiceInfo(name)
        try:
            check_live(info, version, self._at_least)
        except FailedPrecondition:
            if not self.is_forcing:
                raise
            self.is_forced = True

    def check_gains(self, name: str, before: Route | None, after: Route | None) -> None:
        """Raise FailedPrecondition where a version gets calls, or more of them, and cannot take
        them."""
        if after is None or after == before:
            return
        if after.replaced_by:
            if before is None or before.replaced_by != after.replaced_by:
                self.check_other(after.replaced_by)
            return
        old = Route() if before is None or before.replaced_by else before
        for version in sorted(_gaining(old, after)):
            self.check(name, version)

    def check_other(self, by: str) -> None:
        """The same for the service that takes the calls of another."""
        other, _, want = by.partition("@")
        try:
            info = self.find(other)
        except NotFound:
            info = ServiceInfo(other)
        version = best(want, live_versions(info)) or want
        if version:
            self.check(other, version)


def _put(found: dict[str, int], info: ServiceInfo, version: str, weight: int) -> None:
    if version in found:
        raise InvalidArgument(f"{info.name} {version} is given two weights", reason="bad_weight")
    found[version] = weight


def _versions_of(store: Store, entry: Entry, deadline: float) -> set[str]:
    """The versions that the routes of a generation name."""
    found: set[str] = set()
    for diff in entry.diff:
        if diff.object.startswith(ROUTE) and diff.after:
            route = decode_route(store.revision(diff.object, diff.after, deadline=deadline).body)
            if route is not None:
                found |= {*routed(route), *route.retired, route.replaced_by.partition("@")[2]}
    return found - {""}


def _gaining(before: Route, after: Route) -> set[str]:
    found = set()
    was = {"": before.versions, **before.overrides}
    for method, weights in {"": after.versions, **after.overrides}.items():
        old = was.get(method, before.versions)
        found |= {v for v, weight in weights.items() if weight > old.get(v, 0)}
    return found


class SwitchPlan:
    """What a switch of any number of services and configs does, planned on one reading."""

    def __init__(
        self,
        fleet: Fleet,
        services: Mapping[str, str],
        configs: Mapping[str, Any],
        weights: Mapping[str, int],
        sticky: str,
    ) -> None:
        """Raises NotFound (no_such_service), InvalidArgument (bad_version, bad_sticky, bad_key,
        bad_value, nothing_to_switch)."""
        self._fleet = fleet
        self._configs = changes_of(configs)
        self._keys = list(configs)
        self._weights = dict(weights)
        self._sticky = check_sticky(sticky) if sticky else ""
        self._aims = [self._aim(name, want) for name, want in services.items()]
        self.services = list(dict.fromkeys(aim.service for aim in self._aims))
        if not self._aims and not self._keys:
            raise InvalidArgument("a service or a config is needed", reason="nothing_to_switch")
        if (weights or sticky) and not self._aims:
            raise InvalidArgument(
                "weights and what calls stick to are of a service", reason="nothing_to_switch"
            )

    def _aim(self, name: str, want: str) -> Aim:
        service, method = self._fleet.split(name)
        other, at, version = want.rpartition("@")
        if at:
            if method:
                raise InvalidArgument(
                    f"{name}={want}: a service is replaced as a whole, not one of its methods",
                    reason="bad_version",
                )
            other = self._fleet.find(other).name
            if other == service:
                other, version = "", version
        if not (version or other or method):
            raise InvalidArgument(f"{name}: a version is needed", reason="bad_version")
        return Aim(service=service, method=method, version=version, other=other)

    @property
    def objects(self) -> list[str]:
        """What it is planned on."""
        others = (aim.other for aim in self._aims if aim.other)
        routes = [ROUTE + name for name in dict.fromkeys([*self.services, *others])]
        return [*routes, *(kind + key for key in self._keys for kind in ("config/", "schema/"))]

    def make(self, cut: Cut) -> Plan:
        """The plan. Raises FailedPrecondition: paused, version_missing, no_live_instance,
        too_few_instances, no_other_version."""
        changes: list[Change] = []
        used: set[str] = set()
        for service in self.services:
            before = route_of(cut, service)
            after = before
            for aim in self._aims:
                if aim.service == service:
                    after = self._moved(after, aim, used)
            assert after is not None
            if self._sticky:
                after = msgspec.structs.replace(after, sticky=self._sticky)
            if after != before:
                check_not_paused(service, before)
                self._fleet.check_gains(service, before, after)
                changes.append(change_of(cut, service, after))
        if unused := self._weights.keys() - used:
            info = self._fleet.find(self.services[0])
            raise version_missing(info, min(unused))
        changes += (
            msgspec.structs.replace(change, from_rev=pin_of(cut, change.object))
            for change in self._configs
        )
        return Plan(changes=tuple(changes), verb="switch", forced=self._fleet.is_forced)

    def _moved(self, route: Route | None, aim: Aim, used: set[str]) -> Route:
        fleet = self._fleet
        info = fleet.find(aim.other or aim.service)
        if not aim.version:
            return aimed(route, aim)
        version = fleet.resolve(info, aim.version)
        if aim.method:
            check_method(info, version, aim.method)
        aim = msgspec.structs.replace(aim, version=version)
        if aim.other:
            return aimed(route, aim)
        return aimed(route, aim, self._shares(info, route, version, used))

    def _shares(
        self, info: ServiceInfo, route: Route | None, target: str, used: set[str]
    ) -> dict[str, int]:
        """Those of the weights that name versions of this service."""
        mine = {v for each in weights_of(route) for v in each} if route is not None else set()
        found: dict[str, int] = {}
        for want, weight in self._weights.items():
            version = target if matches(target, want) else self._fleet.meant(info, want, mine)
            if version is None:
                continue
            used.add(want)
            _put(found, info, version, weight)
        return found


def route_of(cut: Cut, service: str) -> Route | None:
    """The route of a service in a reading."""
    found = cut.objects.get(ROUTE + service)
    return decode_route(found.body) if found is not None else None


def need_route(cut: Cut, service: str) -> Route:
    """The same. Raises FailedPrecondition (unrouted)."""
    route = route_of(cut, service)
    if route is None:
        raise FailedPrecondition(
            f"{service} has no route: fan version switch {service}=VERSION", reason="unrouted"
        )
    return route


def change_of(cut: Cut, service: str, route: Route) -> Change:
    """Give a service a route, if it still has the one that was read."""
    object = ROUTE + service
    body = msgspec.json.encode(route, order="sorted")
    return Change(object=object, body=body, from_rev=pin_of(cut, object))


def check_restored(
    fleet: Fleet, cut: Cut, bodies: Mapping[str, bytes | None], objects: Iterable[str]
) -> None:
    """Raise FailedPrecondition where a route that comes back sends calls to what is not live."""
    for object in objects:
        if object.startswith(ROUTE):
            name = object.removeprefix(ROUTE)
            fleet.check_gains(name, route_of(cut, name), decode_route(bodies[object]))
