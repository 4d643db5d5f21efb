"""The serving side of a shared ipc connection: many calls at a time.

The reading thread collects the requests that arrived together, one worker runs them in turn, and
their answers leave together: for handlers that only compute, at least twice as fast as a thread for
each. Once handlers take longer (`LAG`, `STALLED`), every request gets a worker of its own for a
while (`WIDE`), so that those that wait for something wait side by side.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from fan.message import Request, Response
from fan.transports.base import Stream
from fan.transports.ipc_frames import GOAWAY, RESPONSE, Bytes, Gone, Late, Wire, frame
from fan.transports.ipc_session import Session, not_a_call, response_of

if TYPE_CHECKING:
    from concurrent.futures import Future

    from fan.transports.ipc_server import UnixListener

# Bytes of answers that leave in one send.
_BATCH = 256 * 1024
# Answers that are held back at most, to leave together.
_HELD = 16
#: Seconds that a handler may take before it counts as slow, and how much more they may take in all
#: before the connection turns wide. Waiting for the interpreter's lock alone may cost 5 ms.
QUICK = 0.0002
LAG = 0.008
#: It also does when a handler has not come back after this time while others wait behind it.
STALLED = 0.008
#: Seconds that a connection stays wide after the last slow handler.
WIDE = 1.0


class Call:
    """One call on a shared connection, as `is_cancelled` sees it."""

    __slots__ = ("future", "is_dropped")

    def __init__(self) -> None:
        self.is_dropped = False
        self.future: Future[Response] | None = None

    def cancel(self) -> None:
        """The caller gave up."""
        self.is_dropped = True
        if self.future is not None:
            self.future.cancel()

    def is_cancelled(self) -> bool:
        """Whether the caller gave up."""
        return self.is_dropped


Job = tuple[int, Request, Call]


class SharedSession(Session):
    """Many calls at a time."""

    def __init__(self, listener: UnixListener, wire: Wire, peer: str) -> None:
        super().__init__(listener, wire, peer)
        self._out: deque[bytes] = deque()
        self._is_holding = False
        self._todo: deque[Job] = deque()
        #: Who runs what is in `_todo`: a token of its own for each `_run_in_turn`.
        self._runner: object | None = None
        self._taken = 0
        #: The value of `_taken` that was seen last, and since when it has been that.
        self._seen = 0
        self._since = 0.0
        self._wide_until = 0.0
        self._lag = 0.0

    def read(self, deadline: float | None) -> tuple[int, int, Bytes]:
        if (self._todo or self._is_holding) and not self.wire.has_frame():
            self._see_to_it()
        return self.wire.read(deadline)

    def serve(self, stream: int, request: Request) -> None:
        call = self.active[stream] = Call()
        self._todo.append((stream, request, call))

    def _see_to_it(self) -> None:
        """Have what waits run, and watch that it does for as long as nothing else comes."""
        now = time.monotonic()
        if now < self._wide_until:
            self._spread()
        elif self._runner is None and self._todo:
            self._seen, self._since = self._taken, now
            self._runner = token = object()
            self.listener.workers.run(self._run_in_turn, token)
        while self._todo or self._is_holding:
            now = time.monotonic()
            if self._taken != self._seen:
                self._seen, self._since = self._taken, now
            elif now - self._since > STALLED:
                self._wide_until = now + WIDE
                self._spread()
                return
            if self.wire.is_readable(STALLED):
                return

    def _spread(self) -> None:
        """Give each request that waits a worker; the runner keeps the one that it is at."""
        self._runner = None
        self._is_holding = False
        self._flush()
        while self._todo:
            try:
                job = self._todo.popleft()
            except IndexError:  # the runner was quicker
                return
            self.listener.workers.run(self._run_one, job)

    def _run_in_turn(self, token: object) -> None:
        todo = self._todo
        while self._runner is token:
            held = 0
            while self._runner is token:
                try:
                    job = todo.popleft()
                except IndexError:
                    break
                self._taken += 1
                self._is_holding = held < _HELD
                is_slow = self._run_one(job)
                held = held + 1 if self._is_holding and not is_slow else 0
            self._is_holding = False
            self._flush()
            if self._runner is token:
                self._runner = None
            # What came after the last look and before the line above found a runner.
            if todo and self._runner is None:
                self._runner = token

    def _run_one(self, job: Job) -> bool:
        """Run a handler; whether it was slow."""
        began = time.monotonic()
        self._run(*job)
        now = time.monotonic()
        extra = now - began - QUICK
        self._lag = lag = max(0.0, self._lag + extra)
        if extra > QUICK:
            self._is_holding = False
            self._flush()
        if lag < LAG:
            return extra > QUICK
        self._lag = LAG  # a load that gets quick again needs not work it off
        self._wide_until = now + WIDE
        return True

    def _run(self, stream: int, request: Request, call: Call) -> None:
        answer = self.listener.call(request, call.is_cancelled, self.peer)
        if isinstance(answer, Response):
            self.done(stream, RESPONSE, answer)
        elif isinstance(answer, Stream):
            answer.close()
            self.done(stream, RESPONSE, not_a_call(request))
        else:
            call.future = answer
            if call.is_dropped:
                answer.cancel()
            answer.add_done_callback(
                lambda future: self.done(stream, RESPONSE, response_of(request.id, future))
            )

    def send(self, kind: int, stream: int, response: Response) -> None:
        self._out.append(self.encode(kind, stream, response))
        if not self._is_holding:
            self._flush()

    def go_away(self) -> None:
        self._out.append(frame(GOAWAY, self.last))
        self._flush()

    def _flush(self) -> None:
        """Send what waits, unless somebody is at it, who will then find this too. Never blocks."""
        out = self._out
        while out and self.writing.acquire(blocking=False):
            batch = self._next_batch()
            try:
                sent = self.wire.write_some(batch)
            except Gone:
                out.clear()
                self.writing.release()
                return
            if sent != len(batch):  # the peer is slow: a worker waits for it and keeps the lock
                self.listener.workers.run(self._write_rest, memoryview(batch)[sent:])
                return
            self.writing.release()

    def _next_batch(self) -> bytes:
        out, parts, size = self._out, list[bytes](), 0
        while out and size < _BATCH:
            parts.append(out.popleft())
            size += len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _write_rest(self, rest: memoryview) -> None:
        try:
            self.wire.write(rest, None)
        except (Gone, Late):
            self._out.clear()
            self.hang_up()
        finally:
            self.writing.release()
        self._flush()
