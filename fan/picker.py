"""The choice for one attempt: from a service's name to an instance and its address."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Collection, Container, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

import msgspec

from fan.balancer import RoundRobin, by_shard
from fan.discovery import Discovery
from fan.errors import FailedPrecondition, FanError, NotFound, Unavailable
from fan.middleware.base import Options
from fan.model import (
    QUEUES,
    Address,
    Choice,
    Instance,
    Interface,
    MethodInfo,
    ServiceInfo,
    transport_of,
)
from fan.names import unknown_method
from fan.routing import address_of, candidates, choose_version

if TYPE_CHECKING:
    from fan.shard import Sharding

#: Methods that every instance answers for itself.
BUILT_IN = frozenset({"health", "info", "stats"})


class Table(msgspec.Struct, frozen=True):
    """What a plain call of a service needs, made once per reading of the registry: its one routed
    version, what is registered of its methods, and where its instances are reached. `version` is
    empty where a choice is to be made."""

    info: ServiceInfo
    version: str = ""
    methods: dict[str, MethodInfo] = {}
    #: By the transport asked for; the empty one is the caller's own preference.
    choices: dict[str, tuple[Choice, ...]] = {}
    #: Whether its calls go to another service.
    is_replaced: bool = False
    #: Whether it or the registry says how it is called (`policies`).
    has_policy: bool = False
    #: The services whose calls it takes in their place, and the version that those ask for.
    replaces: tuple[str, ...] = ()
    want: str = ""
    #: A `shard.Sharding`: how its keys are spread over the instances; None where they are not.
    sharding: Any = None

    def method(self, name: str, want: str) -> MethodInfo | None:
        """What is registered of a method, None where that is nothing (then the callee says)."""
        if not want or want == "canary":
            return self.methods.get(name)
        from fan.versions import best

        version = best(want, self.info.interfaces)
        return self.info.interfaces[version].method(name) if version else None


#: Seconds in which an address that could not be reached is left alone, where an instance has
#: another.
AVOIDED_FOR = 10.0


class Picker:
    """Discovery, routing and balancing, put together for one App."""

    def __init__(self, discovery: Discovery, order: Sequence[str]) -> None:
        self._discovery = discovery
        self._order = order
        self.host = platform.node()
        self._balancer = RoundRobin()
        self._tables: dict[str, Table] = {}
        #: URLs that could not be reached, and until when (time.monotonic) they are left alone.
        self._avoided: dict[str, float] = {}

    def look(self, service: str, deadline: float, gen: int = 0) -> Table:
        """What is known of a service now, or with the route that it had in generation `gen`; where
        it is replaced, of the service that takes its calls. Raises NotFound (no_such_service)."""
        info = self._discovery.service(service, deadline)
        table = self._tables.get(service)
        # The way of nearly every call, in as few steps as it takes.
        if (
            table is None
            or table.info is not info
            or table.is_replaced
            or (gen and not info.routed_at <= gen <= self._discovery.gen)
        ):
            table = self._look(info, deadline, gen)
            if table.is_replaced:
                return self._replacement(table, deadline, gen)
        return table

    def _look(self, info: ServiceInfo, deadline: float, gen: int) -> Table:
        service = info.name
        if gen and not info.routed_at <= gen <= self._discovery.gen:
            info = self._discovery.as_of(info, gen, deadline)
        table = self._tables.get(service)
        if table is None or table.info is not info:
            table = self._table(info)
            if not gen or info.routed_at <= gen:
                self._tables[service] = table
        return table

    def _replacement(self, table: Table, deadline: float, gen: int) -> Table:
        """The table of the service at the end of the replacements. Raises FailedPrecondition
        (replacement_loop), executed no."""
        names, want = [table.info.name], ""
        while table.info.route is not None and table.info.route.replaced_by:
            name, _, want = table.info.route.replaced_by.partition("@")
            if name in names:
                raise FailedPrecondition(
                    f"services replace each other in a circle: {' -> '.join((*names, name))}",
                    reason="replacement_loop",
                )
            names.append(name)
            table = self._look(self._discovery.service(name, deadline), deadline, gen)
        return msgspec.structs.replace(table, replaces=tuple(names[:-1]), want=want)

    def look_again(self, table: Table, deadline: float) -> Table | None:
        """The same from the store, where what was known is old; None where it was not."""
        info = self._discovery.again(table.info.name, deadline)
        return None if info is table.info else self._table(info)

    def avoid(self, address: Address) -> None:
        """Leave an address alone for some seconds: it could not be reached. A socket file may be
        gone, or be out of reach of a container that has our host's name."""
        self._avoided[address.url] = time.monotonic() + AVOIDED_FOR
        self._tables.clear()

    def _unreached(self) -> Collection[str]:
        if self._avoided:
            now = time.monotonic()
            for url, until in list(self._avoided.items()):
                if until <= now:
                    self._avoided.pop(url, None)
        return self._avoided

    def routed_at(self, table: Table, deadline: float) -> int:
        """The generation of the newest route of the services that it replaces; 0 for none."""
        found = (self._discovery.again(name, deadline).routed_at for name in table.replaces)
        return max(found, default=0)

    def pick(
        self, table: Table, method: str, options: Options, sticky: str, tried: AbstractSet[str]
    ) -> Choice:
        """Where the next attempt goes. Raises Unavailable and FailedPrecondition, executed no."""
        choice = None if tried else self.next_of(table, options)
        return choice or self._choose(table, method, options, sticky, tried)

    def next_of(self, table: Table, options: Options) -> Choice | None:
        """The next instance of the one version that is routed: all there is to choose for nearly
        every first attempt. None where there is more to it."""
        if not table.version or options.want or options.instance or options.shard:
            return None
        choices = table.choices.get(options.transport)
        if choices is None:
            choices = self._choices(table, options)
            if not self._avoided:  # else they hold for a while, and no longer
                table.choices[options.transport] = choices
        if len(choices) == 1:
            return choices[0]
        return choices[self._balancer.turn(len(choices))] if choices else None

    def pick_queue(
        self, table: Table, method: str, options: Options, sticky: str, tried: AbstractSet[str]
    ) -> Choice:
        """The same for a push: a queue that an instance is served over, where there is one, keeps
        it whatever happens to the instance."""
        is_free = not (options.want or options.instance or options.shard)
        if is_free and options.transport in ("", "auto"):
            for name in QUEUES:
                queued = msgspec.structs.replace(options, transport=name)
                choices = self._choices(table, queued) if table.version else ()
                if choices:
                    return choices[0]
        return self.pick(table, method, options, sticky, tried)

    def _choose(
        self, table: Table, method: str, options: Options, sticky: str, tried: AbstractSet[str]
    ) -> Choice:
        info = table.info
        if options.instance and not options.want:
            found = candidates(info, "", options.instance)
            version, because = found[0].version, "instance asked for"
        else:
            version, because = choose_version(info, options.want, sticky, method)
            found = candidates(info, version, options.instance)
        of = len(found)
        if options.shard and table.sharding is not None and not options.instance:
            values = table.sharding.parse(options.shard)
            known = [i for i in info.instances if i.version == version]
            found = table.sharding.owners(info.name, values, found, known)
        fresh = tuple(i for i in found if i.id not in tried) or found
        reachable = _reachable(
            fresh, options.transport, self._order_of(info), self.host, self._unreached()
        )
        if options.shard:
            instance = by_shard([i for i, _ in reachable], options.shard)
            how = f"shard key {options.shard}"
            if table.sharding is not None:
                how += f", {table.sharding.rule.mode} by {table.sharding.rule.template}"
        else:
            instance = self._balancer.pick([i for i, _ in reachable])
            how = "in turn"
        address = next(a for i, a in reachable if i.id == instance.id)
        if (interface := info.interfaces.get(version)) is not None and interface.is_foreign:
            address = _formed(address, interface, method)
        via = _why_transport(options, address, instance, self.host)
        why = (
            f"version {version}: {because}",
            f"instance {instance.id}: {how}, of {of} that take calls",
            f"transport {transport_of(address)}: {via}",
        )
        return Choice(info.name, method, address, version, info.gen, instance, why)

    def explain(
        self, service: str, method: str, options: Options, sticky: str, deadline: float
    ) -> Choice:
        """The choice for a first attempt, with its reasons."""
        if options.peers:
            return peer(service, method, options, frozenset())
        table = self.look(service, deadline)
        if table.want and not options.want:
            options = msgspec.structs.replace(options, want=table.want)
        if needs_key(table, method, options):
            key = table.sharding.key(table.info.name, options.shard, dict)
            options = msgspec.structs.replace(options, shard=key)
        choice = self._choose(table, method, options, sticky, frozenset())
        if not table.replaces:
            return choice
        instead = f"service {table.info.name}: instead of {', '.join(table.replaces)}"
        return msgspec.structs.replace(choice, why=(instead, *choice.why))

    def _order_of(self, info: ServiceInfo) -> Sequence[str]:
        """Local, ipc on the same host, then the order that the route gives, else the settings'."""
        route = info.route
        if route is None or not route.transports:
            return self._order
        return ("local", "ipc", *route.transports, *self._order)

    def _table(self, info: ServiceInfo) -> Table:
        interface = info.interface_for()
        methods = {m.name: m for m in interface.methods} if interface is not None else {}
        route = info.route
        routed = [v for v, weight in route.versions.items() if weight > 0] if route else []
        is_plain = interface is None or not interface.is_foreign
        is_one = len(routed) == 1 and route is not None and not route.overrides
        return Table(
            info,
            routed[0] if is_one and is_plain else "",
            methods,
            is_replaced=route is not None and bool(route.replaced_by),
            has_policy=bool(info.policy or (interface is not None and interface.policy)),
            sharding=_sharding(info),
        )

    def _choices(self, table: Table, options: Options) -> tuple[Choice, ...]:
        """Every instance of the routed version that can be reached the way that is asked for."""
        info, found, avoided = table.info, [], self._unreached()
        order = self._order_of(info)
        for instance in info.live(table.version):
            with contextlib.suppress(FanError):  # it has no such address
                address = address_of(instance, options.transport, order, self.host, avoided)
                found.append(Choice(info.name, "", address, table.version, info.gen, instance))
        return tuple(found)


