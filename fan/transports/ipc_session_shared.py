"""The serving side of a shared ipc connection: many calls at a time.

The thread that reads runs the requests that arrived together, in turn, and their answers leave
together: for handlers that only compute, nothing is quicker. One that does not come back is left
alone with its thread, and another thread reads on (`ipc_watch`). Once handlers take longer (`LAG`),
every request gets a worker of its own for a while (`WIDE`), so that those that wait for something
wait side by side.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from fan.message import Request, Response
from fan.transports.base import Stream
from fan.transports.ipc_frames import GOAWAY, RESPONSE, Bytes, Gone, Late, Wire, frame
from fan.transports.ipc_session import Relieved, Session, not_a_call, response_of

if TYPE_CHECKING:
    from concurrent.futures import Future

    from fan.transports.ipc_server import UnixListener

# Bytes of answers that leave in one send.
_BATCH = 256 * 1024
# Answers that are held back at most, to leave together; and of those that arrived together the part
# that is, so that their caller has something to do while the rest runs.
_HELD = 16
_PART = 4
#: Seconds that a handler may take before it counts as slow, and how much more they may take in all
#: before the connection turns wide. One alone counts for `MOST`: a busy machine, too, may take its
#: thread's turn away.
QUICK = 0.0002
LAG = 0.008
MOST = 0.003
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


class _Turn:
    """The time for which one thread reads a connection: a `Reader` of `ipc_watch`."""

    __slots__ = ("_session", "is_busy", "looks")

    def __init__(self, session: SharedSession) -> None:
        self._session = session
        self.is_busy = False
        self.looks = 0

    def relieve(self) -> None:
        self._session.hand_on(self)


Job = tuple[int, Request, Call]


class SharedSession(Session):
    """Many calls at a time."""

    def __init__(self, listener: UnixListener, wire: Wire, peer: str) -> None:
        super().__init__(listener, wire, peer)
        self._out: deque[bytes] = deque()
        self._is_holding = False
        self._todo: deque[Job] = deque()
        #: The turn of the thread that reads; it changes under the lock.
        self._turn = _Turn(self)
        self._turning = threading.Lock()
        self._wide_until = 0.0
        self._lag = 0.0

    @property
    def is_idle(self) -> bool:
        # In this order: an answer is in `_out` before its stream ends, and who takes it out has the
        # lock until it has left.
        return not self.active and not self._out and not self.writing.locked()

    def read(self, deadline: float | None) -> tuple[int, int, Bytes]:
        if self._todo and not self.wire.has_frame():
            self._run_in_turn(self._turn)
        return self.wire.read(deadline)

    def serve(self, stream: int, request: Request) -> None:
        call = self.active[stream] = Call()
        self._todo.append((stream, request, call))

    def _run_in_turn(self, turn: _Turn) -> None:
        """Run what waits, here or side by side. Raises Relieved."""
        watch, todo, held = self.listener.watch, self._todo, 0
        most = min(_HELD, len(todo) // _PART)
        watch.enter(turn)
        try:
            while todo and time.monotonic() >= self._wide_until:
                self._is_holding = held < most
                is_slow = self._run_here(todo.popleft(), turn)
                held = held + 1 if self._is_holding and not is_slow else 0
        finally:
            watch.leave(turn)
        self._is_holding = False
        self._flush()
        while todo:  # as it is wide
            self.listener.workers.run(self._run_one, todo.popleft())

    def _run_here(self, job: Job, turn: _Turn) -> bool:
        """Run a handler in the thread that reads; whether it was slow. Raises Relieved."""
        turn.looks, turn.is_busy = 0, True
        try:
            return self._run_one(job)
        finally:
            with self._turning:
                turn.is_busy = False
                if self._turn is not turn:
                    raise Relieved

    def hand_on(self, turn: _Turn) -> None:
        """Have another thread read on, unless it is no longer at the handler of this turn."""
        with self._turning:
            if self._turn is not turn or not turn.is_busy:
                return
            self._turn = _Turn(self)
            try:
                threading.Thread(
                    target=self.listener.attend, args=(self,), name="fan-ipc-serve", daemon=True
                ).start()
            except RuntimeError:  # out of threads: the connection waits with its handler
                self._turn = turn
                return
            self._wide_until = time.monotonic() + WIDE
        self._is_holding = False
        self._flush()

    def _run_one(self, job: Job) -> bool:
        """Run a handler; whether it was slow."""
        began = time.monotonic()
        self._run(*job)
        now = time.monotonic()
        extra = now - began - QUICK
        self._lag = lag = max(0.0, self._lag + min(extra, MOST))
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
        self._send_waiting()
        if self.listener.is_draining:  # `close` waits until the last answer has left
            self.listener.notify()

    def _send_waiting(self) -> None:
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
