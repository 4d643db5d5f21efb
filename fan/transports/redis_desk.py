"""What becomes of a message: its handler runs, and the outcome is an answer, an acknowledgement,
another delivery, or a dead letter."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol

from fan.errors import FanError, Internal, Unavailable, Unimplemented
from fan.message import Request, Response
from fan.transports.base import Handler, Stream, is_refusal
from fan.transports.redis_crew import Crew, Job
from fan.transports.redis_failures import answer, draining, forsaken, too_large
from fan.transports.redis_fields import encode_reply, fields_of
from fan.transports.redis_keys import Source
from fan.transports.redis_lane import Lane
from fan.transports.redis_loop import Loop
from fan.transports.redis_message import Message
from fan.transports.redis_outbox import Letter, Outbox
from fan.transports.redis_settle import Settler

#: With so few messages in hand an answer goes by itself.
_FEW = 2
#: Seconds after which what came together is looked at: more threads may be wanted, and answers wait
#: for those that are about to come.
MOMENT = 0.001


class Names(Protocol):
    """What the desk asks its listener about a source."""

    def ours(self, source: Source) -> dict[str, Any]:
        """The fields of a request that we know better: version and instance that are meant, or
        service and method of a subscription."""

    def is_idempotent(self, source: Source, method: str) -> bool:
        """Whether a call of a method may run twice."""


class Desk:
    """Handles the messages of one lane in the threads of its crew."""

    def __init__(
        self,
        handler: Handler,
        names: Names,
        loop: Loop,
        outbox: Outbox,
        settler: Settler,
        *,
        workers: int,
        deliveries: int,
        max_body: int,
    ) -> None:
        self.lane: Lane
        self.crew = Crew(workers, "fan-redis-worker")
        self._handler = handler
        self._names = names
        self._loop = loop
        self._outbox = outbox
        self._settler = settler
        self._deliveries = deliveries
        self._max_body = max_body
        #: Whether nothing is begun any more.
        self.is_closing = False
        #: Whether `_look` is about to come.
        self._is_watched = False

    def __repr__(self) -> str:
        return f"<Desk {self.crew!r}>"

    # In the loop's thread

    def read(self, message: Message) -> bool:
        """Find the request in a message. Whether it has to be acknowledged before it is handled."""
        source = message.source
        message.read(self._max_body, **self._names.ours(source))
        if source.kind != "call" or message.deliveries > 1:
            return False
        request = message.request
        return request is None or not self._names.is_idempotent(source, request.method)

    def begin(self, messages: list[Message]) -> None:
        """Have them handled, in this order."""
        now = time.time()
        jobs: list[Job] = []
        for message in messages:
            if self._is_handled(message, now):
                jobs.append(partial(self._handle, message))
            else:
                self.lane.rest()
        if jobs:
            is_alone = len(jobs) == 1 and not self.crew.is_busy
            self.crew.put(jobs)
            if not is_alone:
                self._watch()

    def doubt(self, messages: list[Message]) -> None:
        """Nobody knows whether they were acknowledged: their callers are told so."""
        for message in messages:
            message.is_taken = True
            request = message.request
            if request is not None:
                self._refuse(message, forsaken(self._settler.where, request.service))
            self.lane.settled(message)
            self.lane.rest()

    def give_back(self, *, calls: bool = False) -> None:
        """What no thread has begun is for others. With `calls` those of calls are told so, too: by
        default calls run that were acknowledged, since no queue has them any more."""
        kept: list[Job] = []
        for job in self.crew.take_back():
            message = job.args[0]  # type: ignore[attr-defined]
            if message.source.kind == "call" and not calls:
                kept.append(job)
                continue
            self.lane.rest()
            if message.is_taken:
                self._refuse(message, draining(message.source.service))
            self._return(message)
        if kept:
            self.crew.put(kept)
            self._watch()
        self.give_back_spare()

    def give_back_spare(self) -> None:
        """What came and has no place is for others: whoever keeps ours may do so for long."""
        for message in self.lane.take_back():
            self._return(message)

    def give_up(self) -> None:
        """What has been begun and did not end is for others too; its end counts for nothing."""
        self.give_back(calls=True)
        for message in [*self.lane.in_hand.values()]:
            self._return(message)

    def refuse(self, source: Source, waiting: list[list[bytes]]) -> None:
        """Tell the callers of calls that nobody took that their service is about to stop."""
        for flat in waiting:
            message = Message(source, b"", fields_of(flat), 1)
            message.read(self._max_body)
            if message.request is not None:
                self._refuse(message, draining(source.service))

    def _watch(self) -> None:
        """Look in a moment."""
        if not self._is_watched:
            self._is_watched = True
            self._loop.later(MOMENT, self._look)

    def _look(self) -> None:
        self._is_watched = False  # first: whoever saw that has left its answer by now
        self.crew.hurry()
        self._outbox.flush()

    def _return(self, message: Message) -> None:
        source = message.source
        if message.is_given_up:
            return
        message.is_given_up = True
        if source.kind != "call" or not message.is_taken:
            self._settler.again(self.lane, message, 0.0, message.deliveries - 1)
        else:
            self.lane.settled(message)

    def _is_handled(self, message: Message, now: float) -> bool:
        """Whether a message is for the handler; another one is dealt with here."""
        source, request = message.source, message.request
        if message.is_foreign:
            self._settler.acknowledge(self.lane, message)
        elif message.flaw is not None or message.is_expired(now):
            self._reject(message)
        elif source.kind == "call" and self._is_repeated(message):
            assert request is not None
            message.flaw = forsaken(self._settler.where, request.service)
            self._reject(message)
        elif source.kind != "call" and message.deliveries > self._deliveries:
            message.flaw = Unavailable(
                "every worker that it was given to went away with it",
                reason="connection_lost",
                executed="maybe",
            )
            self._reject(message)
        else:
            return True
        return False

    def _is_repeated(self, message: Message) -> bool:
        """Whether it may have run before, and must not run twice."""
        request = message.request
        return (
            message.deliveries > 1
            and request is not None
            and not self._names.is_idempotent(message.source, request.method)
        )

    def _reject(self, message: Message) -> None:
        """Tell whoever waits what is wrong with a message, and keep it where nobody does."""
        flaw = message.flaw
        assert flaw is not None
        if message.source.kind != "call":
            self._settler.bury(self.lane, message, flaw, uncounted=1)
            return
        if message.reply and (message.request is not None or b"id" in message.fields):
            self._refuse(message, flaw)
        else:
            logging.getLogger("fan").warning("dropped %r: %s", message, flaw)
        if message.is_taken:
            self.lane.settled(message)
        else:
            self._settler.acknowledge(self.lane, message)

    def _refuse(self, message: Message, why: FanError) -> None:
        request = message.request or Request(
            id=message.fields.get(b"id", b"").decode("utf-8", "replace"),
            service=message.source.service,
            method="",
            timeout_ms=0,
        )
        self._send(message, request, answer(request, why))

    # In a thread of the crew, or where a future is completed

    def _handle(self, message: Message) -> None:
        request = message.request
        assert request is not None
        late: list[Response] = []

        def overdue(response: Response) -> None:
            late.append(response)
            self._lend(1)
            self._finish(message, response)

        try:
            outcome = self._handler(request, is_queued=True, on_overdue=overdue)
        except Exception as exc:  # it is broken, and still must not break others
            outcome = Response(
                id=request.id, code="internal", message=f"the handler broke: {exc!r}"
            )
        if late:
            self._lend(-1)
            self.lane.rest()
            return
        if isinstance(outcome, Future):
            if message.source.kind == "call":
                self.lane.rest()
            outcome.add_done_callback(partial(self._awaited, message))
            return
        if isinstance(outcome, Stream):
            outcome.close()
            why = Unimplemented("redis cannot stream", reason="streaming_unsupported")
            self._finish(message, answer(request, why))
        else:
            self._finish(message, outcome)
        self.lane.rest()

    def _lend(self, places: int) -> None:
        """Take so many more at a time: who had them does not come back, or has."""
        self.crew.lend(places)
        self.lane.lend(places)

    def _awaited(self, message: Message, done: Future[Response]) -> None:
        request = message.request
        assert request is not None
        try:
            response = done.result()
        except BaseException as exc:  # it was cancelled, with its loop
            why = Unavailable(f"the handler was ended: {exc!r}", reason="connection_lost")
            response = answer(request, why)
        self._finish(message, response)
        if message.source.kind != "call":  # Redis keeps the others: what is begun here has a place
            self.lane.rest()

    def _finish(self, message: Message, response: Response) -> None:
        if message.is_given_up:
            return
        request, source = message.request, message.source
        assert request is not None
        if source.kind == "call":
            self._answer(message, request, response)
        elif response.code == "ok":
            self._settler.acknowledge(self.lane, message)
        elif is_refusal(response):
            pause = 0.0 if self.is_closing else self._settler.pause
            self._settler.again(self.lane, message, pause, message.deliveries - 1)
        elif message.deliveries >= self._deliveries:
            self._settler.bury(self.lane, message, response)
        else:
            pause = self._settler.pause_after(message.deliveries)
            self._settler.again(self.lane, message, pause, message.deliveries)

    def _answer(self, message: Message, request: Request, response: Response) -> None:
        self._send(message, request, response)
        if message.is_taken:
            self.lane.settled(message)
        else:
            self._settler.acknowledge(self.lane, message)

    def _send(self, message: Message, request: Request, response: Response) -> None:
        if not message.reply:
            return
        if len(response.body) > self._max_body:
            why = too_large("the answer", len(response.body), self._max_body, "yes")
            response = answer(request, why, response.served)
        try:
            element = encode_reply(response)
        except (TypeError, ValueError) as exc:
            broken = Internal(f"the answer cannot be sent: {exc}", reason="unserializable_result")
            element = encode_reply(answer(request, broken, response.served))
        hand = message.source.hand if message.is_taken else ""
        until = time.monotonic() + max(1.0, request.timeout_ms / 1000)
        letter = Letter(message.reply, element, hand, message.number, until)
        self._outbox.add(letter)
        if self.crew.is_quick:
            # Those that wait are answered in a moment, too: the last of them sends for all.
            if not (self.crew.waiting and self._is_watched):
                self._outbox.flush()
        elif self.lane.used <= _FEW:
            self._outbox.flush()
        else:
            self._outbox.nudge()
