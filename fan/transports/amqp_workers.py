"""The threads that handlers run in, and the slots that limit what a process takes at once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

from fan.transports.amqp_link import Link
from fan.transports.amqp_loop import report

#: Threads that are started beyond the one that is needed: then a steady load soon needs no more.
_FEW = 3


class Job(Protocol):
    """Something to be handled."""

    def begin(self) -> bool:
        """In the link's thread, before `run`: whether it is still to be run."""

    def run(self) -> None:
        """In a thread that may block."""


class Workers:
    """Runs jobs in at most `slots` threads, started as they are needed. What is offered beyond them
    waits here, not begun, and can be taken back. `offer`, `withdraw` and `lend` belong
    to the link's thread."""

    def __init__(self, link: Link, slots: int, name: str) -> None:
        self._link = link
        self.slots = slots
        self._name = name
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._backlog: deque[Job] = deque()
        self._running = 0
        self._threads: list[threading.Thread] = []
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Workers {self._name} running={self._running} waiting={len(self._backlog)}>"

    def offer(self, job: Job) -> None:
        """Begin it now where a slot is free, else as soon as one is."""
        if self._running < self.slots:
            self._start(job)
        else:
            self._backlog.append(job)

    def withdraw(self, is_meant: Callable[[Job], bool]) -> list[Job]:
        """Take back those that were not begun."""
        taken = [job for job in self._backlog if is_meant(job)]
        if taken:
            self._backlog = deque(job for job in self._backlog if not is_meant(job))
        return taken

    def lend(self, slots: int) -> None:
        """Run so many more at a time: who had them does not come back, or has."""
        self.slots += slots
        self._fill()

    def close(self) -> None:
        """Let the threads end, once they have nothing to do."""
        self._is_closed = True
        for _ in self._threads:
            self._jobs.put(None)

    def _start(self, job: Job) -> None:
        if not job.begin():
            return
        self._running += 1
        if self._running > len(self._threads) and not self._is_closed:
            for number in range(len(self._threads), min(self.slots, self._running + _FEW)):
                self._hire(number)
        self._jobs.put(job)

    def _hire(self, number: int) -> None:
        name = f"{self._name}-{number}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        jobs, link, ended = self._jobs, self._link, self._ended
        while (job := jobs.get()) is not None:
            try:
                job.run()
            except Exception:
                report()
            del job  # else the last one's message lives until the next
            link.do(ended)

    def _ended(self) -> None:
        self._running -= 1
        self._fill()

    def _fill(self) -> None:
        while self._backlog and self._running < self.slots:
            self._start(self._backlog.popleft())
