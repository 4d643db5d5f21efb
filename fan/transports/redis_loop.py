"""The one thread of the redis transport that does its socket I/O, and its timers.

Nothing that it runs may block: connections are made in threads of their own, handlers run in the
threads of a `Crew`. For a moment it looks for what comes instead of sleeping: being woken is a
good part of what a call that is alone takes.
"""

from __future__ import annotations

import heapq
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from weakref import WeakSet

from fan.transports.redis_crew import report
from fan.transports.spin import Spin

#: Seconds of one look: what Redis and the other side need for a short call.
LOOK = 300e-6
#: With more tasks of an event loop that wait nobody looks: they and their loop have enough to do,
#: and need the interpreter for it.
FEW_TASKS = 2
_NEVER = float("inf")
# Seconds of one wait, at most: the kernel takes no more than 24 days.
_LONGEST_WAIT = 3600.0


class Timer:
    """Something to be done at a point of `time.monotonic()`, unless it is cancelled first."""

    __slots__ = ("run", "when")

    def __init__(self, when: float, run: Callable[[], object]) -> None:
        self.when = when
        self.run: Callable[[], object] | None = run

    def cancel(self) -> None:
        """It will not be done. Twice does no harm."""
        self.run = None


class Loop:
    """Waits for sockets and for the clock, in a thread that starts with the first thing to do."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._epoll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._bell, select.EPOLLIN)
        self._files: dict[int, Callable[[int], None]] = {}
        self._soon: deque[Callable[[], object]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._number = count().__next__
        #: When the thread wakes up whatever happens.
        self._wakes_at = _NEVER
        self._is_rung = False
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self._ident = 0
        self._spin = Spin()
        #: Who has more than `FEW_TASKS` tasks that wait for what comes here.
        self.crowds: WeakSet[object] = WeakSet()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "open"
        return f"<Loop {state} files={len(self._files)} timers={len(self._timers)}>"

    @property
    def is_here(self) -> bool:
        """Whether this is its thread."""
        return threading.get_ident() == self._ident

    def soon(self, run: Callable[[], object]) -> None:
        """Have something done in the thread."""
        self._soon.append(run)
        self._ring()

    def at(self, when: float, run: Callable[[], object]) -> Timer:
        """Have something done in the thread at a time."""
        timer = Timer(when, run)
        with self._lock:
            heapq.heappush(self._timers, (when, self._number(), timer))
            is_first = when < self._wakes_at
            self._wakes_at = min(self._wakes_at, when)
        if is_first:
            self._ring()
        return timer

    def later(self, seconds: float, run: Callable[[], object]) -> Timer:
        """Have something done in the thread in a while."""
        return self.at(time.monotonic() + seconds, run)

    def watch(self, file: int, run: Callable[[int], None]) -> None:
        """Call `run` with the events of a socket. In the thread."""
        self._files[file] = run
        self._epoll.register(file, select.EPOLLIN)

    def want(self, file: int, *, write: bool) -> None:
        """Whether it is to be told that a socket can be written to."""
        with suppress(OSError, ValueError):  # closed meanwhile
            self._epoll.modify(file, select.EPOLLIN | (select.EPOLLOUT if write else 0))

    def forget(self, file: int) -> None:
        """Watch a socket no longer. In the thread, before the socket is closed."""
        if self._files.pop(file, None) is not None:
            with suppress(OSError, ValueError):
                self._epoll.unregister(file)

    def close(self) -> None:
        """End the thread, once it has done what it was asked to do soon. Twice does no harm."""
        if self.pid != os.getpid():  # the thread is the parent's, and the lock may be held
            self._release()
            return
        with self._lock:
            was_closed, self._is_closed = self._is_closed, True
            thread = self._thread
        if was_closed:
            return
        if thread is None:
            self._release()
        else:
            self._ring()
            if not self.is_here:
                thread.join()

    def _release(self) -> None:
        self._epoll.close()
        with suppress(OSError):
            os.close(self._bell)

    def _ring(self) -> None:
        if self._is_rung or self.is_here:
            return
        self._is_rung = True
        if self._thread is None:
            self._start()
        with suppress(OSError):  # closed: nobody needs waking
            os.eventfd_write(self._bell, 1)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._is_closed:
                thread = threading.Thread(target=self._run, name="fan-redis-io", daemon=True)
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        self._ident = threading.get_ident()
        while True:
            self._turn()
            if self._is_closed and not self._soon:
                break
        self._release()

    def _turn(self) -> None:
        for file, events in self._events():
            if file == self._bell:
                with suppress(BlockingIOError):
                    os.eventfd_read(file)
                self._is_rung = False  # before the look, so that who comes after it rings again
                continue
            run = self._files.get(file)
            if run is not None:
                _guarded(run, events)
        for _ in range(len(self._soon)):
            _guarded(self._soon.popleft())
        if time.monotonic() >= self._wakes_at:
            self._run_timers()

    def _events(self) -> list[tuple[int, int]]:
        """What the files are ready for; empty when it is time for something else."""
        wait = self._wait()
        if wait != 0.0 and not self.crowds and self._spin.is_due():
            is_cut = wait is not None and wait < LOOK
            seconds = wait if is_cut and wait is not None else LOOK
            found = self._spin.look(self._glance, seconds, is_cut=is_cut)
            if found:
                return found
            wait = self._wait()  # the look has taken some of it
        return self._epoll.poll(wait)

    def _glance(self) -> list[tuple[int, int]]:
        return self._epoll.poll(0)

    def _wait(self) -> float | None:
        """Seconds until something is to be done whatever comes; None where nothing is."""
        if self._soon or self._is_closed:
            return 0.0
        left = self._wakes_at - time.monotonic()
        return None if left == _NEVER else min(max(0.0, left), _LONGEST_WAIT)

    def _run_timers(self) -> None:
        now, due = time.monotonic(), []
        with self._lock:
            while self._timers and self._timers[0][0] <= now:
                due.append(heapq.heappop(self._timers)[2])
            self._wakes_at = self._timers[0][0] if self._timers else _NEVER
        for timer in due:
            if timer.run is not None:
                _guarded(timer.run)


def _guarded(run: Callable[..., object], *args: int) -> None:
    try:
        run(*args)
    except Exception:  # of one connection or callback; the others still want their turn
        report()
