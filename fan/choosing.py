"""Where an attempt of a call goes: what the registry knows of the service, an instance of it, a
queue, or a broker."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import msgspec

from fan.codec import decode_arguments
from fan.errors import NO, FailedPrecondition, FanError, InvalidArgument
from fan.middleware.base import Call, Options
from fan.model import QUEUES, Address, Choice, ServiceInfo, transport_of
from fan.picker import Table, check_pushed, needs_key, peer
from fan.transports.base import Transport

if TYPE_CHECKING:
    from fan.app import App


class Chooser:
    """Chooses for the calls of one App."""

    def __init__(self, app: App) -> None:
        self._app = app

    def look(self, call: Call) -> Table:
        """What is known of the service as of the generation that the call tree is pinned to; the
        entry of a tree pins it. A service that is replaced is called in the other's place."""
        name = call.asked[0] if call.asked else call.service
        table: Table = self._app.picker.look(name, call.deadline, call.gen)
        call.table = table
        call.gen = call.gen or self._app.mirror.gen or table.info.gen
        if table.replaces:
            call.asked = call.asked or (call.service, call.options.want)
            call.service = table.info.name
            if table.want and not call.options.want:
                call.options = msgspec.structs.replace(call.options, want=table.want)
        return table

    def choose(self, call: Call, *, is_at_hand: bool = False) -> Choice:
        """Where an attempt goes. With `is_at_hand` by what is known alone, and it raises where that
        says nowhere."""
        options = call.options
        if options.peers:
            return peer(call.service, call.method, options, call.tried)
        if call.kind == "push":
            choice = self._choose_for_push(call, is_at_hand)
            if self._app.transport_for(choice.address).is_shared:
                self._check_pushed(call, is_at_hand)
            return choice
        return self._choose_instance(call, is_at_hand)

    def _choose_for_push(self, call: Call, is_at_hand: bool) -> Choice:
        table: Table = call.table
        queue = self._queue_of(call)
        if needs_key(table, call.method, call.options) and (queue or self._wants_queue(call)):
            from fan.shard import no_queue

            raise no_queue(call.service, table.sharding)
        if queue is not None:
            return self._queued(call, queue)
        return self._choose_instance(call, is_at_hand)

    def _check_pushed(self, call: Call, is_at_hand: bool) -> None:
        """Raise Unimplemented (unknown_method) for a method that nobody has who takes the pushes:
        what is called directly says so itself, and a queue cannot."""
        try:
            check_pushed(call.table, call.method)
        except FanError:
            if is_at_hand:
                raise
            fresh = self._app.picker.look_again(call.table, call.deadline)
            if fresh is None:
                raise
            check_pushed(fresh, call.method)

    def _choose_instance(self, call: Call, is_at_hand: bool) -> Choice:
        options, picker = call.options, self._app.picker
        table: Table = call.table
        sticky = options.sticky or _sticky(call, table) or call.traceparent[3:35]
        if call.attempt:  # what is known may be what was wrong: a route, or who is there
            with contextlib.suppress(FanError):
                picker.look_again(table, call.deadline)
            table = self.look(call)
        if needs_key(table, call.method, options):
            options = self._sharded(call, table)
        find = picker.pick if call.kind != "push" else picker.pick_queue
        try:
            return find(table, call.method, options, sticky, call.tried)
        except FanError:
            if is_at_hand:
                raise
            fresh = picker.look_again(table, call.deadline)  # the watch may be behind
            if fresh is None and not table.replaces:
                raise
            gen = max((fresh or table).info.routed_at, picker.routed_at(table, call.deadline))
            if gen <= call.gen:
                return find(fresh or table, call.method, options, sticky, call.tried)
            try:  # another route is none of this call tree's
                return find(self.look(call), call.method, options, sticky, call.tried)
            except FanError as exc:
                if call.is_entry:
                    raise _moved(exc, gen) from exc
                raise

    def _queue_of(self, call: Call) -> Transport | None:
        """The queue that a push goes to, whoever is up: the one that is asked for; for a method
        that is meant to be pushed, of a service that is down, the one that the settings name."""
        options = call.options
        if options.transport not in ("", "auto"):
            transport = self._app.transport(options.transport)
            return transport if transport.is_shared else None
        info: ServiceInfo = call.table.info
        method = call.table.method(call.method, options.want)
        is_up = any(info.live(instance.version) for instance in info.instances)
        if method is None or not method.is_push or is_up:
            return None
        return self._app.transport(self._app.settings.queue)

    def _wants_queue(self, call: Call) -> bool:
        """Whether a push that names no transport is one for a queue, if it could be there."""
        info: ServiceInfo = call.table.info
        method = call.table.method(call.method, call.options.want)
        return call.options.transport in ("", "auto") and (
            (method is not None and method.is_push)
            or any(transport_of(a) in QUEUES for i in info.instances for a in i.addresses)
        )

    def _sharded(self, call: Call, table: Table) -> Options:
        """The options with the shard key of a call, of its arguments where it was given none.
        Raises InvalidArgument (bad_shard)."""

        def arguments() -> dict[str, Any]:
            args, kwargs = decode_arguments(call.content_type, call.body)
            info = table.method(call.method, call.options.want)
            names = [param.name for param in info.params] if info is not None else []
            return {**dict(zip(names, args, strict=False)), **kwargs}

        call.shard = table.sharding.key(call.service, call.options.shard, arguments)
        return msgspec.structs.replace(call.options, shard=call.shard)

    def _queued(self, call: Call, transport: Transport) -> Choice:
        """The queue of a service, which takes a push whether anybody is up or not: at the address
        that an instance has, else at the broker that the settings name."""
        options = call.options
        if options.want:
            raise InvalidArgument(
                f"a push over {transport.scheme} goes to the version that is routed when it is"
                f" delivered: {call.target}@{options.want} cannot be asked for"
            )
        if options.instance or options.shard:
            what = "a shard key" if options.shard else "an instance"
            raise InvalidArgument(
                f"a push over {transport.scheme} goes to whichever instance takes it from the queue"
                f" of {call.service}: {what} cannot be asked for"
            )
        offered = (a for i in call.table.info.instances for a in i.addresses)
        found = next((a for a in offered if transport_of(a) == transport.scheme), None)
        return Choice(
            call.service, call.method, found or transport.home(), gen=call.table.info.gen,
            why=(f"the queue of {call.service}",),
        )  # fmt: skip

    def broker(self, call: Call) -> tuple[Address, Transport]:
        """Where an event goes: the peer that is named, else the broker that the settings name."""
        options = call.options
        if options.peers:
            address = Address(options.peers[0])
            return address, self._app.transport_for(address)
        name = options.transport if options.transport not in ("", "auto") else ""
        transport = self._app.transport(name or self._app.settings.queue)
        return transport.home(), transport


def _sticky(call: Call, table: Table) -> str:
    """The value that the route says calls stick to; empty where the call has none."""
    route = table.info.route
    if route is None or not route.sticky:
        return ""
    kind, _, name = route.sticky.partition(":")
    options, parent = call.options, call.parent
    if kind == "header":
        found = options.headers.get(name) or (parent.headers.get(name) if parent else None)
    elif kind == "baggage":
        found = options.baggage.get(name) or (parent.baggage.get(name) if parent else None)
    elif kind == "principal":
        found = options.principal or (parent.principal if parent else None)
    else:
        return ""
    return found or ""


def _moved(exc: FanError, gen: int) -> FanError:
    """What is told of a route that nobody serves any more, and that has gone elsewhere since."""
    return FailedPrecondition(
        f"{exc.message}; generation {gen} has another route",
        reason="stale_route",
        executed=NO,
        details={"gen": gen},
    )
