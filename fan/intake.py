"""What an App that serves takes from brokers: which queues, for which instances, which events.

A queue holds what is meant for a version, or for whichever version is routed; so what is taken
follows the routes. Events are taken from every broker that a service is served over. Brokers may
have to be waited for: nobody else waits with them, and one in trouble keeps no other back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from fan.chores import Chore
from fan.errors import FanError
from fan.hosting import Hosted
from fan.message import Request, Response
from fan.model import QUEUES, Address, ServiceInfo, transport_of
from fan.transports.base import Handler, Listener, Overdue, Served, Stream, Subscription

if TYPE_CHECKING:
    from concurrent.futures import Future

    from fan.app import App

_Key = tuple[Address, str, Subscription]

#: Seconds behind the last event in hand until its subscription is closed: the broker is told what
#: came of it, and what was on its way has arrived.
SETTLED = 0.5


class Intake:
    """Tells the listeners of one App what to take, and holds its services' subscriptions."""

    def __init__(self, app: App) -> None:
        self._app = app
        #: Held by who brings it up to date, which may take as long as brokers do.
        self._door = threading.Lock()
        #: Held while what follows is replaced, and for nothing that may wait.
        self._lock = threading.Lock()
        self._listeners: Sequence[Listener] = ()
        self._handler: Handler | None = None
        #: By where, for which instance, and what.
        self._subscribed: dict[_Key, _Taken] = {}
        #: Subscriptions that are over, and have something in hand.
        self._leaving: list[_Taken] = []
        self._dismissing = self._new_chore()

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
        self._dismissing = self._new_chore()
        self.update()

    def update(self) -> None:
        """Take what the present routes say. What is in hand for a version that lost its route comes
        to its end. Raises what `Transport.subscribe` and `Listener.update` raise, once all others
        were told: who calls tries again."""
        failures: list[Exception] = []
        with self._door:
            with self._lock:
                handler, listeners = self._handler, self._listeners
            if handler is None:
                return
            held = {one.instance_id for one in self._app.lifecycle.waiting}
            services = [
                one
                for one in self._app.services
                if one.instance_id not in held and not self._is_held_off(one)
            ]
            served = [self._served(one) for one in services]
            for listener in listeners:
                with _noted(failures):
                    listener.update(served)
            wanted = {
                (listener.address, instance, subscription)
                for listener in listeners
                if transport_of(listener.address) in QUEUES or self._is_shared(listener)
                for instance, subscription in self._subscriptions(served)
            }
            for key in wanted - self._subscribed.keys():  # before the others go: none is missed
                with _noted(failures):
                    self._subscribe(key, handler)
            with self._lock:
                gone = [self._subscribed.pop(key) for key in self._subscribed.keys() - wanted]
                self._leaving += gone
            for one in gone:
                with _noted(failures):
                    one.retire()
        if failures:
            raise failures[0]

    def _subscribe(self, key: _Key, handler: Handler) -> None:
        address, instance, subscription = key
        taken = _Taken(handler, instance, lambda: self._dismissing.ask(SETTLED))
        taken.listener = self._app.transport_for(address).subscribe(address, subscription, taken)
        with self._lock:
            if self._handler is not None:
                self._subscribed[key] = taken
                return
        taken.listener.close(0.0)  # it was drained meanwhile

    def _new_chore(self) -> Chore:
        return Chore("fan-intake-leave", "end a subscription", self._dismiss)

    def _dismiss(self) -> None:
        """Close what is over and has nothing in hand."""
        with self._lock:
            idle = [one for one in self._leaving if one.is_idle]
            self._leaving = [one for one in self._leaving if one not in idle]
        for one in idle:
            one.close()

    def drain(self) -> None:
        """Take nothing new."""
        with self._lock:
            self._handler = None
            taken = [*self._subscribed.values()]
        for one in taken:
            one.drain()

    def close(self, timeout: float = 5.0) -> None:
        """End the subscriptions. Twice does no harm."""
        deadline = time.monotonic() + timeout
        with self._lock:
            self._handler = None
            self._listeners = ()
            taken = [*self._subscribed.values(), *self._leaving]
            self._subscribed.clear()
            self._leaving.clear()
        for one in taken:
            one.close(max(0.0, deadline - time.monotonic()))
        self._dismissing.close()

    def abandon(self) -> None:
        """In a forked child: leave the subscriptions to the parent."""
        for one in (*self._subscribed.values(), *self._leaving):
            if one.listener is not None:
                one.listener.abandon()

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
        info = self._known(one)
        return info is not None and one.instance_id in info.overrides

    def _is_routed(self, one: Hosted) -> bool:
        info = self._known(one)
        route = info.route if info is not None else None
        return route is None or not route.versions or route.versions.get(one.version, 0) > 0

    def _known(self, one: Hosted) -> ServiceInfo | None:
        """What the registry says; where it cannot be read, what it said last."""
        try:
            return self._app.discovery.service(one.name)
        except FanError:
            return self._app.discovery.at_hand(one.name)

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


class _Taken:
    """One subscription, and the Handler of its events: they are for one instance, as another
    version of its service may be hosted beside it. `on_idle` is called where one that is over has
    nothing in hand any more."""

    #: Set once it is there; events may come before.
    listener: Listener | None = None

    def __init__(self, handler: Handler, instance: str, on_idle: Callable[[], None]) -> None:
        self._handler = handler
        self._instance = instance
        self._on_idle = on_idle
        self._lock = threading.Lock()
        self._in_hand = 0
        self._is_over = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in hand."""
        return not self._in_hand

    def drain(self) -> None:
        """Take nothing new."""
        if self.listener is not None:
            self.listener.drain()

    def retire(self) -> None:
        """The same for good: what is in hand comes to its end, then `on_idle` is called."""
        self.drain()
        with self._lock:
            self._is_over = True
            is_idle = self.is_idle
        if is_idle:
            self._on_idle()

    def close(self, timeout: float = 5.0) -> None:
        """End it."""
        if self.listener is not None:
            self.listener.close(timeout)

    def __call__(
        self,
        request: Request,
        *,
        is_cancelled: Callable[[], bool] | None = None,
        peer: str = "",
        is_queued: bool = False,
        on_overdue: Overdue | None = None,
    ) -> Response | Future[Response] | Stream:
        """Answer one event: see `transports.base.Handler`."""
        from concurrent.futures import Future

        with self._lock:
            self._in_hand += 1
        request = msgspec.structs.replace(request, instance=self._instance)
        answer: Response | Future[Response] | Stream | None = None
        try:
            answer = self._handler(
                request, is_cancelled=is_cancelled, peer=peer, is_queued=is_queued,
                on_overdue=on_overdue,
            )
        finally:
            if isinstance(answer, Future):
                answer.add_done_callback(self._ended)
            else:
                self._ended()
        return answer

    def _ended(self, _: object = None) -> None:
        with self._lock:
            self._in_hand -= 1
            is_left = self._is_over and self.is_idle
        if is_left:
            self._on_idle()


@contextmanager
def _noted(failures: list[Exception]) -> Iterator[None]:
    """What fails inside is added to `failures`, and keeps nothing else back."""
    try:
        yield
    except Exception as exc:
        failures.append(exc)
