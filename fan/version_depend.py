"""Dependencies between versions: every version of a needed service that takes calls must suit
every version that needs it and takes calls.

The interfaces say who needs what. Those that a change has to do with are read before its commit,
found by the records of who needs whom; and what they ask for is checked inside it, on the routes
that it would leave, so that two plans which are valid alone and not together cannot both come
through.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator

import msgspec

from fan.errors import NO, FailedPrecondition, Unavailable
from fan.model import Route
from fan.readings import INTERFACE, NEEDS
from fan.stores.base import Record, Store
from fan.version_routes import routed
from fan.versions import matches, newest_last

#: The reason of the error for an interface that came after they were read.
STRANGER = "interfaces_changed"

RouteOf = Callable[[str], Route | None]


#: Versions that an error names as a way out.
_MOST_NAMED = 3


class Needs(msgspec.Struct, frozen=True):
    """Of a registered interface, what it needs: the methods, which are most of it, are skipped."""

    service: str
    version: str
    #: {"hard": {service: range}, "soft": {...}}
    depend: dict[str, dict[str, str]] = {}


_decode = msgspec.json.Decoder(Needs).decode


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """One version that needs another service. `have` are the versions of that which take calls, and
    `wrong` those of them that do not suit."""

    service: str
    version: str
    needed: str
    range: str = ""
    is_hard: bool = True
    have: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    #: Whether anybody ever registered the needed service.
    is_known: bool = True

    @property
    def is_met(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.wrong and (self.is_known or bool(self.have))

    def __str__(self) -> str:
        return f"{self.service} {self.version} needs {self.wanted} (have {self.found})"

    @property
    def wanted(self) -> str:
        """What is needed, as it is declared: `stock>=2`."""
        if not self.range:
            return self.needed
        return f"{self.needed}{'' if self.range[0] in '<>=!~' else ' '}{self.range}"

    @property
    def found(self) -> str:
        """What there is of it."""
        return ", ".join(self.have) or ("no route" if self.is_known else "no such service")


class Dependencies:
    """What all registered versions need, as of one reading."""

    def __init__(self, needs: Iterable[Needs]) -> None:
        self._needs: dict[str, dict[str, Needs]] = {}
        for each in needs:
            self._needs.setdefault(each.service, {})[each.version] = each

    def __repr__(self) -> str:
        return f"<Dependencies of {len(self._needs)} services>"

    @classmethod
    def read(cls, store: Store, deadline: float) -> Dependencies:
        """Those of the registry; what somebody damaged is left out."""
        return cls(_decoded(store.list(INTERFACE, deadline=deadline)))

    @classmethod
    def around(cls, store: Store, services: Iterable[str], deadline: float) -> Dependencies:
        """Those that a change of these services has to do with: of themselves, of whom they need,
        and of who needs them. What the registry holds besides costs nothing."""

        def interfaces(names: Iterable[str]) -> list[Needs]:
            each = (store.list(INTERFACE, f"{name}/", deadline=deadline) for name in sorted(names))
            return [needs for records in each for needs in _decoded(records)]

        changed = set(services)
        users = {
            record.name.removeprefix(f"{name}/").rpartition("/")[0]
            for name in sorted(changed)
            for record in store.list(NEEDS, f"{name}/", deadline=deadline)
        }
        own = interfaces(changed)
        needed = {n for each in own for ranges in each.depend.values() for n in ranges}
        return cls([*own, *interfaces((users | needed) - changed)])

    @property
    def services(self) -> list[str]:
        """Every service that has an interface, by name."""
        return sorted(self._needs)

    def versions(self, service: str) -> list[str]:
        """The versions of a service that have an interface, ascending."""
        return newest_last(self._needs.get(service, {}))

    def related(self, services: Iterable[str]) -> set[str]:
        """These services, those that they need, and those that need them."""
        changed = set(services)
        found = set(changed)
        for name, versions in self._needs.items():
            needed = {n for each in versions.values() for by in each.depend.values() for n in by}
            if name in changed:
                found |= needed
            elif needed & changed:
                found.add(name)
        return found

    def edges(
        self, service: str, route_of: RouteOf, among: Container[str] | None = None
    ) -> list[Edge]:
        """What the versions of a service need that take calls; with `among`, of these services."""
        route = route_of(service)
        if route is None or route.replaced_by:
            return []
        found = []
        for version in newest_last(routed(route)):
            needs = self._needs.get(service, {}).get(version)
            for strength, ranges in sorted(needs.depend.items()) if needs is not None else ():
                for needed, range in sorted(ranges.items()):
                    if needed != service and (among is None or needed in among):
                        edge = Edge(
                            service=service, version=version, needed=needed, range=range,
                            is_hard=strength == "hard",
                        )  # fmt: skip
                        found.append(self._looked_up(edge, route_of(needed)))
        return found

    def _looked_up(self, edge: Edge, route: Route | None) -> Edge:
        # Of a service that is replaced, another one's versions answer: those compare with nothing.
        have = newest_last(routed(route)) if route is not None and not route.replaced_by else []
        return msgspec.structs.replace(
            edge,
            have=tuple(have),
            wrong=tuple(v for v in have if not matches(v, edge.range)),
            is_known=edge.needed in self._needs or route is not None,
        )

    def unmet(self, changed: Iterable[str], route_of: RouteOf) -> list[Edge]:
        """The edges from or to a changed service that are not met."""
        changed = set(changed)
        return [
            edge
            for name in sorted(self.related(changed))
            for edge in self.edges(name, route_of, None if name in changed else changed)
            if not edge.is_met
        ]

    def check(self, changed: Iterable[str], route_of: RouteOf, *, is_last: bool) -> list[Edge]:
        """The soft ones that are not met. Raises FailedPrecondition (unmet_dependency) for the hard
        ones; and, unless this `is_last` of the tries, Unavailable (interfaces_changed) where a
        version takes calls that was not there when the interfaces were read."""
        for name in self.related(changed) if not is_last else ():
            route = route_of(name)
            if route is not None and routed(route) - self._needs.get(name, {}).keys():
                raise Unavailable(
                    f"{name} has another version by now: read anew", reason=STRANGER, executed=NO
                )
        unmet = self.unmet(changed, route_of)
        hard = [edge for edge in unmet if edge.is_hard]
        if hard:
            raise FailedPrecondition(
                "; ".join(f"{edge}: {self._way_out(edge)}" for edge in hard),
                reason="unmet_dependency",
                details={"unmet": [_told(edge, self.suiting(edge)) for edge in hard]},
            )
        return unmet

    def suiting(self, edge: Edge) -> list[str]:
        """The versions of the needed service that would do, as far as they are registered; the
        highest first."""
        found = self.versions(edge.needed)
        return [version for version in reversed(found) if matches(version, edge.range)]

    def _way_out(self, edge: Edge) -> str:
        suiting = self.suiting(edge)
        if set(edge.have) & set(suiting):
            return f"not while {edge.needed} {' and '.join(edge.wrong)} takes calls"
        if not suiting:
            return f"no version of {edge.needed} that is registered would do"
        return f"{edge.needed} {' or '.join(suiting[:_MOST_NAMED])} would do"



def _decoded(records: Iterable[Record]) -> Iterator[Needs]:
    for record in records:
        try:
            yield _decode(record.body)
        except (msgspec.DecodeError, RecursionError):
            continue


def _told(edge: Edge, suiting: list[str]) -> dict[str, object]:
    return {
        "suiting": suiting,
        "service": edge.service,
        "version": edge.version,
        "needs": edge.needed,
        "range": edge.range,
        "have": list(edge.have),
    }


def check_replacements(services: Iterable[str], route_of: RouteOf) -> None:
    """Raise FailedPrecondition (replacement_loop) for services that replace each other in a
    circle."""
    for service in services:
        names = [service]
        while (route := route_of(names[-1])) is not None and route.replaced_by:
            name = route.replaced_by.partition("@")[0]
            if name in names:
                raise FailedPrecondition(
                    f"services replace each other in a circle: {' -> '.join((*names, name))}",
                    reason="replacement_loop",
                )
            names.append(name)
