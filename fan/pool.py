"""An App's threads for what would block a caller, and how a coroutine waits for one of them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from fan.errors import NO, Unavailable

T = TypeVar("T")

_here = threading.local()


class Pool(ThreadPoolExecutor):
    """At most so many threads; more jobs wait. What one of its own threads hands in has a thread
    apart: who waits here for the queue would else wait for himself, as soon as all threads do."""

    def __init__(self, threads: int, name: str) -> None:
        super().__init__(threads, name, initializer=self._enter)
        self._name = name

    def _enter(self) -> None:
        _here.pool = self

    # The same as the base's, which mypy is told by a ParamSpec of typeshed's own.
    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run `fn` in a thread. Raises RuntimeError once the pool is shut down."""
        if getattr(_here, "pool", None) is not self:
            return super().submit(fn, *args, **kwargs)
        future: Future[T] = Future()
        run = partial(_run, self, future, partial(fn, *args, **kwargs))
        threading.Thread(target=run, name=f"{self._name}-nested", daemon=True).start()
        return future


def _run(pool: Pool, future: Future[T], job: Callable[[], T]) -> None:
    _here.pool = pool  # what is nested deeper has a thread apart as well
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(job())
    except BaseException as exc:
        future.set_exception(exc)


async def awaited(
    pool: Pool, job: Callable[[], T], deadline: float, late: Callable[[], Exception]
) -> T:
    """What `job` returns, run in a thread of the pool. When none is free by `deadline` (of
    time.monotonic) the job is dropped, and `late()` raised; one that has begun is waited for. Raises
    Unavailable once the pool is shut down."""
    loop = asyncio.get_running_loop()
    try:
        future = pool.submit(job)
    except RuntimeError as exc:
        raise Unavailable("this App is closed", reason="connect_failed", executed=NO) from exc
    is_late = False

    def expire() -> None:
        nonlocal is_late
        is_late = future.cancel()

    timer = loop.call_later(max(0.0, deadline - time.monotonic()), expire)
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        if is_late:
            raise late() from None
        raise
    finally:
        timer.cancel()
