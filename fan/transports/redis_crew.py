"""The threads that run handlers: as many as may run at once, started as they are needed."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable

Job = Callable[[], object]

#: Seconds after which a thread that found nothing to do ends.
IDLE = 10.0


class Crew:
    """Runs jobs in at most `size` threads.

    Whoever takes a job while others wait wakes one more thread, and goes on: with short handlers
    one thread does them all before the next one is there, and with long ones each has its own.
    """

    def __init__(self, size: int, name: str) -> None:
        self.size = size
        self._name = name
        self._lock = threading.Lock()
        self._jobs: deque[Job] = deque()
        #: A held lock per idle thread, the last used one on top.
        self._idle: list[threading.Lock] = []
        self._count = 0
        self._is_closed = False

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{self._count}/{self.size} threads"
        return f"<Crew {self._name} {state}, {len(self._jobs)} waiting>"

    @property
    def waiting(self) -> int:
        """Jobs that no thread has taken yet."""
        return len(self._jobs)

    def put(self, jobs: list[Job]) -> None:
        """Have them run, in this order. Jobs must not raise."""
        self._jobs.extend(jobs)
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
        threading.Thread(target=self._work, name=self._name, daemon=True).start()

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
            if self._jobs:
                self._wake()
            try:
                job()
            except Exception:
                report()
            del job  # an idle thread keeps nothing alive

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
