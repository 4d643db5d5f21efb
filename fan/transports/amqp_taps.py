"""What stands behind one consumed queue: deliveries become jobs, jobs go to the workers, and a
drain gives back what was not begun."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from fan.errors import FanError, Unavailable
from fan.message import Request
from fan.transports.amqp_consumer import Consumer, Delivery
from fan.transports.amqp_deliveries import PostJob, Tray
from fan.transports.amqp_link import FAREWELL
from fan.transports.amqp_names import Spec
from fan.transports.amqp_replies import CallJob, taken_before
from fan.transports.amqp_steps import run, shut
from fan.transports.amqp_watch import answer
from fan.transports.amqp_wire import copy_of
from fan.transports.base import Handler, Served

if TYPE_CHECKING:
    from fan.transports.amqp_broker import Broker

#: Seconds between two looks at a queue that is about to be left.
_LOOK = 0.01
#: Seconds in which nothing comes after which a queue is consumed anew: at first, and doubled each
#: time up to the second.
_IDLE, _MAX_IDLE = 5.0, 60.0


class Tap:
    """One consumed queue. All but `opened` and `finished` belongs to the link's thread."""

    def __init__(self, broker: Broker, spec: Callable[[], Spec]) -> None:
        self._broker = broker
        self._link = broker.link
        self._spec = spec
        self._consumer = self._new_consumer()
        #: What came and was not over yet.
        self._flying = 0
        self.is_draining = False
        self._has_stopped = False
        #: Done once the queue is consumed, or could not be at first.
        self.opened: Future[None] = self._consumer.opened
        #: Done once it is drained and nothing is in hand.
        self.finished: Future[None] = Future()
        #: Done once it is closed.
        self.left: Future[None] = Future()
        self._is_leaving = False
        #: When the broker was last asked for something that `close` waits for.
        self._asked_at = 0.0

    def _new_consumer(self) -> Consumer:
        return Consumer(self._link, self._spec, self._broker.slots, self._take)

    def open(self) -> None:
        """Begin to consume."""
        self._link.add(self._consumer)

    def drain(self) -> None:
        """Take nothing new, give back what was not begun."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave; what a handler has in hand goes back to its queue. What is on its way to others
        gets there first: it would go back, too, and count as delivered. A broker that does not
        answer is waited for from when it was asked, so those that drain together wait together."""
        if self._is_leaving:
            return
        self._is_leaving = True
        left = self._waits_since() + FAREWELL - time.monotonic()
        is_over = self._is_clear() or left <= 0
        if is_over or self._link.later(left, self._leave_queue) is None:
            self._leave_queue()

    def _waits_since(self) -> float:
        return self._asked_at

    def _is_clear(self) -> bool:
        """Whether nothing more comes, and nothing is in hand but what handlers have."""
        return self._has_stopped

    def _leave_queue(self) -> None:
        self._link.remove(self._consumer)
        self._has_stopped = True
        self._finish()
        with suppress(InvalidStateError):
            self.left.set_result(None)

    def _take(self, delivery: Delivery) -> None:
        raise NotImplementedError

    def over(self) -> None:
        """One of those in hand is done with."""
        self._flying -= 1
        self._look_round()

    def _stopped(self) -> None:
        self._has_stopped = True
        self._look_round()

    def _look_round(self) -> None:
        if self._has_stopped and self._flying <= 0:
            self._finish()
        if self._is_leaving and not self.left.done() and self._is_clear():
            self._leave_queue()

    def _finish(self) -> None:
        with suppress(InvalidStateError):
            self.finished.set_result(None)


class CallTap(Tap):
    """Calls: of a version, of whichever version is routed, or of one instance."""

    def __init__(
        self, broker: Broker, spec: Callable[[], Spec], served: Served, handler: Handler
    ) -> None:
        super().__init__(broker, spec)
        #: Whom it is handled by; may change.
        self.served = served
        self._handler = handler
        self._held: list[CallJob] = []
        #: Those that are on their way to the others.
        self._moving = 0
        #: Whether it is settled that others take what is held, or that nobody does.
        self._others: bool | None = None

    def drain(self) -> None:
        if self.is_draining:
            return
        self.is_draining = True
        self._held += self._broker.callers.withdraw(self._is_mine)  # type: ignore[arg-type]
        self._look()

    def _take(self, delivery: Delivery) -> None:
        self._flying += 1
        broker = self._broker
        broker.in_hand.add(delivery.properties.correlation_id)
        job = CallJob(
            delivery, self.served, self._handler, broker.replies, broker.max_body, self._job_over
        )
        if not self.is_draining:
            self._broker.callers.offer(job)
            return
        self._held.append(job)
        if self._others is not None:
            self._let_go()

    def _is_clear(self) -> bool:
        return self._has_stopped and not self._moving

    def _leave_queue(self) -> None:
        self._others = False
        self._let_go()
        super()._leave_queue()

    def _job_over(self, job: CallJob) -> None:
        self._broker.in_hand.discard(job.delivery.properties.correlation_id)
        self.over()

    def _is_mine(self, job: Any) -> bool:
        return bool(job.over == self._job_over)

    def _look(self) -> None:
        """The queue goes with its last consumer, and with it the calls that wait there. So whoever
        is the last lets nothing more come in and refuses what is there, before it leaves."""
        if self._consumer.channel is None:
            self._leave(False)
        else:
            self._asked_at = time.monotonic()
            steps = partial(shut, spec=self._spec(), is_shut=self._others is False)
            run(self._link, steps).add_done_callback(self._seen)

    def _seen(self, looked: Future[tuple[int, int]]) -> None:
        consumers, messages = (1, 0) if looked.exception() is not None else looked.result()
        if consumers > 1 or not messages:
            self._leave(consumers > 1)
        else:
            self._others = False
            self._let_go()
            if self._link.later(_LOOK, self._look) is None:
                self._leave(False)

    def _leave(self, others: bool) -> None:
        self._others = others
        self._asked_at = time.monotonic()
        self._let_go()
        self._consumer.stop(self._stopped)

    def _let_go(self) -> None:
        held, self._held = self._held, []
        for job in held:
            if job.delivery.is_redelivered or not job.delivery.is_ours:  # others had it, or have it
                job.refuse(taken_before())
            elif self._others:
                self._pass_on(job)
            else:
                job.refuse(self._draining())

    def _draining(self) -> Unavailable:
        return Unavailable(f"{self.served.service} is draining", reason="draining")

    def _pass_on(self, job: CallJob) -> None:
        """Give a call to the others. Given back, it would count as one that may have run."""
        delivery = job.delivery
        copied = copy_of(delivery.properties, self._link.place.user)

        def sent(failure: BaseException | None) -> None:
            self._moving -= 1
            if failure is None:
                delivery.ack()
                self._job_over(job)
            elif isinstance(failure, FanError) and failure.executed == "no" and delivery.is_ours:
                job.refuse(self._draining())
            else:
                unsure = "the call was given to others: they may have it"
                job.refuse(Unavailable(unsure, reason="connection_lost"))

        self._moving += 1
        self._asked_at = time.monotonic()
        self._broker.posts.send_on("", self._consumer.queue, copied, delivery.body, sent)


