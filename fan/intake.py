"""What an App that serves takes from brokers: which queues, for which instances, which events.

A queue holds what is meant for a version, or for whichever version is routed; so what is taken
follows the routes. Events are taken from every broker that a service is served over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from fan.errors import FanError
from fan.hosting import Hosted
from fan.message import Request, Response
from fan.model import QUEUES, Address, transport_of
from fan.transports.base import Handler, Listener, Served, Stream, Subscription

if TYPE_CHECKING:
    from concurrent.futures import Future

    from fan.app import App


class Intake:
    """Tells the listeners of one App what to take, and holds its services' subscriptions."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._lock = threading.RLock()
        self._listeners: Sequence[Listener] = ()
        self._handler: Handler | None = None
        #: By where, for which instance, and what.
        self._subscribed: dict[tuple[Address, str, Subscription], Listener] = {}

    def __repr__(self) -> str:
        return f"<Intake listeners={len(self._listeners)} subscribed={len(self._subscribed)}>"

    def missing(self, transports: Sequence[str]) -> list[str]:
        """The queue that the settings name, where a service is meant to be pushed or subscribes to
        events and `transports` has none."""
        given = {spec.partition("=")[0] for spec in transports}
        wanted = any(
            method.is_push or method.topics
            for one in self._app.services
            for method in one.table.values()
        )
        if not wanted or any(self._app.transport(name).is_shared for name in given):
            return []
        return [self._app.settings.queue]

    def open(self, listeners: Sequence[Listener], handler: Handler) -> None:
        """Begin to take. Raises what `Transport.subscribe` raises."""
        self._listeners, self._handler = tuple(listeners), handler
        self.update()

    def update(self) -> None:
        """Take what the present routes say. Raises what `Transport.subscribe` raises."""
        with self._lock:
            handler = self._handler
            if handler is None:
                return
            held = {one.instance_id for one in self._app.lifecycle.waiting}
            services = [
                one
                for one in self._app.services
                if one.instance_id not in held and not self._is_held_off(one)
            ]
            served = [self._served(one) for one in services]
            for listener in self._listeners:
                listener.update(served)
            wanted = {
                (listener.address, instance, subscription)
                for listener in self._listeners
                if transport_of(listener.address) in QUEUES or self._is_shared(listener)
                for instance, subscription in self._subscriptions(served)
            }
            for key in wanted - self._subscribed.keys():  # before the others go: none is missed
                address, instance, subscription = key
                self._subscribed[key] = self._app.transport_for(address).subscribe(
                    address, subscription, _Pinned(handler, instance)
                )
            for key in self._subscribed.keys() - wanted:
                self._subscribed.pop(key).close()

    def drain(self) -> None:
        """Take nothing new."""
        with self._lock:
            self._handler = None
            for listener in self._subscribed.values():
                listener.drain()

    def close(self, timeout: float = 5.0) -> None:
        """End the subscriptions. Twice does no harm."""
        with self._lock:
            self._handler = None
            self._listeners = ()
            while self._subscribed:
                self._subscribed.popitem()[1].close(timeout)

    def _is_shared(self, listener: Listener) -> bool:
        return self._app.transport_for(listener.address).is_shared

    def _served(self, one: Hosted) -> Served:
        return Served(
            one.name,
            one.version,
            one.instance_id,
            frozenset(m.name for m in one.table.values() if m.is_idempotent),
            self._is_routed(one),
        )

    def _is_held_off(self, one: Hosted) -> bool:
        """Whether an operator takes its calls away: it must not fetch any either."""
        try:
            return one.instance_id in self._app.discovery.service(one.name).overrides
        except FanError:
            return False  # no registry says so

    def _is_routed(self, one: Hosted) -> bool:
        try:
            route = self._app.discovery.service(one.name).route
        except FanError:
            return True  # no registry says otherwise
        return route is None or not route.versions or route.versions.get(one.version, 0) > 0

    def _subscriptions(self, served: Iterable[Served]) -> list[tuple[str, Subscription]]:
        tables = {one.instance_id: one.table for one in self._app.services}
        return [
            (
                one.instance,
                Subscription(
                    topic.name,
                    one.service if topic.group is None else topic.group,
                    one.service,
                    method.name,
                ),
            )
            for one in served
            if one.is_routed
            for method in tables[one.instance].values()
            for topic in method.topics
        ]


class _Pinned:
    """The Handler of one instance's events: another version of its service may be hosted beside
    it."""

    def __init__(self, handler: Handler, instance: str) -> None:
        self._handler = handler
        self._instance = instance

    def __call__(
        self,
        request: Request,
        *,
        is_cancelled: Callable[[], bool] | None = None,
        peer: str = "",
        is_queued: bool = False,
    ) -> Response | Future[Response] | Stream:
        """Answer one event: see `transports.base.Handler`."""
        request = msgspec.structs.replace(request, instance=self._instance)
        return self._handler(request, is_cancelled=is_cancelled, peer=peer, is_queued=is_queued)
