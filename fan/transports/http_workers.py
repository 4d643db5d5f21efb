"""A bounded set of threads for work that blocks: handlers, and calls for asyncio callers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Protocol

#: Seconds after which a thread that found nothing to do ends.
IDLE = 10.0


class Workers:
    """Runs jobs in at most `limit` daemon threads, started as they are needed and ended after
    `idle` seconds without a job: a burst leaves none behind.

    concurrent.futures' pool would do, but a process cannot exit while one of its jobs blocks, and
    its Future adds two locks to a job. Jobs must not raise. A fork starts with no threads."""

    def __init__(self, limit: int, name: str, *, idle: float = IDLE) -> None:
        self._limit = limit
        self._idle = idle
        self._name = name
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._free = 0  # idle threads less queued jobs
        self._is_closed = False

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{len(self._threads)}/{self._limit} threads"
        return f"<Workers {self._name} {state}, {self.queued} queued>"

    @property
    def queued(self) -> int:
        """Jobs that wait for a thread."""
        return self._jobs.qsize()

    def run(self, job: Callable[[], None]) -> bool:
        """Run `job` in a thread as soon as one is free; False when it waits for that. Raises
        RuntimeError once closed, and where no thread can be had at all."""
        if self._pid != os.getpid():
            self._reset()
        with self._lock:
            if self._is_closed:
                raise RuntimeError(f"{self._name} is closed")
            if self._free <= 0 and len(self._threads) < self._limit:
                self._begin()
            self._free -= 1
            self._jobs.put(job)
            return self._free >= 0

    def _begin(self) -> None:
        name = f"{self._name}-{len(self._threads)}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the machine gives no more: the job waits for one of those there are
            if not self._threads:
                raise
        else:
            self._threads.append(thread)
            self._free += 1

    def _work(self) -> None:
        jobs = self._jobs
        while True:
            try:
                job = jobs.get(timeout=self._idle)
            except Empty:
                if self._leaves():
                    return
                continue
            if job is None:
                return
            job()
            del job  # else the last job's request and reply live until the next
            with self._lock:
                self._free += 1

    def _leaves(self) -> bool:
        """Whether this thread, which found nothing to do, may end: a job that was put a moment ago
        counts on it."""
        with self._lock:
            if self._jobs.qsize():
                return False
            self._free -= 1
            self._threads.remove(threading.current_thread())
            return True

    def close(self, timeout: float = 0.0) -> None:
        """End the threads, waiting at most `timeout` seconds for the jobs that run. Twice does no
        harm."""
        if self._pid != os.getpid():
            self._reset()
        with self._lock:
            self._is_closed = True
            threads = [*self._threads]
            for _ in threads:
                self._jobs.put(None)
        deadline = time.monotonic() + timeout
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))


class Post(Protocol):
    """Where work in a thread leaves its outcome, then or later, from any thread."""

    def __call__(self, result: Any, exc: BaseException | None = None) -> None: ...


class Overdue(Exception):
    """The work did not post in its time."""


async def from_thread(
    workers: Workers,
    work: Callable[[Post], None],
    seconds: float,
    unwanted: Callable[[Any], object] = lambda _: None,
) -> Any:
    """What `work`, run in a thread, posts. It may return before that: no thread is held then.
    Raises Overdue after `seconds`; a result for which nobody waits any more goes to `unwanted`."""
    import asyncio

    loop = asyncio.get_running_loop()
    posted: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, exc: BaseException | None) -> None:
        if posted.done():
            unwanted(result)
        elif exc is None:
            posted.set_result(result)
        else:
            posted.set_exception(exc)

    def expire() -> None:
        if not posted.done():
            posted.set_exception(Overdue())

    def post(result: Any, exc: BaseException | None = None) -> None:
        try:
            loop.call_soon_threadsafe(settle, result, exc)
        except RuntimeError:  # the loop has ended
            unwanted(result)

    def job() -> None:
        try:
            work(post)
        except BaseException as exc:
            post(None, exc)

    workers.run(job)
    timer = loop.call_later(seconds, expire)
    try:
        return await posted
    finally:
        timer.cancel()
