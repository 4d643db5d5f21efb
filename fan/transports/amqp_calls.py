"""The caller's side: calls that are published, and the replies that come straight back.

Replies come by RabbitMQ's direct reply-to (https://www.rabbitmq.com/docs/direct-reply-to): no reply
queue is made; the channel consumes a pseudo-queue before it publishes, and each message says where
its reply goes. Everything is published as mandatory and confirmed, so that a queue that is not
there, or does not take a message, is known in a millisecond.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from pika.spec import Basic

from fan.errors import FanError, Internal
from fan.transports.amqp_failures import (
    ACCESS_REFUSED,
    closed,
    lost,
    nacked,
    too_large,
    unroutable,
    unsendable,
)
from fan.transports.amqp_link import Link
from fan.transports.amqp_loop import guarded
from fan.transports.amqp_names import RPC
from fan.transports.amqp_part import Part
from fan.transports.amqp_pending import Clock, Pending
from fan.transports.amqp_watch import HELD, Watch
from fan.transports.amqp_wire import response_of

REPLY_TO = "amq.rabbitmq.reply-to"


class Calls(Part):
    """Publishes calls and gives each its reply."""

    def __init__(self, link: Link, clock: Clock, max_body: int) -> None:
        super().__init__(link)
        self._clock = clock
        self._max_body = max_body
        #: Sent and not answered, by correlation id.
        self.pending: dict[str, Pending] = {}
        #: Not yet sent.
        self._waiting: deque[Pending] = deque()
        #: Published and not yet confirmed, by their numbers on the channel.
        self._unconfirmed: dict[int, Pending] = {}
        self._published = 0
        self._may_declare = True
        self._watch = Watch(link, lambda: list(self.pending.values()), self._ask)
        self._is_added = False

    def submit(self, pending: Pending) -> None:
        """Send it as soon as the broker can be reached; in the link's thread."""
        self._clock.watch(pending)
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
        channel.confirm_delivery(guarded(self._confirmed))
        if self._may_declare:
            channel.exchange_declare(RPC, "direct", durable=True)
        channel.basic_consume(
            REPLY_TO, guarded(self._replied), auto_ack=True, callback=guarded(self._consuming)
        )

    def _consuming(self, frame: Any) -> None:
        if frame.channel_number == getattr(self._opening, "channel_number", 0):
            self.ready()

    def flush(self) -> None:
        while self._waiting and self.channel is not None and not self.link.is_blocked:
            self._publish(self._waiting.popleft())

    def broken(self, reason: BaseException) -> None:
        if getattr(reason, "reply_code", 0) == ACCESS_REFUSED:
            self._may_declare = False  # somebody else has to
        sent, self.pending = self.pending, {}
        self._unconfirmed.clear()
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
        left = int((pending.deadline - self._clock.now()) * 1000)
        if left <= 0:
            return  # the clock says so
        properties = pending.properties
        properties.expiration = str(left)
        if properties.correlation_id in self.pending:  # the caller's id is not unique here
            properties.correlation_id = f"{pending.id}.{self._published}"
        marks = pending.marks
        if marks is not None:
            marks["connected"] = self._clock.now()
        try:
            self.channel.basic_publish(
                pending.exchange, pending.key, pending.body, properties, mandatory=True
            )
        except Exception as exc:
            pending.fail(unsendable(exc))
            return
        self._published += 1
        self._unconfirmed[self._published] = pending
        pending.put_on(self.pending, properties.correlation_id)
        pending.was_sent, pending.sent_at = True, self._clock.now()
        self._watch.begin()
        if marks is not None:
            marks["sent"] = pending.sent_at
        pending.properties, pending.body = None, b""

    def _ask(self, exchange: str, key: str, properties: Any, body: bytes) -> None:
        if self.channel is not None and not self.link.is_blocked:
            self.channel.basic_publish(exchange, key, body, properties, mandatory=True)
            self._published += 1

    def _replied(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        pending = self.pending.pop(properties.correlation_id, None)
        if pending is None:
            if properties.type == HELD:
                self._watch.answered(properties, body)
            return  # or it came too late
        if len(body) > self._max_body:
            pending.fail(too_large("the reply", len(body), self._max_body, "yes"))
            return
        try:
            response = response_of(properties, body, pending.id)
        except Exception as exc:
            pending.fail(
                Internal(
                    f"{self.link.url} brought what is no reply: {exc}",
                    reason="malformed_reply",
                    executed="maybe",
                )
            )
            return
        pending.answer(response)

    def _returned(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        pending = self.pending.pop(properties.correlation_id, None)
        if pending is not None:
            pending.fail(unroutable(f"calls of {pending.key}", self.link.url))
        else:
            self._watch.unroutable(properties.correlation_id or "")

    def _confirmed(self, frame: Any) -> None:
        method = frame.method
        if not method.multiple:
            numbers = [method.delivery_tag]
        else:
            numbers = [n for n in self._unconfirmed if n <= method.delivery_tag]
        for number in numbers:
            pending = self._unconfirmed.pop(number, None)
            if pending is not None and type(method) is Basic.Nack:
                pending.take_off()
                pending.fail(nacked(self.link.url))
