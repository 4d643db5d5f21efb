"""Calls from coroutines over Redis.

What the tasks of an event loop ask for in one of its turns leaves in one send, from the loop's own
thread, and answers that arrive together wake it once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING
from weakref import ref

from fan.errors import FanError
from fan.message import Request, Response
from fan.transports.redis_keys import Source
from fan.transports.redis_loop import FEW_TASKS
from fan.transports.redis_pending import Outcome, Pending

if TYPE_CHECKING:
    from fan.transports.redis_calls import Calls

_NEVER = float("inf")


class OfTask(Pending):
    """A task waits."""

    __slots__ = ("future", "tasks")

    def __init__(
        self, request: Request, source: Source, tasks: Tasks, future: asyncio.Future[Response]
    ) -> None:
        super().__init__(request, source)
        self.tasks = tasks
        self.future = future

    def finish(self, outcome: Outcome) -> None:
        self.tasks.arrived(self, outcome)


class Tasks:
    """The calls of the tasks of one event loop, which it does not keep alive. All but `arrived` is
    for the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, calls: Calls) -> None:
        self._loop = ref(loop)
        self._calls = calls
        self._waiting: set[OfTask] = set()
        self._box: deque[tuple[OfTask, Outcome]] = deque()
        #: Whether the loop was woken for the box and has not looked yet.
        self._is_called = False
        #: Whether the loop was asked to send and has not done so yet.
        self._is_nudged = False
        #: When the deadlines are looked at next.
        self._wakes_at = _NEVER

    def __repr__(self) -> str:
        return f"<Tasks {len(self._waiting)} waiting>"

    async def call(self, request: Request, source: Source) -> Response:
        """`Transport.acall`."""
        loop = asyncio.get_running_loop()
        call = OfTask(request, source, self, loop.create_future())
        self._calls.begin(call, is_sent_later=True)
        self._waiting.add(call)
        if len(self._waiting) == FEW_TASKS + 1:
            self._calls.crowd(self, is_crowd=True)
        if call.deadline < self._wakes_at:
            self._wakes_at = call.deadline
            loop.call_later(call.deadline - call.began, self._look_at_deadlines)
        if len(self._waiting) == 1:
            self._calls.send()
        elif not self._is_nudged:
            self._is_nudged = True
            loop.call_soon(self._send)
        try:
            return await call.future
        except asyncio.CancelledError:
            if call.future.done() and not call.future.cancelled():
                call.future.exception()  # it came too late to be seen, and is no accident
            raise
        finally:
            self._waiting.discard(call)
            if len(self._waiting) == FEW_TASKS:
                self._calls.crowd(self, is_crowd=False)
            self._calls.drop(call)

    def arrived(self, call: OfTask, outcome: Outcome) -> None:
        """A call has ended. From any thread."""
        self._box.append((call, outcome))
        if not self._is_called:
            self._is_called = True
            loop = self._loop()
            if loop is not None:
                try:
                    loop.call_soon_threadsafe(self._empty)
                except RuntimeError:  # it is closed: nobody waits any more
                    self._calls.crowd(self, is_crowd=False)

    def _empty(self) -> None:
        self._is_called = False  # first: what arrives from here on calls again
        while self._box:
            call, outcome = self._box.popleft()
            if call.future.done():
                continue
            if isinstance(outcome, FanError):
                call.future.set_exception(outcome)
            else:
                call.future.set_result(outcome)

    def _send(self) -> None:
        self._is_nudged = False
        self._calls.send()

    def _look_at_deadlines(self) -> None:
        now = time.monotonic()
        if now < self._wakes_at:
            return  # an earlier one was set meanwhile, and looks itself
        for call in [call for call in self._waiting if call.deadline <= now]:
            self._calls.expire(call)
        left = (call.deadline for call in self._waiting if call.deadline > now)
        self._wakes_at = min(left, default=_NEVER)
        if self._wakes_at < _NEVER:
            asyncio.get_running_loop().call_later(self._wakes_at - now, self._look_at_deadlines)
