"""Finds out that a call will never be answered, because whoever took it is gone.

A call is acknowledged before it runs, so its queue knows nothing of it while it does. Callers
therefore ask after calls that take long: whoever serves them says which it has in hand, over a
queue that goes with its connection. A call that nobody has in hand, and that does not wait in its
queue either, is lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from typing import Any

import msgspec
from pika import BasicProperties

from fan.transports.amqp_consumer import Delivery
from fan.transports.amqp_failures import NOT_FOUND, Refused, lost
from fan.transports.amqp_link import Link
from fan.transports.amqp_names import RPC, ask_key
from fan.transports.amqp_pending import Pending
from fan.transports.amqp_steps import Desk, Steps, run

#: Seconds between two rounds of questions; what is younger is not asked after.
ROUND = 1.0
#: Rounds without a sign of a call until it is looked for in its queue: where nobody serves it at
#: all, and where somebody might only be slow to answer.
ABSENT, SILENT = 2, 3
#: `type` of a question and of its answer; the body is a JSON array of correlation ids.
ASK, HELD = "ask", "held"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[str]).decode


class Watch:
    """The caller's side, in the link's thread. `publish` sends a question over the channel that
    replies come to."""

    def __init__(
        self,
        link: Link,
        pending: Callable[[], Iterable[Pending]],
        publish: Callable[[str, str, BasicProperties, bytes], None],
    ) -> None:
        self._link = link
        self._pending = pending
        self._publish = publish
        self._timer: Any = None
        self._number = 0
        #: Questions of this round, by correlation id.
        self._asked: dict[str, list[Pending]] = {}

    def begin(self) -> None:
        """See to what is pending, from the next round on."""
        if self._timer is None:
            self._timer = self._link.later(ROUND, self._round)

    def answered(self, properties: BasicProperties, body: bytes) -> None:
        """Take the answer of one who serves."""
        asked = self._asked.get(properties.correlation_id, [])
        try:
            held = frozenset(_decode(body))
        except ValueError:
            return
        for pending in asked:
            if pending.correlation in held:
                pending.rounds = 0

    def unroutable(self, correlation: str) -> None:
        """Nobody serves what a question was about."""
        for pending in self._asked.get(correlation, []):
            pending.is_absent = True

    def _round(self) -> None:
        self._timer = None
        self._asked.clear()
        now = time.monotonic()
        by_key: dict[str, list[Pending]] = {}
        suspects: dict[str, list[Pending]] = {}
        is_needed = False
        for pending in self._pending():
            is_needed = True
            if now - pending.sent_at < ROUND or pending.done():
                continue
            if pending.rounds >= (ABSENT if pending.is_absent else SILENT):
                suspects.setdefault(pending.key, []).append(pending)
            pending.rounds += 1
            pending.is_absent = False
            by_key.setdefault(pending.key, []).append(pending)
        for key, asked in by_key.items():
            self._ask(key, asked)
        for key, some in suspects.items():
            queue = f"fan.call.{key}" if some[0].exchange else key
            run(self._link, partial(_is_waiting, queue=queue)).add_done_callback(
                partial(self._looked, some)
            )
        if is_needed:
            self.begin()

    def _ask(self, key: str, asked: list[Pending]) -> None:
        self._number += 1
        correlation = f"?{self._number}"
        self._asked[correlation] = asked
        properties = BasicProperties(
            type=ASK, correlation_id=correlation, message_id=correlation,
            reply_to="amq.rabbitmq.reply-to", expiration=str(int(ROUND * 1000)),
        )  # fmt: skip
        body = _encode([pending.correlation for pending in asked])
        self._publish(RPC, ask_key(key), properties, body)

    def _looked(self, suspects: list[Pending], looked: Future[bool]) -> None:
        if looked.exception() is not None or looked.result():
            return
        for pending in suspects:
            if pending.rounds > 1 and not pending.done():  # nobody has claimed it meanwhile
                pending.take_off()
                pending.fail(lost(self._link.url, "whoever took the call is gone"))


def _is_waiting(desk: Desk, queue: str) -> Steps:
    """Whether calls wait in a queue. Of another one's exclusive queue nobody is told."""
    try:
        counted = yield desk.count(queue)
    except Refused as exc:
        return exc.code != NOT_FOUND
    return counted.method.message_count > 0


def answer(delivery: Delivery, in_hand: Iterable[str | None], send: Callable[..., None]) -> None:
    """The server's side: say which of the calls that a question is about are in hand here."""
    properties = delivery.properties
    delivery.ack()
    if properties.type != ASK or not properties.reply_to:
        return
    try:
        asked = _decode(delivery.body)
    except ValueError:
        return
    held = frozenset(in_hand).intersection(asked)
    said = BasicProperties(type=HELD, correlation_id=properties.correlation_id)
    send(properties.reply_to, said, _encode(sorted(held)))
