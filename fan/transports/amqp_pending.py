"""What callers wait for: a message on its way, and the clock that ends the wait."""

from __future__ import annotations

import heapq
import time
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

from fan.errors import FanError
from fan.message import Response
from fan.transports.amqp_failures import late
from fan.transports.amqp_link import Link

#: Seconds by which a timer may come too late without harm; one wake-up serves what ends within.
_SLACK = 0.005
#: Entries of a clock below which it does not look for those that are of no use any more.
_FEW = 64


class Wait:
    """A message's place at the clock. Who completes the message empties it, so that no answer is
    kept until the deadline of its call."""

    __slots__ = ("pending",)

    def __init__(self, pending: Pending) -> None:
        self.pending: Pending | None = pending

    @property
    def is_over(self) -> bool:
        """Whether the message is complete: the clock has nothing to do then."""
        return self.pending is None or self.pending.done()


class Pending(Future[Response]):
    """The future of one message that was published, or is about to be. Its fields belong to the
    link's thread."""

    def __init__(self, id: str, timeout_ms: int) -> None:
        super().__init__()
        self.id = id
        self.timeout_ms = timeout_ms
        self.deadline = time.monotonic() + timeout_ms / 1000
        self.exchange = ""
        self.key = ""
        self.properties: Any = None
        self.body = b""
        self.was_sent = False
        self.sent_at = 0.0
        #: Rounds of `amqp_watch` since it was last seen, and whether nobody was there to be asked.
        self.rounds = 0
        self.is_absent = False
        self.wait: Wait | None = None
        #: Where it stands under its correlation id while a reply may come.
        self.shelf: dict[str, Pending] | None = None
        self.correlation = id
        #: When somebody last said that it is in hand, and how often nobody did since.
        self.marks: dict[str, float] | None = None

    def aim(self, exchange: str, key: str, properties: Any, body: bytes) -> None:
        """Say what is to be published."""
        self.exchange, self.key = exchange, key
        self.properties, self.body = properties, body

    def put_on(self, shelf: dict[str, Pending], correlation: str) -> None:
        """Let a reply find it."""
        self.shelf, self.correlation = shelf, correlation
        shelf[correlation] = self

    def take_off(self) -> None:
        """Let no reply find it any more."""
        shelf = self.shelf
        if shelf is not None and shelf.get(self.correlation) is self:
            del shelf[self.correlation]

    def answer(self, response: Response) -> None:
        """Complete it, unless somebody cancelled it."""
        self._let_go()
        with suppress(InvalidStateError):
            self.set_result(response)

    def fail(self, exc: BaseException) -> None:
        """Complete it with an error, unless somebody cancelled it."""
        self._let_go()
        with suppress(InvalidStateError):
            self.set_exception(exc)

    def lose(self, failure: FanError) -> None:
        """Complete it with `failure`, as an error of its own: each caller adds to it."""
        self.fail(again(failure))

    def _let_go(self) -> None:
        self.properties, self.body = None, b""
        wait, self.wait = self.wait, None
        if wait is not None:
            wait.pending = None


def again(failure: FanError) -> FanError:
    """Another error that says the same."""
    return type(failure)(failure.message, reason=failure.reason, executed=failure.executed)


class Clock:
    """Ends the wait of messages at their deadlines; in the link's thread."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._heap: list[tuple[float, int, Wait]] = []
        self._count = 0
        #: Entries above which those of complete messages are thrown out.
        self._most = _FEW
        self._timer: Any = None
        self._rings_at = float("inf")

    def __repr__(self) -> str:
        return f"<Clock {len(self._heap)} entries>"

    def __len__(self) -> int:
        return len(self._heap)

    def now(self) -> float:
        """What deadlines are points of."""
        return time.monotonic()

    def watch(self, pending: Pending) -> None:
        """Let it fail with DeadlineExceeded when its time comes, unless it is complete then."""
        if len(self._heap) >= self._most:
            self._thin_out()
        self._count += 1
        pending.wait = Wait(pending)
        heapq.heappush(self._heap, (pending.deadline, self._count, pending.wait))
        if pending.deadline < self._rings_at:
            self._set(pending.deadline)

    def _thin_out(self) -> None:
        """Keep the entries of those that still wait: never more than twice as many as those are."""
        kept = []
        for entry in self._heap:
            if not entry[2].is_over:
                kept.append(entry)
            elif entry[2].pending is not None:  # cancelled
                entry[2].pending.take_off()
        heapq.heapify(kept)
        self._heap = kept
        self._most = max(_FEW, 2 * len(kept))

    def _set(self, at: float) -> None:
        self._link.forget(self._timer)
        self._rings_at = at
        self._timer = self._link.later(at - time.monotonic() + _SLACK / 2, self._ring)

    def _ring(self) -> None:
        self._timer, self._rings_at = None, float("inf")
        heap, now = self._heap, time.monotonic() + _SLACK / 2
        while heap and (heap[0][0] <= now or heap[0][2].is_over):
            pending = heapq.heappop(heap)[2].pending
            if pending is None:
                continue
            pending.take_off()
            if not pending.done():
                why = "" if self._link.state == "up" else f"{self._link.url} is {self._link.state}"
                if self._link.is_blocked and not pending.was_sent:
                    why = f"{self._link.url} takes nothing now: it is short of memory or disk"
                pending.fail(late(pending.timeout_ms, was_sent=pending.was_sent, why=why))
        if heap:
            self._set(heap[0][0])
