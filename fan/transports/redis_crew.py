"""The threads that run handlers: as many as may run at once, started as they are needed."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable

Job = Callable[[], object]

#: Seconds after which a thread that found nothing to do ends.
IDLE = 10.0
#: Seconds that a quick job takes at most.
QUICK = 0.0005
#: A quick job counts one, and another one less by two, between nothing and this: a busy machine
#: makes some of them late.
_MOST = 32


class Crew:
    """Runs jobs in at most `size` threads.

    Whoever takes a job while others wait wakes one more thread, so that each of long jobs has its
    own. Short ones are over before the next thread is there, which only takes the interpreter from
    who does them: where jobs are quick nobody is woken for those that wait, and whoever gives them
    calls `hurry` after a moment, since one of them may take long.
    """

    def __init__(self, size: int, name: str) -> None:
        self.size = size
        self._name = name
        self._lock = threading.Lock()
        self._jobs: deque[Job] = deque()
        #: A held lock per idle thread, the last used one on top.
        self._idle: list[threading.Lock] = []
        self._count = 0
        #: How quick the last jobs were.
        self._quick = 0
        self._is_closed = False

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{self._count}/{self.size} threads"
        return f"<Crew {self._name} {state}, {len(self._jobs)} waiting>"

    @property
    def waiting(self) -> int:
        """Jobs that no thread has taken yet."""
        return len(self._jobs)

    @property
    def is_busy(self) -> bool:
        """Whether a thread is at a job."""
        return self._count > len(self._idle)

    @property
    def is_quick(self) -> bool:
        """Whether jobs are so short that those which came together are best done by one thread."""
        return self._quick > _MOST // 2

    def put(self, jobs: list[Job]) -> None:
        """Have them run, in this order. Jobs must not raise."""
        self._jobs.extend(jobs)
        self._wake()

    def hurry(self) -> None:
        """Have a thread for each job that waits, as far as there may be more; else it is for the
        first of those there are that has nothing to do."""
        for _ in range(min(len(self._jobs), self.size)):
            self._wake()

    def lend(self, threads: int) -> None:
        """Have so many more at once."""
        with self._lock:
            self.size += threads

    def take_back(self) -> list[Job]:
        """The jobs that no thread has taken, which now nobody runs."""
        out = []
        while True:
            try:
                out.append(self._jobs.popleft())
            except IndexError:
                return out

    def close(self) -> None:
        """Let the threads end once they have nothing to do."""
        with self._lock:
            self._is_closed = True
            for bell in self._idle:
                bell.release()
            self._idle.clear()

    def _wake(self) -> None:
        """One thread more, if there may be one."""
        with self._lock:
            if self._idle:
                self._idle.pop().release()
                return
            if self._count >= self.size:
                return
            self._count += 1
        try:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        except RuntimeError:  # the machine gives no more: those that there are take the job
            with self._lock:
                self._count -= 1
                if not self._count:
                    raise

    def _work(self) -> None:
        bell = threading.Lock()
        bell.acquire()
        while True:
            try:
                job = self._jobs.popleft()
            except IndexError:
                if not self._rest(bell):
                    return
                continue
            if self._jobs and not self.is_quick:
                self._wake()
            began = time.monotonic()
            try:
                job()
            except Exception:
                report()
            del job  # an idle thread keeps nothing alive
            is_quick = time.monotonic() - began <= QUICK
            self._quick = min(_MOST, self._quick + 1) if is_quick else max(0, self._quick - 2)

    def _rest(self, bell: threading.Lock) -> bool:
        """Wait for a job; whether there may be one."""
        with self._lock:
            if self._jobs:
                return True
            if self._is_closed:
                self._count -= 1
                return False
            self._idle.append(bell)
        if bell.acquire(timeout=IDLE):
            return True
        with self._lock:
            if bell not in self._idle:
                bell.acquire()  # it was rung at the last moment
                return True
            self._idle.remove(bell)
            self._count -= 1
            return False


def report() -> None:
    """Tell `threading.excepthook` of the exception at hand; its thread goes on."""
    threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
