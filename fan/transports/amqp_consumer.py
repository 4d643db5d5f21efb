"""One queue that is consumed, on a channel of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from typing import Any

from fan.errors import FanError
from fan.transports.amqp_acks import Acks
from fan.transports.amqp_failures import NOT_FOUND, Refused, refused
from fan.transports.amqp_link import Link
from fan.transports.amqp_loop import guarded
from fan.transports.amqp_names import Spec
from fan.transports.amqp_part import DELAY, MAX_DELAY, REST, Part
from fan.transports.amqp_steps import make, run


class Delivery:
    """A message in hand. What is said of it goes over the channel that it came by, or nowhere: once
    that is closed the broker has given the message to somebody else."""

    __slots__ = ("_acks", "_tag", "body", "is_redelivered", "is_settled", "properties")

    def __init__(self, acks: Acks, method: Any, properties: Any, body: bytes) -> None:
        self._acks = acks
        self._tag = method.delivery_tag
        self.is_redelivered: bool = method.redelivered
        self.properties = properties
        self.body = body
        self.is_settled = False

    @property
    def is_ours(self) -> bool:
        """Whether the broker still counts it as in hand here."""
        return not self.is_settled and self._acks.is_open

    def ack(self) -> None:
        """It is done with."""
        if self.is_ours:
            self.is_settled = True
            self._acks.ack(self._tag)

    def give_back(self) -> None:
        """Have it delivered again, which counts as a delivery."""
        if self.is_ours:
            self.is_settled = True
            self._acks.give_back(self._tag)


class Consumer(Part):
    """Takes from a queue, and goes on doing so when the connection, the channel or the queue was
    lost. `take` gets each delivery, in the link's thread. `spec` is asked anew each time."""

    is_lasting = True

    def __init__(
        self, link: Link, spec: Callable[[], Spec], prefetch: int, take: Callable[[Delivery], None]
    ) -> None:
        super().__init__(link)
        self._spec = spec
        self._prefetch = prefetch
        self._take = take
        self._tag = ""
        self._current = Spec("")
        self._is_stopping = self._is_stopped = False
        #: Who wants to know that nothing more comes.
        self._asked: list[Callable[[], None]] = []
        #: The queue that is consumed.
        self.queue = ""
        #: Done once it consumes, or could not for the first time.
        self.opened: Future[None] = Future()

    def __repr__(self) -> str:
        return f"<Consumer {self.queue or 'of nothing'} {'open' if self.channel else 'closed'}>"

    @property
    def has_stopped(self) -> bool:
        """Whether nothing more comes, after `stop`."""
        return self._has_left or self._is_stopped

    def stop(self, done: Callable[[], None]) -> None:
        """Take nothing new; `done` is called once nothing more comes. What is in hand can still be
        settled until the part leaves. What a quorum queue is about to give it in this moment the
        broker takes back by itself, and counts as delivered."""
        self._tell(None)
        if self._opening is None:
            self._has_left = True
        if self.has_stopped:
            done()
            return
        self._asked.append(done)
        if self._is_stopping:
            return
        self._is_stopping = True
        # One that is about to consume is stopped on its way, or once it does; one whose channel is
        # closing once that is closed.
        if self.channel is not None and self.channel.is_open:
            self._cancel()

    def _cancel(self) -> None:
        self.channel.basic_cancel(self._tag, callback=guarded(lambda _: self._stopped()))
        # pika rejects what still comes, and a rejected call counts as one that may have run.
        self.channel._cancelled.discard(self._tag)

    def _stopped(self) -> None:
        self._is_stopped = True
        asked, self._asked = self._asked, []
        for done in asked:
            done()

    def prepare(self, channel: Any) -> None:
        if self._is_stopping:
            self._stopped()
            return
        spec = self._current = self._spec()
        self.queue = spec.name
        made = run(self.link, partial(make, spec=spec))
        made.add_done_callback(lambda made: self._made(channel, made))

    def _made(self, channel: Any, made: Future[None]) -> None:
        if channel is not self._opening or not channel.is_open or self._has_left:
            return
        # A queue that goes with its last consumer is there for good if it never has one.
        if self._is_stopping and not self._current.is_auto_delete:
            self._stopped()
            return
        exc = made.exception()
        if exc is not None:
            self._explain(exc)
            self._delay = max(self._delay, DELAY)
            channel.close()  # and once more, after a while
            return
        channel.add_on_cancel_callback(guarded(lambda _: self._cancelled(channel)))
        channel.basic_qos(prefetch_count=self._prefetch)
        self._tag = channel.basic_consume(
            self.queue,
            guarded(partial(self._delivered, Acks(channel, self.link.at_end))),
            callback=guarded(lambda _: self._consuming(channel)),
        )

    def leave(self) -> None:
        self.link.end_turn()  # what is done with is told of first: over a closed channel it is not
        super().leave()

    def _explain(self, exc: BaseException) -> None:
        """Tell why the queue cannot be made, unless it was only left by its last consumer in that
        moment, and gone with it."""
        if isinstance(exc, Refused):
            if exc.code == NOT_FOUND:
                return
            exc = refused(self.link.url, f"to make {self.queue}", exc)
        self._tell(exc)

    def _consuming(self, channel: Any) -> None:
        if channel is not self._opening:
            return
        # Whoever was the last to leave a queue takes its binding away first, and looks once more
        # for others; so it is bound once more by who is known to be there.
        spec = self._current
        for key in spec.keys:
            channel.queue_bind(spec.name, spec.exchange, key)
        self.ready()
        self._tell(None)
        if self._is_stopping:  # it was to stop before it was known to consume
            self._cancel()

    def _cancelled(self, channel: Any) -> None:
        """Somebody deleted the queue."""
        if channel.is_open:
            self._delay = max(self._delay, REST)
            channel.close()

    def _delivered(
        self, acks: Acks, channel: Any, method: Any, properties: Any, body: bytes
    ) -> None:
        acks.came(method.delivery_tag)
        self._take(Delivery(acks, method, properties, body))

    def broken(self, reason: BaseException) -> None:
        if self.link.state == "closed":  # it never consumes: nobody is to wait for it
            self._tell(reason)
        if self._is_stopping:
            self._has_left = True
            self._stopped()

    def refused(self, failure: FanError) -> None:
        self._tell(failure)
        if self.link.state == "closed":
            self.broken(failure)

    def _tell(self, exc: BaseException | None) -> None:
        with suppress(InvalidStateError):
            if exc is None:
                self.opened.set_result(None)
            else:
                self.opened.set_exception(exc)

    def _closed(self, channel: Any, reason: BaseException) -> None:
        super()._closed(channel, reason)
        self._delay = min(MAX_DELAY, max(self._delay, DELAY))
