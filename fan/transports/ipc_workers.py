"""The threads of an ipc listener that run what does not have a connection's thread to itself."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

Job = tuple[Callable[..., object], tuple[Any, ...]]

#: Threads at most; what comes above it waits. A bulkhead belongs above the transport.
MOST = 512
#: Seconds after which a thread that found nothing to do ends.
IDLE = 10.0


class Workers:
    """A pool whose last used thread works next, so that a light load stays on one warm thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._idle: list[_Slot] = []
        self._backlog: deque[Job] = deque()
        self._count = 0
        self._is_closed = False

    def run(self, function: Callable[..., object], *args: Any) -> None:
        """Have it run soon; what it raises goes to `threading.excepthook`. Raises RuntimeError
        where no thread can be had at all."""
        job = (function, args)
        with self._lock:
            if self._idle:
                slot = self._idle.pop()
                slot.job = job
                slot.wake.release()
                return
            if self._count >= MOST or self._is_closed:
                self._backlog.append(job)
                return
            self._count += 1
        thread = threading.Thread(target=self._work, args=(job,), name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the machine gives no more: it waits for one of those there are
            with self._lock:
                self._count -= 1
                if not self._count:
                    raise
                if not self._idle:
                    self._backlog.append(job)
                    return
            self.run(function, *args)

    def close(self) -> None:
        """Let the threads end once they have nothing to do."""
        with self._lock:
            self._is_closed = True
            for slot in self._idle:
                slot.wake.release()
            self._idle.clear()

    def _work(self, job: Job | None) -> None:
        slot = _Slot()
        while job is not None:
            function, args = job
            try:
                function(*args)
            except Exception:
                report()
            del job, function, args  # an idle thread keeps nothing alive
            job = self._next(slot)

    def _next(self, slot: _Slot) -> Job | None:
        with self._lock:
            if self._backlog:
                return self._backlog.popleft()
            if self._is_closed:
                self._count -= 1
                return None
            self._idle.append(slot)
        if not slot.wake.acquire(timeout=IDLE):
            with self._lock:
                if slot in self._idle:
                    self._idle.remove(slot)
                    self._count -= 1
                    return None
            slot.wake.acquire()  # the job came at the last moment
        job, slot.job = slot.job, None
        if job is None:
            with self._lock:
                self._count -= 1
        return job


class _Slot:
    """Where an idle thread waits for a job."""

    __slots__ = ("job", "wake")

    def __init__(self) -> None:
        self.job: Job | None = None
        self.wake = threading.Lock()
        self.wake.acquire()


def report() -> None:
    """Tell `threading.excepthook` of the exception at hand; its thread goes on."""
    threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