def _formed(address: Address, interface: Interface, method: str) -> Address:
    """The address with the form of a method. Raises Unimplemented (unknown_method): what a service
    that is none of ours would make of any other request, nobody knows."""
    found = interface.method(method)
    if found is None and method:
        raise unknown_method(interface.service, method, [m.name for m in interface.methods])
    return address if found is None else msgspec.structs.replace(address, form=found.http)


def check_pushed(table: Table, method: str) -> None:
    """Raise Unimplemented (unknown_method) where it is known of every version that takes the
    service's pushes that it has no such method: a queue would accept what nobody can handle."""
    info = table.info
    routed = [v for v, weight in info.route.versions.items() if weight > 0] if info.route else []
    known: set[str] = set()
    for version in routed or info.interfaces:
        interface = info.interfaces.get(version)
        if interface is None or not interface.methods:
            return
        known.update(m.name for m in interface.methods)
    if known and method not in known and method not in BUILT_IN:
        raise unknown_method(info.name, method, known)


def _sharding(info: ServiceInfo) -> Sharding | None:
    if info.route is None or not info.route.shard:
        return None
    from fan.shard import Sharding

    return Sharding.of(info.name, info.route)


def needs_key(table: Table, method: str, options: Options) -> bool:
    """Whether a call goes where its shard key says: not one of a named instance, and the built-in
    methods of any instance will do, unless they are given a key."""
    if table.sharding is None or options.instance:
        return False
    return method not in BUILT_IN or bool(options.shard)


def peer(service: str, method: str, options: Options, tried: AbstractSet[str]) -> Choice:
    """The next of the addresses that the caller named, of those over the transport that was asked
    for. Raises Unavailable (unroutable)."""
    wanted = options.transport
    named = [p for p in options.peers if wanted in ("", transport_of(Address(p)))]
    if not named:
        raise Unavailable(
            f"no peer answers over {wanted}: {', '.join(options.peers)}", reason="unroutable"
        )
    fresh = [p for p in named if p not in tried] or named
    return Choice(service, method, Address(fresh[0]), why=(f"peer asked for: {fresh[0]}",))


def _reachable(
    instances: Sequence[Instance],
    transport: str,
    order: Sequence[str],
    host: str,
    avoided: Container[str],
) -> list[tuple[Instance, Address]]:
    out, refused = [], None
    for instance in instances:
        try:
            out.append((instance, address_of(instance, transport, order, host, avoided)))
        except FanError as exc:
            refused = exc
    if not out:
        raise refused or NotFound("no instances")
    return out


def _why_transport(options: Options, address: Address, instance: Instance, host: str) -> str:
    if options.transport and options.transport != "auto":
        return "asked for"
    if address.scheme == "unix":
        return "same host"
    return "first of the order that it offers"
