"""One call on its way over Redis, and who waits for it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future

from fan.errors import FanError
from fan.message import Request, Response
from fan.transports.redis_keys import Source
from fan.transports.redis_loop import Timer
from fan.transports.redis_pipe import Item

#: How a call ended.
Outcome = Response | FanError


class Pending:
    """A call on its way. It is finished by whoever takes it out of `Calls.pending`."""

    __slots__ = ("began", "deadline", "entry", "item", "request", "source", "suspicion")

    def __init__(self, request: Request, source: Source) -> None:
        self.request = request
        self.source = source
        self.began = time.monotonic()
        self.deadline = self.began + request.timeout_ms / 1000
        self.item: Item | None = None
        #: Number of the stream entry, once Redis said so.
        self.entry = b""
        #: What the last look at it found, where that was bad.
        self.suspicion = b""

    def finish(self, outcome: Outcome) -> None:
        """Hand it to whoever waits. From any thread."""
        raise NotImplementedError


class OfThread(Pending):
    """A thread waits at the bell."""

    __slots__ = ("bell", "outcome")

    def __init__(self, request: Request, source: Source) -> None:
        super().__init__(request, source)
        self.bell = threading.Lock()
        self.bell.acquire()
        self.outcome: Outcome | None = None

    def finish(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.bell.release()


class OfFuture(Pending):
    """Whoever has the future waits."""

    __slots__ = ("future", "timer")

    def __init__(self, request: Request, source: Source) -> None:
        super().__init__(request, source)
        self.future: Future[Response] = Future()
        self.timer: Timer | None = None

    def finish(self, outcome: Outcome) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self.future.set_running_or_notify_cancel():
            if isinstance(outcome, FanError):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)
