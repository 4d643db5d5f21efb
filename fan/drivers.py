"""Carry out the steps of a call: the only code that differs between sync and async callers."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from fan.errors import NO, DeadlineExceeded, FanError, Internal
from fan.message import Response
from fan.middleware.base import Call, CallNext, Read, Send, Sleep, Steps

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

    from fan.pool import Pool


def drive(chain: CallNext, call: Call) -> Response:
    """Run a call in the calling thread; sockets are waited for inline."""
    steps: Steps | None = None
    try:
        steps = chain(call)
        step = next(steps)
        while True:
            try:
                if type(step) is Send:
                    value = _carry(step, call)
                elif type(step) is Read:
                    value = step.run()
                else:
                    time.sleep(step.seconds)
                    value = None
            except FanError as exc:
                step = steps.throw(exc)
            else:
                step = steps.send(value)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    except FanError as exc:
        exc.target = exc.target or call.target
        raise
    finally:
        if steps is not None:
            steps.close()


class Mailbox:
    """Brings the outcomes of a transport's futures to one event loop.

    `asyncio.wrap_future` wakes the loop once per future, which is most of what an async call costs;
    here what arrives together wakes it once.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, pool: Callable[[], Pool]) -> None:
        #: Gives the threads for what a transport can only do in one.
        self.pool = pool
        # The App finds it by its loop, for as long as the loop lives: it must not keep it alive.
        self._loop = weakref.ref(loop)
        self._box: deque[tuple[asyncio.Future[Response], Future[Response]]] = deque()
        self._is_called = False

    def wait(self, source: Future[Response]) -> asyncio.Future[Response]:
        """A future of the loop with the outcome of `source`; cancelling it cancels `source`."""
        loop = self._loop()
        assert loop is not None  # it is running
        waiter: asyncio.Future[Response] = loop.create_future()
        waiter.add_done_callback(lambda w: source.cancel() if w.cancelled() else None)
        source.add_done_callback(partial(self._arrived, waiter))
        return waiter

    def _arrived(self, waiter: asyncio.Future[Response], source: Future[Response]) -> None:
        self._box.append((waiter, source))
        if not self._is_called:
            self._is_called = True
            loop = self._loop()
            if loop is not None:
                with contextlib.suppress(RuntimeError):  # it is closed: nobody waits any more
                    loop.call_soon_threadsafe(self._empty)

    def _empty(self) -> None:
        self._is_called = False  # first: what arrives from here on calls again
        while self._box:
            waiter, source = self._box.popleft()
            if waiter.done():
                continue
            if source.cancelled():
                waiter.cancel()
            elif (exc := source.exception()) is not None:
                waiter.set_exception(exc)
            else:
                waiter.set_result(source.result())


async def drive_async(chain: CallNext, call: Call, mailbox: Mailbox) -> Response:
    """Run a call in a task; cancelling the task cancels what is in flight."""
    steps: Steps | None = None
    try:
        steps = chain(call)
        step = next(steps)
        while True:
            try:
                if type(step) is Send:
                    value = await _carry_async(step, call, mailbox)
                elif type(step) is Read:
                    value = await apart(mailbox.pool(), step.run, call)
                else:
                    assert type(step) is Sleep
                    import asyncio

                    await asyncio.sleep(step.seconds)
                    value = None
            except FanError as exc:
                step = steps.throw(exc)
            else:
                step = steps.send(value)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    except FanError as exc:
        exc.target = exc.target or call.target
        raise
    finally:
        if steps is not None:
            steps.close()