class QuestionTap(Tap):
    """What callers want to know of calls that take long."""

    def drain(self) -> None:
        """It answers as long as calls are in hand: until it is closed."""
        self._finish()

    def _is_clear(self) -> bool:
        return True

    def _take(self, delivery: Delivery) -> None:
        answer(delivery, self._broker.in_hand, self._broker.replies.send)


class PostTap(Tap):
    """Pushes of a service, or events of a topic.

    Where a quorum queue was deleted and somebody makes another of its name in that moment, RabbitMQ
    lets the channels of its consumers consume that one, does not tell them, and passes no message
    on to them. Nothing that a client can ask for shows it. So a queue that nothing came from for a
    while is consumed anew, on another channel; what was kept back comes by that one.
    """

    def __init__(
        self,
        broker: Broker,
        spec: Callable[[], Spec],
        aim: Callable[[Request], Request],
        handler: Handler,
        *,
        is_lasting: bool = True,
    ) -> None:
        super().__init__(broker, spec)
        self._tray = Tray(
            broker.posts, handler, aim, broker.deliveries, broker.max_body, self.over,
            is_lasting=is_lasting,
        )  # fmt: skip
        self._tray.offer = broker.handlers.offer
        self._tray.lend = broker.handlers.lend
        #: What came since the last look, and the seconds until the next one.
        self._came = 0
        self._idle = _IDLE
        self._timer: Any = None
        #: The consumers in whose place others were put, until nothing is in hand.
        self._former: list[Consumer] = []

    def open(self) -> None:
        super().open()
        if self._tray.is_lasting:
            self._timer = self._link.later(self._idle, self._look)

    def _look(self) -> None:
        if self.is_draining:
            return
        was_idle = not (self._came or self._flying or self._consumer.channel is None)
        self._came = 0
        self._idle = min(_MAX_IDLE, 2 * self._idle) if was_idle else _IDLE
        if was_idle:
            self._renew()
        self._timer = self._link.later(self._idle, self._look)

    def _renew(self) -> None:
        """Put another consumer in the place of this one, which goes once that one consumes."""
        former = self._consumer
        self._former.append(former)
        self._consumer = self._new_consumer()
        self._link.add(self._consumer)
        self._consumer.opened.add_done_callback(lambda _: former.stop(self._leave_former))

    def _leave_former(self) -> None:
        if self._flying <= 0:
            for former in self._former:
                if former.has_stopped:
                    self._link.remove(former)
            self._former = [former for former in self._former if not former.has_stopped]

    def over(self) -> None:
        super().over()
        if self._former:
            self._leave_former()

    def _is_clear(self) -> bool:
        return self._has_stopped and not self._tray.moving

    def _waits_since(self) -> float:
        return max(self._asked_at, self._tray.moved_at)

    def _leave_queue(self) -> None:
        self._link.forget(self._timer)
        for former in self._former:
            self._link.remove(former)
        super()._leave_queue()

    def drain(self) -> None:
        if self.is_draining:
            return
        self.is_draining = True
        self._asked_at = time.monotonic()
        for consumer in (*self._former, self._consumer):
            consumer.stop(self._one_stopped)
        self._tray.drain()  # now: what goes back before would come here once more
        for job in self._broker.handlers.withdraw(self._is_mine):
            assert isinstance(job, PostJob)
            job.pass_on()

    def _one_stopped(self) -> None:
        if all(one.has_stopped for one in (*self._former, self._consumer)):
            self._stopped()

    def _take(self, delivery: Delivery) -> None:
        self._flying += 1
        self._came += 1
        self._tray.queue = self._consumer.queue
        job = PostJob(delivery, self._tray)
        if self.is_draining:
            job.pass_on()
        else:
            self._broker.handlers.offer(job)

    def _is_mine(self, job: Any) -> bool:
        return job.tray is self._tray
