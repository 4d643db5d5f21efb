"""The one event loop thread on which `async def` handlers run."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Coroutine
from contextvars import Context as Variables
from typing import TYPE_CHECKING, Any

from fan.errors import Cancelled, FailedPrecondition

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

#: Seconds that handlers get to end after they were cancelled, and the thread after them.
FAREWELL = 5.0


class Expired(Exception):
    """A coroutine did not end in its time, and was cancelled."""


class LoopThread:
    """An asyncio loop in a thread of its own, started at the first use."""

    def __init__(self, name: str = "fan-async") -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<LoopThread {self._name} {'running' if self._loop else 'idle'}>"

    @property
    def is_current(self) -> bool:
        """Whether this is the loop's own thread: who waits here for a coroutine waits forever."""
        return self._thread is threading.current_thread()

    def start(
        self,
        coroutine: Coroutine[Any, Any, Any],
        variables: Variables,
        timeout: float | None = None,
    ) -> Future[Any]:
        """Run a coroutine with those context variables; the future cancels it. After `timeout`
        seconds it is cancelled, and the future has Expired."""
        from concurrent.futures import Future

        outcome: Future[Any] = Future()
        with self._lock:  # what is begun here is found by `close`
            if self._is_closed:
                coroutine.close()
                outcome.set_exception(FailedPrecondition("this App is closed", executed="no"))
                return outcome
            loop = self._loop or self._open()
            loop.call_soon_threadsafe(_begin, loop, coroutine, variables, timeout, outcome)
        return outcome

    def close(self) -> None:
        """Cancel what runs and end the thread. Twice does no harm."""
        with self._lock:
            self._is_closed = True
            loop, thread, self._loop = self._loop, self._thread, None
        if loop is None or thread is None:
            return
        import asyncio

        if thread is threading.current_thread():  # a handler closes its App, and may still answer
            _end(loop, asyncio.current_task())
            return
        loop.call_soon_threadsafe(_end, loop, None)
        thread.join(2 * FAREWELL)

    def _open(self) -> asyncio.AbstractEventLoop:
        import asyncio

        self._loop = loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run, args=(loop,), name=self._name, daemon=True)
        self._thread.start()
        return loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    is_over = False
    try:
        while not is_over:
            # asyncio lets these two out of the loop: a handler that exits ends its call alone.
            with contextlib.suppress(SystemExit, KeyboardInterrupt):
                loop.run_forever()
                is_over = True
    finally:
        loop.close()


def _begin(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, Any],
    variables: Variables,
    timeout: float | None,
    outcome: Future[Any],
) -> None:
    try:
        task = loop.create_task(coroutine, context=variables)
    except BaseException as exc:  # something that can be awaited, and is no coroutine
        outcome.set_exception(exc)
        return
    is_late = False

    def expire() -> None:
        nonlocal is_late
        is_late = True
        task.cancel()

    timer = loop.call_later(timeout, expire) if timeout is not None else None

    def cancel(outcome: Future[Any]) -> None:
        if outcome.cancelled():
            with contextlib.suppress(RuntimeError):  # the loop has ended, and the task before it
                loop.call_soon_threadsafe(task.cancel)

    def pass_on(task: asyncio.Task[Any]) -> None:
        if timer is not None:
            timer.cancel()
        if outcome.set_running_or_notify_cancel():
            _settle(task, outcome, is_late)

    outcome.add_done_callback(cancel)
    task.add_done_callback(pass_on)


def _settle(task: asyncio.Task[Any], outcome: Future[Any], is_late: bool) -> None:
    if task.cancelled():
        error = Cancelled("the handler was cancelled", reason="caller_cancelled")
        outcome.set_exception(Expired() if is_late else error)
    elif (exc := task.exception()) is not None:
        outcome.set_exception(exc)
    else:
        outcome.set_result(task.result())


def _end(loop: asyncio.AbstractEventLoop, spared: asyncio.Task[Any] | None) -> None:
    """Cancel all tasks but `spared`, wait for them and for it, and stop the loop."""
    import asyncio

    tasks = asyncio.all_tasks(loop)

    def ended(task: asyncio.Task[Any]) -> None:
        tasks.discard(task)
        if not tasks:
            loop.stop()

    for task in tuple(tasks):
        task.add_done_callback(ended)
        if task is not spared:
            task.cancel()
    loop.call_later(FAREWELL if tasks else 0.0, loop.stop)
