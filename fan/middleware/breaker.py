"""Leaves an instance's method alone that keeps failing, and after a while sends one probe.

pybreaker keeps the states. It would hold its lock during the call and count by the wall clock, so
the calls run outside of it, and only outcomes are recorded, under the clock that is used here. It
is imported at the first failure: it costs 140 ms, since it loads redis.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

from fan.errors import FanError, Unavailable
from fan.middleware.base import Call, CallNext, Middleware, Steps

#: Failures in a row that open a breaker.
FAILURES = 5
#: Seconds until an open breaker lets a probe through.
RESET = 10.0
#: Failing (service, method, instance) at most; beyond, the oldest is forgotten (of instances long
#: gone).
MAX_CIRCUITS = 4096

#: Codes that speak against the instance. The rest are answers, from something that works.
COUNTED_CODES = frozenset({"unknown", "deadline_exceeded", "internal", "unavailable", "data_loss"})
#: What says nothing either way: the caller gave up, or a limit of either side was reached.
NEUTRAL_CODES = frozenset({"cancelled", "resource_exhausted"})
NEUTRAL_REASONS = frozenset({"draining", "circuit_open"})

Key = tuple[str, str, str]


class Breaker(Middleware):
    """One breaker per service, method and instance (its version where there is no instance, its
    address where there is no version); sits below the choice of the instance.

    After `failures` in a row it refuses at once; after `reset` seconds exactly one call may probe,
    and its outcome closes the breaker or opens it again. A success forgets earlier failures.
    """

    is_per_attempt: ClassVar[bool] = True

    def __init__(
        self,
        *,
        failures: int = FAILURES,
        reset: float = RESET,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if failures < 1:
            raise ValueError(
                f"{failures} failures cannot open a breaker; leave the layer out instead"
            )
        self.failures = failures
        self.reset = reset
        self._clock = clock
        self.start_over()

    def start_over(self) -> None:
        """Forget all failures: the parent's probes are not this process's."""
        self._circuits: dict[Key, _Circuit] = {}
        self._lock = threading.Lock()

    def on_call(self, call: Call, next: CallNext) -> Steps:
        """Raises Unavailable(circuit_open), not executed, at once."""
        if not call.options.breaker:
            return (yield from next(call))
        circuits, probed = self._circuits, None
        if circuits and (key := _key(call)) in circuits:
            probed = self._admit(key, call)
        try:
            response = yield from next(call)
        except FanError as error:
            self._judge(_key(call), probed, error)
            raise
        except Exception:  # an application's own class that is no FanError: an answer
            self._succeeded(_key(call), probed)
            raise
        except BaseException:  # closed or cancelled: no verdict, but the next one may probe
            if probed is not None:
                self._release(probed)
            raise
        if circuits and (key := _key(call)) in circuits:
            self._succeeded(key, probed)
        return response

    def _admit(self, key: Key, call: Call) -> _Circuit | None:
        """The circuit, when this call is its probe; None when it is closed."""
        with self._lock:
            circuit = self._circuits.get(key)
            if circuit is None or circuit.machine.current_state == "closed":
                return None
            wait = circuit.opened_at + self.reset - self._clock()
            if wait <= 0 and not circuit.is_probing:
                if circuit.machine.current_state == "open":
                    circuit.machine.half_open()
                circuit.is_probing = True
                return circuit
        message = (
            f"{call.target} at {key[2]} failed {self.failures} times or more and is left alone"
        )
        if wait <= 0:
            raise Unavailable(f"{message} until a probe succeeds", reason="circuit_open")
        raise Unavailable(
            f"{message} for {wait:.1f} s",
            reason="circuit_open",
            retry_after_ms=int(wait * 1000) + 1,
        )

    def _judge(self, key: Key, probed: _Circuit | None, error: FanError) -> None:
        if error.code in NEUTRAL_CODES or error.reason in NEUTRAL_REASONS:
            if probed is not None:
                self._release(probed)
        elif error.code in COUNTED_CODES and not error.is_declared:
            self._failed(key, probed)
        elif key in self._circuits:
            self._succeeded(key, probed)

    def _release(self, probed: _Circuit) -> None:
        with self._lock:
            probed.is_probing = False

    def _failed(self, key: Key, probed: _Circuit | None) -> None:
        # Made before the lock is taken: the first time it imports pybreaker.
        fresh = None if key in self._circuits else _Circuit(self.failures, self.reset)
        with self._lock:
            circuit = self._circuits.get(key)
            if circuit is None:
                # Nothing is there though there was: a success has just forgotten the earlier
                # failures.
                if fresh is None:
                    return
                if len(self._circuits) >= MAX_CIRCUITS:
                    del self._circuits[next(iter(self._circuits))]
                circuit = self._circuits[key] = fresh
            if circuit is probed:
                circuit.is_probing = False
            elif circuit.machine.current_state != "closed":
                return  # began before it opened; only the probe counts now
            with contextlib.suppress(Exception):
                circuit.machine.call(_fail)
            if circuit.machine.current_state == "open":
                circuit.opened_at = self._clock()

    def _succeeded(self, key: Key, probed: _Circuit | None) -> None:
        with self._lock:
            circuit = self._circuits.get(key)
            if circuit is None:
                return
            if circuit is probed:
                circuit.is_probing = False
                circuit.machine.call(_pass)
            if circuit.machine.current_state == "closed":
                del self._circuits[key]


class _Circuit:
    """pybreaker's state machine, and what it lacks: a monotonic clock and a single probe."""

    __slots__ = ("is_probing", "machine", "opened_at")

    def __init__(self, failures: int, reset: float) -> None:
        import pybreaker

        self.machine: Any = pybreaker.CircuitBreaker(fail_max=failures, reset_timeout=reset)
        self.opened_at = 0.0
        self.is_probing = False


class _Failure(Exception):
    """Stands for the call's error, whose traceback shall not go through pybreaker."""


def _fail() -> NoReturn:
    raise _Failure


def _pass() -> None:
    pass


def _key(call: Call) -> Key:
    if call.instance is not None:
        where = call.instance.id
    else:
        where = call.version or (call.address.url if call.address is not None else "")
    return call.service, call.method, where
