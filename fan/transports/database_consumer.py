"""Who takes from one queue: a handler, and what it has in hand."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

import msgspec

from fan.codec import unpack_request
from fan.errors import FanError
from fan.message import Request, Response
from fan.transports.base import Handler, Stream, is_refusal
from fan.transports.database_rows import Claimed, Outcome

if TYPE_CHECKING:
    from fan.transports.database_desk import Desk

#: Seconds before the second delivery, and by how much each further one takes longer, up to a limit.
DELAY, GROWTH, MAX_DELAY = 0.1, 4.0, 60.0
#: Seconds after which a message that was refused without a try is offered again.
REFUSED = 0.05


class Consumer:
    """Takes from one queue, of a desk, for one handler. `fields` are put into each request."""

    def __init__(
        self,
        queue: str,
        handler: Handler,
        *,
        topic: str = "",
        is_lasting: bool = True,
        **fields: str,
    ) -> None:
        self.queue = queue
        self.topic = topic
        #: Whether the queue stays when nobody takes from it.
        self.is_lasting = is_lasting
        self.id = 0
        self.is_draining = False
        #: Whether the desk is to forget it once it has nothing in hand.
        self.is_retired = False
        #: Deliveries that are not settled: with the handler, or on their way back to the queue; and
        #: one for a look that may bring some.
        self.open = 0
        #: Claims that the handler was given.
        self.begun: set[int] = set()
        self._handler = handler
        self._fields = fields
        self._desk: Desk | None = None
        self._guard = threading.Lock()

    def __repr__(self) -> str:
        state = "draining" if self.is_draining else "open"
        return f"<Consumer {self.queue} {state}, {self.open} in hand>"

    def sit(self, desk: Desk, id: int) -> None:
        """Belong to a desk."""
        self._desk, self.id = desk, id

    def drain(self) -> None:
        """Begin nothing new."""
        with self._guard:
            self.is_draining = True

    def handle(self, claimed: Claimed) -> None:
        """Have one delivery handled, and tell the desk what came of it."""
        assert self._desk is not None
        with self._guard:
            is_late = self.is_draining
            if not is_late:
                self.begun.add(claimed.claim)
        if is_late:
            self._desk.settle(Outcome(claimed, "back"))
            return
        try:
            request = unpack_request(claimed.body)
        except FanError as exc:
            logging.getLogger("fan.transports").warning(
                "message %s of the queue %s is put aside: %s", claimed.id, self.queue, exc
            )
            self._desk.settle(Outcome(claimed, "dead", _error(exc)))
            return
        request = msgspec.structs.replace(request, attempt=claimed.attempt, **self._fields)
        desk, late = self._desk, []

        def overdue(answer: Response) -> None:
            late.append(answer)
            desk.lend(1)
            self._end(claimed, answer)

        try:
            answer = self._handler(request, is_queued=True, on_overdue=overdue)
        except Exception as exc:  # a handler never raises; if one does, its thread has to go on
            logging.getLogger("fan.transports").exception("a handler of %s failed", self.queue)
            answer = Response(id=request.id, code="internal", message=repr(exc))
        if late:
            desk.lend(-1)
        elif isinstance(answer, Future):
            answer.add_done_callback(lambda done: self._end(claimed, _answer_of(request, done)))
        else:
            self._end(claimed, answer)

    def _end(self, claimed: Claimed, answer: Response | Stream) -> None:
        assert self._desk is not None
        if isinstance(answer, Stream):
            answer.close()
            answer = Response(id="", code="unimplemented", message="a queue takes no stream")
        self._desk.settle(self._outcome(claimed, answer))

    def _outcome(self, claimed: Claimed, answer: Response) -> Outcome:
        assert self._desk is not None
        if answer.code == "ok":
            return Outcome(claimed, "done")
        if is_refusal(answer):
            return Outcome(claimed, "back", delay=0.0 if self.is_draining else REFUSED)
        if claimed.attempt + 1 >= self._desk.deliveries:
            error = _error(answer)
            logging.getLogger("fan").error(
                "a message of %s is dead after %d deliveries: %s",
                self.queue, claimed.attempt + 1, error,
            )  # fmt: skip
            return Outcome(claimed, "dead", error)
        delay = min(MAX_DELAY, DELAY * GROWTH**claimed.attempt)
        return Outcome(claimed, "later", delay=delay)


def _answer_of(request: Request, done: Future[Response]) -> Response:
    if done.cancelled():
        return Response(id=request.id, code="cancelled", reason="caller_cancelled")
    exc = done.exception()
    if exc is not None:
        return Response(id=request.id, code="internal", message=repr(exc))
    return done.result()


def _error(what: FanError | Response) -> str:
    """`CODE/REASON: message`, as a dead letter has it."""
    reason = f"/{what.reason}" if what.reason else ""
    return f"{what.code}{reason}: {what.message}"
