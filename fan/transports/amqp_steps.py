"""Things to do with a broker one after the other, written as a generator.

What a generator of steps yields is done on a channel of its own, in the link's thread; it gets back
the broker's answer, or `Refused` raised where it stands. A channel that was closed by a refusal is
opened anew for the next step::

    def steps(desk):
        try:
            yield desk.declare(spec)
        except Refused:
            ...
        return (yield desk.count(spec.name)).method.message_count
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from typing import Any

from pika import BasicProperties
from pika.spec import Basic

from fan.errors import FanError
from fan.transports.amqp_failures import PRECONDITION_FAILED, Lost, Refused, closed, lost
from fan.transports.amqp_link import Link
from fan.transports.amqp_loop import guarded
from fan.transports.amqp_names import DEAD, EVENTS, RPC, Spec
from fan.transports.amqp_part import Part

Step = Callable[[Any, Callable[[Any], None]], object]
Steps = Generator[Step, Any, Any]


class Desk(Part):
    """Runs one generator of steps, then closes its channel. `done` has what the generator returns,
    or the exception that left it."""

    def __init__(self, link: Link, steps: Callable[[Desk], Steps], done: Future[Any]) -> None:
        super().__init__(link)
        self._steps = steps(self)
        self._done = done
        self._next: Step | None = None
        #: The number of the running step: answers to others come too late.
        self._turn = 0
        self._has_begun = False
        self._confirms: dict[int, Callable[[Any], None]] = {}
        #: Whether the message that is being confirmed came back: no queue took it.
        self._is_unroutable = False
        self._published = 0
        self._is_confirmed = False

    def prepare(self, channel: Any) -> None:
        self._confirms.clear()
        self._published, self._is_confirmed = 0, False
        self.channel = channel
        if self._has_begun:
            self._perform()
        else:
            self._has_begun = True
            self._advance(partial(next, self._steps))

    def broken(self, reason: BaseException) -> None:
        code = getattr(reason, "reply_code", 0)
        if isinstance(reason, FanError):
            self._advance(partial(self._steps.throw, Lost(reason.message)))
        else:
            text = str(getattr(reason, "reply_text", reason))
            self._advance(partial(self._steps.throw, Refused(code, text)))

    def refused(self, failure: FanError) -> None:
        self._end(None, failure)

    # The steps.

    def wait(self, seconds: float) -> Step:
        """Let time pass."""
        return lambda channel, go: self.link.later(seconds, partial(go, None))

    def declare(self, spec: Spec) -> Step:
        """Make a queue; the answer is pika's frame."""
        return lambda channel, go: channel.queue_declare(spec.name, callback=go, **spec.options)

    def count(self, name: str) -> Step:
        """Look at a queue; the answer's `method` has `message_count` and `consumer_count`."""
        return lambda channel, go: channel.queue_declare(name, passive=True, callback=go)

    def exchange(self, name: str) -> Step:
        """Make an exchange."""
        return lambda channel, go: channel.exchange_declare(
            name, "direct", durable=True, callback=go
        )

    def bind(self, queue: str, exchange: str, key: str) -> Step:
        """Have an exchange put what comes with a key into a queue."""
        return lambda channel, go: channel.queue_bind(queue, exchange, key, callback=go)

    def unbind(self, queue: str, exchange: str, key: str) -> Step:
        """Have it put nothing more there."""
        return lambda channel, go: channel.queue_unbind(queue, exchange, key, callback=go)

    def purge(self, name: str) -> Step:
        """Empty a queue; the answer's `method` has `message_count`."""
        return lambda channel, go: channel.queue_purge(name, callback=go)

    def delete(self, name: str) -> Step:
        """End a queue, if it is there; the answer's `method` has `message_count`."""
        return lambda channel, go: channel.queue_delete(name, callback=go)

    def get(self, name: str) -> Step:
        """Take the first message of a queue: its method, properties and body, or None."""

        def get(channel: Any, go: Callable[[Any], None]) -> None:
            channel.add_callback(lambda _: go(None), [Basic.GetEmpty])
            channel.basic_get(
                name, guarded(lambda _, method, properties, body: go((method, properties, body)))
            )

        return get

    def publish(self, exchange: str, key: str, properties: BasicProperties, body: bytes) -> Step:
        """Publish, and wait until the broker has it; the answer says whether a queue took it."""

        def publish(channel: Any, go: Callable[[Any], None]) -> None:
            if not self._is_confirmed:
                self._is_confirmed = True
                channel.confirm_delivery(guarded(self._confirmed))
                channel.add_on_return_callback(guarded(self._came_back))
            channel.basic_publish(exchange, key, body, properties, mandatory=True)
            self._published += 1
            self._confirms[self._published] = go

        return publish

    def ack(self, tag: int) -> Step:
        """Take a message out of its queue."""
        return partial(self._no_answer, lambda channel: channel.basic_ack(tag))

    def give_back(self, tag: int, *, many: bool = False) -> Step:
        """Leave a message where it is; `many` leaves all that were taken before it, too."""
        return partial(self._no_answer, lambda channel: channel.basic_nack(tag, many, requeue=True))

    def _no_answer(self, act: Callable[[Any], object], channel: Any, go: Any) -> None:
        act(channel)
        go(None)

    def _came_back(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self._is_unroutable = True

    def _confirmed(self, frame: Any) -> None:
        tag, is_ack = frame.method.delivery_tag, type(frame.method) is Basic.Ack
        many = frame.method.multiple
        for number in [n for n in self._confirms if n == tag or (many and n <= tag)]:
            was_returned, self._is_unroutable = self._is_unroutable, False
            self._confirms.pop(number)(is_ack and not was_returned)

    # How they are run.

    def _advance(self, move: Callable[[], Step]) -> None:
        self._turn += 1
        try:
            self._next = move()
        except StopIteration as stop:
            self._end(stop.value, None)
        except Exception as exc:
            self._end(None, exc)
        else:
            if self.channel is not None:
                self._perform()

    def _perform(self) -> None:
        step, turn = self._next, self._turn
        assert step is not None

        def go(answer: Any) -> None:
            if turn == self._turn:
                self._advance(partial(self._steps.send, answer))

        try:
            step(self.channel, guarded(go))
        except Exception as exc:
            if turn == self._turn:
                self._advance(partial(self._steps.throw, exc))

    def _end(self, value: Any, exc: BaseException | None) -> None:
        self._steps.close()
        self.link.remove(self)
        if isinstance(exc, Lost):
            exc = lost(self.link.url, exc)
        with suppress(InvalidStateError):
            if exc is not None:
                self._done.set_exception(exc)
            else:
                self._done.set_result(value)


def run(link: Link, steps: Callable[[Desk], Steps]) -> Future[Any]:
    """Do them as soon as the link is up; from any thread."""
    done: Future[Any] = Future()

    def begin() -> None:
        if link.state == "closed":
            with suppress(InvalidStateError):
                done.set_exception(closed())
            return
        link.add(Desk(link, steps, done))

    link.do(begin)
    return done


def make(desk: Desk, spec: Spec) -> Steps:
    """Make a queue, its exchange and its binding, and the queue of its dead. A queue that is there
    with other arguments (made with another number of deliveries, say) is taken as it is."""
    yield desk.exchange(DEAD)
    if spec.dead:
        yield from _declare(desk, Spec(spec.dead))
        yield desk.bind(spec.dead, DEAD, spec.dead)
    yield from _declare(desk, spec)
    if spec.exchange in (RPC, EVENTS):
        yield desk.exchange(spec.exchange)
    for key in spec.keys:
        yield desk.bind(spec.name, spec.exchange, key)


def _declare(desk: Desk, spec: Spec) -> Steps:
    try:
        yield desk.declare(spec)
    except Refused as exc:
        if exc.code != PRECONDITION_FAILED:
            raise
        yield desk.count(spec.name)


def shut(desk: Desk, spec: Spec, is_shut: bool) -> Steps:
    """Let nothing more into a queue that nobody else consumes. Returns the number of its consumers,
    and of the messages that wait there."""
    counted = yield desk.count(spec.name)
    if counted.method.consumer_count == 1 and not is_shut:
        for key in spec.keys:
            yield desk.unbind(spec.name, spec.exchange, key)
        counted = yield desk.count(spec.name)
        if counted.method.consumer_count > 1:  # who came meanwhile may have bound it before
            for key in spec.keys:
                yield desk.bind(spec.name, spec.exchange, key)
    return counted.method.consumer_count, counted.method.message_count
