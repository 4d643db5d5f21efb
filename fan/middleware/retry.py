"""Tries again what is safe to try again: elsewhere, after a pause, within deadline and budget.

Safe is what did not run (`executed` no) and what may run twice (an idempotent method). Pauses grow
exponentially with full jitter (Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture
Blog, 2015). The budget keeps retries from multiplying an overload: Finagle's RetryBudget (a fifth
of the calls, and a floor for quiet callers) and gRPC's retry throttling (proposal A6) do the same.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from fan.context import new_id
from fan.errors import MAYBE, NO, YES, FanError
from fan.middleware.base import Call, CallNext, Middleware, Sleep, Steps

#: Attempts after the first.
RETRIES = 2
#: Upper bound of the first pause in seconds; each further one doubles it.
DELAY = 0.02
#: No pause is drawn from more than this many seconds.
MAX_DELAY = 1.0
#: Retries as a share of calls, per service.
BUDGET = 0.2
#: Retries of one service that are allowed whatever the share, so that a lone first failure is
#: retried.
RESERVE = 10.0
#: Seconds in which one retry of the reserve comes back.
RESERVE_REFILL = 1.0
#: Most retries that calls may save up.
MAX_SAVED = 100.0

#: What an idempotent method is tried again after, though it may have run. The other codes fail the
#: same way again, or are the callee's answer.
IDEMPOTENT_CODES = frozenset({"unknown", "deadline_exceeded", "unavailable"})
#: Refusals of one instance that say nothing against the next one: retried at once and free of
#: charge, or draining one of two instances would use up the budget with its half of the first
#: attempts.
FREE_REASONS = frozenset({"draining", "circuit_open"})

_RANK = {NO: 0, MAYBE: 1, YES: 2}


class Retry(Middleware):
    """Repeats failed attempts; sits above the choice of the instance.

    `retries` may be overridden by a call's options; 0 means one attempt, but for a route that has
    gone elsewhere since: an entry call follows it once, outside of all budgets. The instance (or
    address, where there is no instance) of a failed attempt is put into `call.tried`;
    `call.attempt` counts, `call.key` stays and `call.id` is new for each attempt. `random` gives 0
    to 1.
    """

    def __init__(
        self,
        *,
        retries: int = RETRIES,
        delay: float = DELAY,
        max_delay: float = MAX_DELAY,
        budget: float = BUDGET,
        reserve: float = RESERVE,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] | None = None,
    ) -> None:
        self.retries = retries
        self._delay = delay
        self._max_delay = max_delay
        self._budget = budget
        self._reserve = reserve
        self._clock = clock
        self._random = random or _chance
        self.start_over()

    def start_over(self) -> None:
        """Begin with full budgets."""
        self._budgets: dict[str, Budget] = {}

    def on_call(self, call: Call, next: CallNext) -> Steps:
        """Raises the last attempt's error, whose `executed` then covers all attempts."""
        budget = self._budgets.get(call.service)
        if budget is None:
            budget = self._budgets.setdefault(
                call.service, Budget(self._budget, self._reserve, clock=self._clock)
            )
        budget.calls += 1
        try:
            return (yield from next(call))
        except FanError as exc:
            error = exc
        try:
            return (yield from self._again(call, next, budget, error))
        finally:
            del error  # it refers to this frame: without this, garbage for the cycle collector

    def _again(self, call: Call, next: CallNext, budget: Budget, error: FanError) -> Steps:
        limit = self.retries if call.options.retries is None else call.options.retries
        deadline = call.deadline or float("inf")
        executed, paid, is_repinned = error.executed, 0, False
        try:
            while limit > 0 or (_is_stale(error) and not is_repinned):
                where, is_first = _where(call), False
                if where:
                    is_first = where not in call.tried
                    call.tried.add(where)
                wait = 0.0
                if _is_stale(error):
                    # Only who pinned the generation may pin a newer one, and only when no part of
                    # the call tree can have run under the old one.
                    is_safe = executed == NO or call.is_idempotent
                    if is_repinned or not call.is_entry or not is_safe:
                        break
                    is_repinned = True
                    call.unpin()
                elif not (is_first and error.reason in FREE_REASONS and error.is_retryable):
                    if paid >= limit or not self._is_safe(call, error):
                        break
                    wait = self._pause(paid, error, call.options.retry_delay)
                    if self._clock() + wait >= deadline:
                        break
                    if not _has_own_plan(call) and not budget.withdraw():
                        break
                    paid += 1
                if wait:
                    yield Sleep(wait)
                if self._clock() >= deadline:
                    break
                _prepare(call, error)
                try:
                    return (yield from next(call))
                except FanError as exc:
                    error = exc
                    executed = max(executed, exc.executed, key=_RANK.__getitem__)
            error.executed = executed
            raise error
        finally:
            del error

    def _pause(self, paid: int, error: FanError, asked: float | None) -> float:
        pause = asked
        if pause is None:
            pause = self._random() * min(self._max_delay, self._delay * 2.0**paid)
        return pause + (error.retry_after_ms or 0) / 1000

    def _is_safe(self, call: Call, error: FanError) -> bool:
        if call.options.retries_all:
            return True
        if error.is_retryable:
            return error.reason != "payload_too_large"  # it is as large for anybody else
        return call.is_idempotent and error.code in IDEMPOTENT_CODES and not error.is_declared


class Budget:
    """A token bucket: a call puts in `share` of a token, a retry takes one out; `reserve` tokens
    are there at first, and come back with time."""

    def __init__(
        self, share: float, reserve: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        #: Calls so far. Counted without the lock: an increment lost between threads makes the
        #: budget smaller by a fraction of one retry, and every call is spared the lock.
        self.calls = 0
        self._share = share
        self._reserve = self._tokens = reserve
        self._seen = 0
        self._clock = clock
        self._since = clock()
        self._lock = threading.Lock()

    def withdraw(self) -> bool:
        """Whether there is a retry to spend; if so it is spent."""
        with self._lock:
            now, calls = self._clock(), self.calls
            saved = self._share * max(0, calls - self._seen)
            idle = max(0.0, now - self._since) / RESERVE_REFILL
            refilled = max(self._tokens, min(self._reserve, self._tokens + idle))
            self._tokens = max(self._tokens, min(MAX_SAVED, refilled + saved))
            self._seen, self._since = calls, now
            # A tenth of 0.2 summed five times is not quite one.
            if self._tokens < 1.0 - 1e-9:
                return False
            self._tokens -= 1.0
            return True


def _is_stale(error: FanError) -> bool:
    """Whether the version that was called takes no calls any more."""
    return error.reason == "stale_route" and error.code == "failed_precondition"


def _where(call: Call) -> str:
    if call.instance is not None:
        return call.instance.id
    return call.address.url if call.address is not None else ""


def _has_own_plan(call: Call) -> bool:
    """Whether the caller said itself how it is tried again, rather than how often at most."""
    return call.options.retries_all or call.options.retry_delay is not None


def _prepare(call: Call, error: FanError) -> None:
    if not (call.options.retries_all and error.executed == YES):
        # Under a new key what has failed runs again, instead of being answered the same.
        call.key = call.key or call.id
    call.id = new_id()
    call.attempt += 1
    call.instance = call.address = None


def _chance() -> float:
    """0 to 1. Few calls are made again, and every start would feel the import."""
    import random

    return random.random()
