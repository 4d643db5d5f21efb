"""The listener of the amqp transport: which queues are consumed, for whom."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec

from fan.errors import FanError
from fan.message import Request
from fan.transports import amqp_names as names
from fan.transports.amqp_broker import Broker, wait_for
from fan.transports.amqp_link import FAREWELL
from fan.transports.amqp_taps import CallTap, PostTap, QuestionTap, Tap
from fan.transports.base import Handler, Listener, Served, Subscription

if TYPE_CHECKING:
    from fan.transports.amqp_names import Spec

#: Seconds that `serve`, `update` and `subscribe` wait for the broker.
PATIENCE = 10.0


class QueueListener(Listener):
    """Consumes the queues of the instances that it was told of."""

    def __init__(self, broker: Broker, handler: Handler) -> None:
        self.address = broker.link.place.address
        self._broker = broker
        self._handler = handler
        self._lock = threading.Lock()
        self._taps: dict[tuple[str, ...], Tap] = {}
        #: Taps of queues that nothing is to be taken from any more.
        self._leaving: list[Tap] = []
        self._is_draining = False

    def __repr__(self) -> str:
        state = "draining" if self._is_draining else "open"
        return f"<QueueListener {self.address.url} {state}, {len(self._taps)} queues>"

    def update(self, served: Sequence[Served]) -> None:
        """Raises what keeps a queue from being consumed; it is tried again nonetheless."""
        with self._lock:
            if self._is_draining:
                return
            wanted = dict(self._wanted(served))
            old = [self._taps.pop(key) for key in self._taps.keys() - wanted.keys()]
            self._leaving = [tap for tap in self._leaving if not tap.finished.done()] + old
            new = []
            for key in wanted.keys() - self._taps.keys():
                tap = self._taps[key] = wanted[key]()
                new.append(tap)
                self._broker.link.do(tap.open)
        deadline = time.monotonic() + PATIENCE
        try:
            for tap in new:  # before the others go: a queue does not lose its last consumer
                wait_for(tap.opened, deadline, self._broker.link)
        finally:
            for tap in old:
                self._broker.link.do(tap.drain)
                tap.finished.add_done_callback(partial(self._left, tap))

    def _left(self, tap: Tap, finished: Future[None]) -> None:
        self._broker.link.do(tap.close)

    def _wanted(
        self, served: Iterable[Served]
    ) -> Iterable[tuple[tuple[str, ...], Callable[[], Tap]]]:
        """The queues of these instances, by a key that says all there is to know of them."""
        served = list(served)
        keys = tuple(sorted({key for one in served for key in _keys(one)}))
        if keys:
            yield ("questions", *keys), partial(self._questions, keys)
        routed: dict[str, Served] = {}
        for one in served:
            kind = ",".join(sorted(one.idempotent))
            exact = ("call", one.service, one.version, one.instance, kind)
            yield exact, partial(self._calls, names.calls(one.service, one.version), one)
            own = names.own_calls(one.instance)
            yield ("instance", one.service, one.instance, kind), partial(self._calls, own, one)
            if one.is_routed:
                routed.setdefault(one.service, one)
        for one in routed.values():
            kind = ",".join(sorted(one.idempotent))
            unversioned = names.calls(one.service, "")
            yield (
                ("routed", one.service, one.instance, kind),
                partial(self._calls, unversioned, one),
            )
            yield ("push", one.service, one.instance), partial(self._pushes, one)

    def _questions(self, keys: tuple[str, ...]) -> Tap:
        return QuestionTap(self._broker, lambda: names.questions(keys, uuid4().hex))

    def _calls(self, spec: Spec, one: Served) -> Tap:
        return CallTap(self._broker, lambda: spec, one, self._handler)

    def _pushes(self, one: Served) -> Tap:
        spec = names.pushes(one.service, self._broker.deliveries)

        def aim(request: Request) -> Request:
            return msgspec.structs.replace(request, want=one.version, instance=one.instance)

        return PostTap(self._broker, lambda: spec, aim, self._handler)

    def drain(self) -> None:
        with self._lock:
            self._is_draining = True
            taps = [*self._leaving, *self._taps.values()]
        for tap in taps:
            self._broker.link.do(tap.drain)

    def close(self, timeout: float = 5.0) -> None:
        self.drain()
        with self._lock:
            taps = [*self._leaving, *self._taps.values()]
            self._taps.clear()
            self._leaving.clear()
        close_all(self._broker, taps, timeout)


class QueueSubscription(Listener):
    """Consumes the events of one topic."""

    def __init__(self, broker: Broker, subscription: Subscription, handler: Handler) -> None:
        self.address = broker.link.place.address
        self._broker = broker
        self.subscription = subscription
        topic, group = subscription.topic, subscription.group

        def spec() -> Spec:
            if group:
                return names.events(topic, group, broker.deliveries)
            return names.broadcast(topic, uuid4().hex)

        self._tap = PostTap(broker, spec, self._aim, handler, is_lasting=bool(group))

    def __repr__(self) -> str:
        return f"<QueueSubscription {self.subscription.topic} {self.address.url}>"

    def open(self) -> None:
        """Begin to hear. Raises what keeps it from that."""
        self._broker.link.do(self._tap.open)
        try:
            wait_for(self._tap.opened, time.monotonic() + PATIENCE, self._broker.link)
        except FanError:
            self.close(0)
            raise

    def _aim(self, request: Request) -> Request:
        wanted = self.subscription
        return msgspec.structs.replace(request, service=wanted.service, method=wanted.method)

    def drain(self) -> None:
        self._broker.link.do(self._tap.drain)

    def close(self, timeout: float = 5.0) -> None:
        self.drain()
        close_all(self._broker, [self._tap], timeout)


def _keys(one: Served) -> list[str]:
    """What the calls of one instance go by."""
    keys = [names.call_key(one.service, one.version), names.instance_queue(one.instance)]
    return [*keys, names.call_key(one.service, "")] if one.is_routed else keys


def close_all(broker: Broker, taps: Sequence[Tap], timeout: float) -> None:
    """Wait at most `timeout` seconds until nothing is in hand, then leave the queues, with what is
    on its way to others out of hand."""
    deadline = time.monotonic() + timeout
    for tap in taps:
        try:
            tap.finished.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            break
    for tap in taps:
        broker.link.do(tap.close)
    deadline = time.monotonic() + 2 * FAREWELL
    for tap in taps:
        try:
            tap.left.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            break
