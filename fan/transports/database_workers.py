"""The threads that run the handlers of one desk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue


class Workers:
    """Daemon threads, started as they are needed: a process ends though a handler does not. The
    desk hands over no more than `limit` jobs at a time, so that none waits for a thread."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._guard = threading.Lock()
        self._idle = 0

    def run(self, job: Callable[[], None]) -> None:
        """Run a job, which must not raise."""
        with self._guard:
            self._idle -= 1
            if self._idle < 0 and len(self._threads) < self._limit:
                self._idle += 1
                name = f"fan-queue-{len(self._threads)}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
        self._jobs.put(job)

    def lend(self, threads: int) -> None:
        """Run so many more at a time."""
        with self._guard:
            self._limit += threads

    def close(self, timeout: float) -> None:
        """End the threads, waiting at most `timeout` seconds for what they do."""
        with self._guard:
            threads, self._threads = self._threads, []
        for _ in threads:
            self._jobs.put(None)
        deadline = time.monotonic() + timeout
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # an idle thread keeps nothing alive
            with self._guard:
                self._idle += 1
