"""The amqp transport: RabbitMQ, over pika.

One connection per broker and process, in one I/O thread (`amqp_link`), carries what this process
calls, pushes and publishes as well as what it serves and hears; each of these works on a channel of
its own. `amqp_names` holds the exchanges and queues, `amqp_wire` the form of messages, `amqp_calls`
and `amqp_posts` the sending side, `amqp_listener` the serving one. pika is imported by the first
method that needs it.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, Protocol

import msgspec

from fan.errors import InvalidArgument
from fan.message import Request, Response
from fan.model import Address
from fan.transports.amqp_place import Place, place_of
from fan.transports.base import Handler, Listener, Queues, Subscription, Transport

if TYPE_CHECKING:
    from concurrent.futures import Future

    from fan.transports.amqp_broker import Broker

#: Seconds between two signs of life at most, however long a lease is.
_MAX_HEARTBEAT = 60
#: Seconds beyond a deadline in which the I/O thread still has the last word.
_GRACE = 0.05


class AmqpSettings(Protocol):
    """What the transport reads of the settings."""

    @property
    def amqp_url(self) -> str:
        """The broker, with user and password."""

    @property
    def max_body(self) -> int:
        """Bytes of arguments or result that are accepted."""

    @property
    def workers(self) -> int:
        """Threads for handlers."""

    @property
    def lease(self) -> float:
        """How long a message stays with a worker that shows no sign of life."""

    @property
    def deliveries(self) -> int:
        """How often a push or event is given to a worker before it is a dead letter."""


class AmqpTransport(Transport):
    """Calls, pushes and events through RabbitMQ; addresses are `amqp://HOST:PORT/VHOST`."""

    scheme: ClassVar[str] = "amqp"
    can: ClassVar[frozenset[str]] = frozenset({"call", "push", "subscribe", "serve", "queue"})
    submits: ClassVar[frozenset[str]] = frozenset({"call", "push", "event"})
    is_shared: ClassVar[bool] = True

    def __init__(self, settings: AmqpSettings) -> None:
        self._settings = settings
        self._start_over()

    def _start_over(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._brokers: dict[Place, Broker] = {}
        #: By the URL that somebody named, what it leads to.
        self._by_url: dict[str, Broker] = {}
        self._is_closed = False

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{len(self._brokers)} brokers"
        return f"<AmqpTransport {state}>"

    def home(self) -> Address:
        return place_of(self._settings.amqp_url).address

    def call(
        self, address: Address, request: Request, *, marks: dict[str, float] | None = None
    ) -> Response:
        return self._wait(self._broker(address.url).call(_dated(request), marks), request)

    def submit(self, address: Address, request: Request) -> Future[Response]:
        if request.kind == "push":
            return self._broker(address.url).push(request)
        if request.kind == "event":
            return self._broker(address.url).publish(request)
        return self._broker(address.url).call(_dated(request))

    def send(self, address: Address, request: Request) -> Response:
        """Push: return once the service's queue has it, for whoever serves it then."""
        return self._wait(self._broker(address.url).push(request), request)

    def publish(self, address: Address, request: Request) -> Response:
        return self._wait(self._broker(address.url).publish(request), request)

    def _wait(self, pending: Future[Response], request: Request) -> Response:
        try:
            return pending.result(request.timeout_ms / 1000 + _GRACE)
        except TimeoutError:
            from fan.transports.amqp_failures import late

            pending.cancel()
            raise late(request.timeout_ms, was_sent=True) from None

    def serve(self, bind: str, handler: Handler) -> Listener:
        """`bind` is the URL of a broker; by default the settings' one."""
        from fan.transports.amqp_listener import PATIENCE, QueueListener

        broker = self._broker(bind or self._settings.amqp_url)
        broker.reap(time.monotonic() + PATIENCE)
        return QueueListener(broker, handler)

    def subscribe(self, address: Address, subscription: Subscription, handler: Handler) -> Listener:
        from fan.transports.amqp_listener import QueueSubscription

        subscribed = QueueSubscription(self._broker(address.url), subscription, handler)
        subscribed.open()
        return subscribed

    def queues(self, address: Address) -> Queues:
        from fan.transports.amqp_queues import BrokerQueues

        return BrokerQueues(self._broker(address.url))

    def close(self) -> None:
        if self._pid != os.getpid():
            self._start_over()
        with self._lock:
            self._is_closed = True
            brokers = list(self._brokers.values())
            self._brokers.clear()
            self._by_url.clear()
        for broker in brokers:
            broker.close()

    def _broker(self, url: str) -> Broker:
        """The broker at a URL. Without a user in it, one that is known there, else the settings'
        user. Raises InvalidArgument."""
        if self._pid != os.getpid():
            self._start_over()  # a forked child makes its own connections
        found = self._by_url.get(url)
        return found if found is not None else self._open(url)

    def _open(self, url: str) -> Broker:
        from fan.transports.amqp_broker import Broker
        from fan.transports.amqp_failures import closed

        place = self._place(url)
        with self._lock:
            if self._is_closed:
                raise closed()
            broker = self._brokers.get(place)
            if broker is None and not place.has_login:
                known = (b for p, b in self._brokers.items() if p.address == place.address)
                broker = next(known, None)
            if broker is None:
                broker = self._brokers[place] = Broker(place, self._settings)
            self._by_url[url] = broker
            return broker

    def _place(self, url: str) -> Place:
        place = place_of(url)
        if not place.has_login:
            with suppress(InvalidArgument):
                home = place_of(self._settings.amqp_url)
                place = home if home.address == place.address else place
        if place.heartbeat:
            return place
        # The broker waits for two heartbeats before it gives a message to somebody else.
        heartbeat = min(_MAX_HEARTBEAT, max(1, round(self._settings.lease / 2)))
        return msgspec.structs.replace(place, heartbeat=heartbeat)


def _dated(request: Request) -> Request:
    """The request with the point in time at which nobody waits for its answer any more."""
    ends = int(time.time() * 1000) + request.timeout_ms
    if request.deadline_ms is not None:
        ends = min(ends, request.deadline_ms)
    return msgspec.structs.replace(request, deadline_ms=ends)
