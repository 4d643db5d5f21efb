"""Pushes and events on their way into a queue, and what is sent on from one queue to another.

Everything is published persistent, mandatory and confirmed: who pushed is told once a queue that
survives the broker has the message.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from pika.spec import Basic

from fan.errors import FanError
from fan.message import Response
from fan.transports.amqp_failures import closed, lost, nacked, unroutable, unsendable
from fan.transports.amqp_layout import Layout
from fan.transports.amqp_link import Link
from fan.transports.amqp_loop import guarded
from fan.transports.amqp_names import EVENTS
from fan.transports.amqp_part import Part
from fan.transports.amqp_pending import Clock, Pending

#: Hears what became of a message that was sent on.
Sent = Callable[[BaseException | None], None]


class Posts(Part):
    """Publishes, and completes each future when the broker has the message."""

    def __init__(self, link: Link, clock: Clock, layout: Layout) -> None:
        super().__init__(link)
        self._clock = clock
        self._layout = layout
        self._waiting: deque[Pending] = deque()
        #: Published and not yet confirmed, by their numbers on the channel, in order.
        self._unconfirmed: dict[int, Pending] = {}
        self._published = 0
        self._is_added = False

    def submit(self, pending: Pending, needs: Any = None) -> None:
        """Publish it, once what it `needs` (a Spec, or the name of an exchange) is there; in the
        link's thread."""
        self._clock.watch(pending)
        if needs is None or self._layout.has(needs):
            self._enqueue(pending)
        elif self.link.state == "closed":
            pending.fail(closed())
        else:
            self._layout.make(needs, partial(self._made, pending))

    def send_on(self, exchange: str, key: str, properties: Any, body: bytes, done: Sent) -> None:
        """Publish a message that was taken from a queue; `done` hears what kept a queue from having
        it, None where one has it."""
        pending = Pending(properties.message_id or "", 30_000)
        pending.aim(exchange, key, properties, body)
        pending.add_done_callback(lambda sent: done(sent.exception()))
        self.submit(pending)

    def _made(self, pending: Pending, failure: FanError | None) -> None:
        if failure is not None:
            pending.lose(failure)
        else:
            self._enqueue(pending)

    def _enqueue(self, pending: Pending) -> None:
        if self.channel is not None and not self.link.is_blocked:
            self._publish(pending)
            return
        self._waiting.append(pending)
        if not self._is_added:
            self._is_added = True
            self.link.add(self)
        elif self.link.state == "closed":
            self.refused(closed())
        else:
            self.link.want()

    def prepare(self, channel: Any) -> None:
        self._published = 0
        channel.add_on_return_callback(guarded(self._returned))
        channel.confirm_delivery(guarded(self._confirmed), callback=guarded(self._selected))

    def _selected(self, frame: Any) -> None:
        if frame.channel_number == getattr(self._opening, "channel_number", 0):
            self.ready()

    def flush(self) -> None:
        while self._waiting and self.channel is not None and not self.link.is_blocked:
            self._publish(self._waiting.popleft())

    def broken(self, reason: BaseException) -> None:
        sent, self._unconfirmed = self._unconfirmed, {}
        self._layout.forget()
        for pending in sent.values():
            pending.lose(lost(self.link.url, reason))

    def refused(self, failure: FanError) -> None:
        waiting, self._waiting = self._waiting, deque()
        for pending in waiting:
            pending.lose(failure)

    def lost(self, failure: FanError) -> None:
        super().lost(failure)
        if self.link.state == "closed":
            self.refused(failure)
        elif self._waiting:
            self.link.later(0, self.link.want)

    def _publish(self, pending: Pending) -> None:
        if pending.done():
            return
        marks = pending.marks
        if marks is not None:
            marks["connected"] = self._clock.now()
        try:
            self.channel.basic_publish(
                pending.exchange, pending.key, pending.body, pending.properties, mandatory=True
            )
        except Exception as exc:
            pending.fail(unsendable(exc))
            return
        self._published += 1
        self._unconfirmed[self._published] = pending
        pending.was_sent = True
        if marks is not None:
            marks["sent"] = self._clock.now()

    def _returned(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        # A message comes back before it is confirmed, and those that do come in order.
        for pending in self._unconfirmed.values():
            if pending.id == (properties.message_id or "") and not pending.done():
                if pending.exchange == EVENTS:
                    pending.answer(Response(id=pending.id, executed="no", details={"groups": 0}))
                else:
                    self._layout.lose()  # somebody deleted the queue: the next one makes it anew
                    pending.fail(unroutable(f"pushes of {pending.key}", self.link.url))
                return

    def _confirmed(self, frame: Any) -> None:
        method = frame.method
        if not method.multiple:
            numbers = [method.delivery_tag]
        else:
            numbers = [n for n in self._unconfirmed if n <= method.delivery_tag]
        for number in numbers:
            pending = self._unconfirmed.pop(number, None)
            if pending is None:
                continue
            if type(method) is Basic.Nack:
                pending.fail(nacked(self.link.url))
            else:
                pending.answer(Response(id=pending.id, executed="maybe"))