class Background:
    """Runs a call without a thread that waits for it: each outcome takes it to its next step.

    `future` has what `decode` makes of the response; cancelling it cancels what is in flight.
    `read` runs what may wait for the registry, in a thread of its own: an outcome may arrive in one
    that all calls need.
    """

    def __init__(
        self,
        chain: CallNext,
        call: Call,
        decode: Callable[[Response], Any],
        read: Callable[[Callable[[], Any], Call], Future[Any]],
    ) -> None:
        from concurrent.futures import Future

        self._read = read
        self._steps: Steps | None = None
        self._call = call
        self._decode = decode
        self._in_flight: Future[Any] | None = None
        self.future: Future[Any] = Future()
        self.future.add_done_callback(self._cancelled)
        self._go(partial(self._begin, chain))

    def _begin(self, chain: CallNext) -> Any:
        self._steps = chain(self._call)
        return next(self._steps)

    def _next(self, value: Any) -> Any:
        """Tell the layers the outcome of their step, a value or an error."""
        assert self._steps is not None
        if isinstance(value, FanError):
            return self._steps.throw(value)
        return self._steps.send(value)

    def _go(self, resume: Callable[[], Any]) -> None:
        if self.future.cancelled():  # while it paused
            self._end()
            return
        try:
            while True:
                step = resume()
                if type(step) is Sleep:
                    wake = threading.Timer(step.seconds, self._go, (partial(self._next, None),))
                    wake.daemon = True
                    wake.start()
                    return
                try:
                    if type(step) is Read:
                        sent = self._read(step.run, self._call)
                    else:
                        sent = step.transport.submit(step.address, step.request)
                except FanError as exc:
                    resume = partial(self._next, exc)
                    continue
                self._in_flight = sent
                if self.future.cancelled():
                    sent.cancel()
                sent.add_done_callback(self._arrived)
                return
        except StopIteration as stop:
            self._finish(partial(self._decode, stop.value))
        except BaseException as exc:
            self._finish(partial(_reraise, exc, self._call.target))

    def _arrived(self, sent: Future[Any]) -> None:
        if sent.cancelled():
            self._end()
        elif isinstance(exc := sent.exception(), FanError):
            self._go(partial(self._next, exc))
        elif exc is not None:
            self._finish(partial(_reraise, exc, self._call.target))
        else:
            self._go(partial(self._next, sent.result()))

    def _end(self) -> None:
        if self._steps is not None:
            self._steps.close()

    def _finish(self, produce: Callable[[], Any]) -> None:
        self._end()
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(produce())
        except BaseException as exc:
            self.future.set_exception(exc)

    def _cancelled(self, future: Future[Any]) -> None:
        if future.cancelled() and self._in_flight is not None:
            self._in_flight.cancel()


def _reraise(exc: BaseException, target: str) -> Any:
    if isinstance(exc, FanError):
        exc.target = exc.target or target
    raise exc


def _carry(step: Send, call: Call) -> Any:
    kind = step.request.kind
    if kind == "call":
        return step.transport.call(step.address, step.request, marks=step.marks)
    if kind == "stream":
        return _open(step, call)
    if kind == "event":
        return step.transport.publish(step.address, step.request)
    return step.transport.send(step.address, step.request)


async def _carry_async(step: Send, call: Call, mailbox: Mailbox) -> Any:
    if step.request.kind == "call":
        answer = step.transport.acall(step.address, step.request)
        if answer is not None:
            return await answer
    if step.request.kind in step.transport.submits:
        return await mailbox.wait(step.transport.submit(step.address, step.request))
    return await apart(mailbox.pool(), partial(_carry, step, call), call)


async def apart(pool: Pool, run: Callable[[], Any], call: Call) -> Any:
    """What `run` returns, in a thread. Raises DeadlineExceeded, executed no, where none is free
    within the time of the call."""
    from contextvars import copy_context

    from fan.pool import awaited

    late = partial(unbegun, call.service, call.method)
    return await awaited(pool, partial(copy_context().run, run), call.deadline, late)


def unbegun(service: str, method: str) -> DeadlineExceeded:
    """The error for what found no thread within its time."""
    return DeadlineExceeded(
        f"{service}.{method}: no thread was free within the deadline, nothing was sent",
        reason="client_timer",
        executed=NO,
    )


def _open(step: Send, call: Call) -> Response:
    """Begin a stream and take its first response: until then an attempt can be repeated."""
    chunks = step.transport.stream(step.address, step.request)
    try:
        first: Response | None = next(chunks, None)
    except BaseException:
        chunks.close()
        raise
    if first is None:
        raise Internal("the stream ended without an end", reason="malformed_reply")
    call.chunks = chunks
    return first
