"""Keeps a call within its time: a child gets what its parent has left, and no more."""

from __future__ import annotations

import time
from collections.abc import Callable

from fan.errors import NO, DeadlineExceeded
from fan.message import DEFAULT_TIMEOUT_MS
from fan.middleware.base import Call, CallNext, Inbound, InboundNext, Middleware, Steps


class Deadline(Middleware):
    """The budget of a call: its own timeout or what its parent has left, whichever is less.

    `default` is the seconds of a call that comes without a deadline. `clock` is monotonic; `wall`
    tells the epoch seconds that a queued request's `deadline_ms` is compared with.
    """

    def __init__(
        self,
        *,
        default: float = DEFAULT_TIMEOUT_MS / 1000,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.default = default
        self._clock = clock
        self._wall = wall

    def on_call(self, call: Call, next: CallNext) -> Steps:
        """Sets `call.deadline`. Raises DeadlineExceeded(client_timer), executed no."""
        now = self._clock()
        deadline = call.deadline or now + self.default
        if call.parent is not None:
            inherited = call.parent.deadline
            if inherited is not None and inherited < deadline:
                deadline = inherited
        call.deadline = deadline
        if deadline <= now:
            raise DeadlineExceeded(
                f"no time is left to call {call.target}", reason="client_timer", executed=NO
            )
        return next(call)

    def on_request(self, inbound: Inbound, next: InboundNext) -> Steps:
        """Sets the context's deadline: the dispatcher's, taken at receipt, else `timeout_ms` from
        now; the `deadline_ms` of who waits for the answer, where that is sooner. Raises
        DeadlineExceeded(expired_in_queue), not executed, when it is over: nobody waits for the
        answer, so the work would be wasted."""
        request, context, now = inbound.request, inbound.context, self._clock()
        deadline = context.own_deadline
        if deadline is None:
            deadline = now + request.timeout_ms / 1000
        if request.deadline_ms is not None and request.kind in ("call", "stream"):
            deadline = min(deadline, now + request.deadline_ms / 1000 - self._wall())
        context.own_deadline = deadline
        if deadline <= now:
            raise DeadlineExceeded(
                f"{request.service}.{request.method} came {now - deadline:.3f} s too late",
                reason="expired_in_queue",
            )
        return next(inbound)
