"""The serving side: which queues of a database are taken from, and until when."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from fan.context import new_id
from fan.model import Address, QueueName
from fan.transports.base import Handler, Listener, Served, Subscription
from fan.transports.database_consumer import Consumer
from fan.transports.database_desk import Desk


class ServiceListener(Listener):
    """Takes the pushes of services."""

    def __init__(self, desk: Desk, address: Address, handler: Handler, timeout: float) -> None:
        desk.open(time.monotonic() + timeout)
        self.address = address
        self._desk = desk
        self._handler = handler
        self._timeout = timeout
        self._lock = threading.Lock()
        self._is_draining = False
        #: By instance: what an App hosts twice is handled by either.
        self._consumers: dict[str, Consumer] = {}
        #: Those whose version lost its route; they may have something in hand.
        self._retired: list[Consumer] = []

    def __repr__(self) -> str:
        state = "draining" if self._is_draining else "open"
        return f"<ServiceListener {self.address.url} {state} {list(self._consumers.values())}>"

    def update(self, served: Sequence[Served]) -> None:
        """Take the pushes of those that are routed. What others have in hand they end."""
        wanted = {one.instance: one for one in served if one.is_routed}
        with self._lock:
            if self._is_draining:
                return
            for id in self._consumers.keys() - wanted.keys():
                consumer = self._consumers.pop(id)
                self._retired.append(consumer)
                self._desk.retire(consumer)
            for id in wanted.keys() - self._consumers.keys():
                queue = str(QueueName(wanted[id].service))
                consumer = Consumer(queue, self._handler, instance=id)
                self._desk.add(consumer, time.monotonic() + self._timeout)
                self._consumers[id] = consumer

    def drain(self) -> None:
        with self._lock:
            self._is_draining = True
            for consumer in self._consumers.values():
                consumer.drain()

    def close(self, timeout: float = 5.0) -> None:
        self.drain()
        deadline = time.monotonic() + timeout
        for consumer in (*self._consumers.values(), *self._retired):
            self._desk.remove(consumer, max(0.0, deadline - time.monotonic()))


class SubscriptionListener(Listener):
    """Takes the events of one subscription."""

    def __init__(
        self,
        desk: Desk,
        address: Address,
        subscription: Subscription,
        handler: Handler,
        timeout: float,
    ) -> None:
        self.address = address
        self._desk = desk
        name = QueueName(topic=subscription.topic, group=subscription.group or f"~{new_id()[:12]}")
        self._consumer = Consumer(
            str(name),
            handler,
            topic=subscription.topic,
            is_lasting=bool(subscription.group),
            service=subscription.service,
            method=subscription.method,
        )
        desk.add(self._consumer, time.monotonic() + timeout)

    def __repr__(self) -> str:
        return f"<SubscriptionListener {self.address.url} {self._consumer!r}>"

    def drain(self) -> None:
        self._consumer.drain()

    def close(self, timeout: float = 5.0) -> None:
        self._desk.remove(self._consumer, timeout)
