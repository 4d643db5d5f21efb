"""Load on one method: calls in a closed loop or on a timetable, and how long each took.

In a closed loop every worker sends its next call when the last one is answered. On a timetable
(`rate`) calls are due at fixed points, whatever the service does, and a latency counts from the
point at which the call was due: a stall then shows in every call that it held up, where a clock
that starts at the send would hide it ("coordinated omission",
https://www.infoq.com/presentations/latency-response-time/).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Self

import msgspec

from fan.codec import decode_result
from fan.endpoint import Endpoint
from fan.errors import FanError
from fan.tools.histogram import Histogram

if TYPE_CHECKING:
    from fan.client import Client

#: Workers on a timetable where the plan does not say.
WORKERS = 64
_NS = 1_000_000_000


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How much load: until `requests` were sent or `duration` seconds passed, whichever is first.

    `rate` is calls per second, 0 for a closed loop; `concurrency` the calls in flight at most, 0
    for 1 in a closed loop and `WORKERS` on a timetable. What is sent in the warm-up, of
    `warmup_requests` or `warmup` seconds, is not counted. On a timetable a call that could not be
    sent within `patience` seconds of its point fails without being sent.
    """

    requests: int | None = None
    duration: float | None = None
    rate: float = 0.0
    concurrency: int = 0
    warmup: float = 0.0
    warmup_requests: int = 0
    patience: float = 5.0

    @property
    def workers(self) -> int:
        """Calls in flight at most."""
        wanted = self.concurrency or (WORKERS if self.rate else 1)
        return min(wanted, self.requests) if self.requests else wanted

    @property
    def warm_up(self) -> LoadPlan | None:
        """The plan of what is not counted; None where everything is."""
        if not (self.warmup or self.warmup_requests):
            return None
        return msgspec.structs.replace(
            self, requests=self.warmup_requests or None, duration=self.warmup or None
        )


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a load so far. `latency` holds every request, failed ones too; `instances` the
    answered ones by `VERSION/INSTANCE`; `errors` counts by `CODE/REASON`."""

    elapsed: float
    latency: Histogram
    instances: dict[str, Histogram]
    errors: dict[str, int]

    @property
    def requests(self) -> int:
        """How many were answered or failed."""
        return self.latency.count

    @property
    def failed(self) -> int:
        """How many failed."""
        return sum(self.errors.values())

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.elapsed if self.elapsed else 0.0


class Load:
    """Sends one call over and over, as a plan says: `start()`, `wait()`, `report()`; closing it
    ends the workers."""

    def __init__(
        self, client: Client, target: str, content_type: str, body: bytes, plan: LoadPlan,
        *, is_stream: bool = False,
    ) -> None:  # fmt: skip
        self._call = _Call(client, target, content_type, body, is_stream)
        self.plan = plan
        self._phase: _Phase | None = None
        #: Whether what is sent counts by now.
        self.is_warm = False

    def __repr__(self) -> str:
        state = "idle" if self._phase is None else "running" if self._phase.is_on else "done"
        return f"<Load {self._call.name} {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin, with the warm-up where there is one."""
        warm_up = self.plan.warm_up
        self.is_warm = warm_up is None
        self._phase = _Phase(self._call, warm_up or self.plan)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end; False when `timeout` seconds pass first. From warm-up to what counts it
        goes on by itself."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (phase := self._phase) is not None and phase.join(deadline):
            if self.is_warm:
                return True
            self.is_warm = True
            self._phase = _Phase(self._call, self.plan)
        return False

    def report(self) -> LoadReport:
        """What was measured so far, of the warm-up while it lasts."""
        assert self._phase is not None, "start() comes first"
        return self._phase.report()

    def close(self, timeout: float = 1.0) -> None:
        """Send no more, and wait `timeout` seconds for the answers that are on their way. Twice
        does no harm."""
        if self._phase is not None:
            self._phase.stop()
            self._phase.join(time.monotonic() + timeout)


class _Call:
    """The call that is sent; a streaming method's is over when its stream is."""

    def __init__(
        self, client: Client, target: str, content_type: str, body: bytes, is_stream: bool
    ) -> None:
        self._client = client
        self._endpoint = Endpoint(client, target)
        self._payload = (content_type, body)
        self._is_stream = is_stream
        self.name = f"{self._endpoint.service}.{self._endpoint.method}"

    def send(self) -> str:
        """One call, and `VERSION/INSTANCE` of who answered. Raises FanError and the application's
        own errors."""
        if not self._is_stream:
            try:
                response = self._client.exchange("call", self._endpoint, *self._payload)
            except FanError as exc:
                if exc.reason != "streaming_unsupported":
                    raise
                self._is_stream = True  # nobody said so before; it has not run
            else:
                decode_result(response)
                return response.served
        served = ""
        chunks = self._client.open_stream(
            self._endpoint.service, self._endpoint.method, *self._payload
        )
        for response in chunks:
            served = response.served or served
        return served


class _Tally:
    """What one worker has measured. Only that worker writes."""

    __slots__ = ("answered", "errors", "failed")

    def __init__(self) -> None:
        self.answered: dict[str, Histogram] = {}
        self.failed = Histogram()
        self.errors: dict[str, int] = {}

    def answer(self, served: str, ns: int) -> None:
        found = self.answered.get(served)
        if found is None:
            found = self.answered[served] = Histogram()
        found.record(ns)

    def fail(self, error: str, ns: int) -> None:
        self.failed.record(ns)
        self.errors[error] = self.errors.get(error, 0) + 1


class _Phase:
    """One run of the workers."""

    def __init__(self, call: _Call, plan: LoadPlan) -> None:
        self._call = call
        self._plan = plan
        self._stop = threading.Event()
        self._turn: Callable[[], int] = count().__next__  # atomic: no lock on the way
        self._limit = plan.requests
        self._began = time.perf_counter_ns()
        self._until = self._began + int(plan.duration * _NS) if plan.duration else None
        self._ended: list[int] = []
        self._tallies = [_Tally() for _ in range(plan.workers)]
        work = self._keep_time if plan.rate else self._take_turns
        self._threads = [
            threading.Thread(target=work, args=(tally,), name="fan-load", daemon=True)
            for tally in self._tallies
        ]
        for thread in self._threads:
            thread.start()

    @property
    def is_on(self) -> bool:
        """Whether any worker still works."""
        return len(self._ended) < len(self._threads)

    def stop(self) -> None:
        """Begin no more calls."""
        self._stop.set()

    def join(self, deadline: float | None) -> bool:
        """Wait for the workers until a point of `time.monotonic()`; False when it comes first."""
        for thread in self._threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def report(self) -> LoadReport:
        """What was measured so far."""
        end = time.perf_counter_ns() if self.is_on else max(self._ended)
        parts: dict[str, list[Histogram]] = {}
        errors: dict[str, int] = {}
        for tally in self._tallies:
            for served, histogram in tally.answered.copy().items():
                parts.setdefault(served, []).append(histogram)
            for error, times in tally.errors.copy().items():
                errors[error] = errors.get(error, 0) + times
        instances = {served: Histogram.merged(each) for served, each in sorted(parts.items())}
        return LoadReport(
            elapsed=(end - self._began) / _NS,
            latency=Histogram.merged(
                [*instances.values(), *(tally.failed for tally in self._tallies)]
            ),
            instances=instances,
            errors=dict(sorted(errors.items())),
        )

    def _take_turns(self, tally: _Tally) -> None:
        """A worker in a closed loop."""
        turn, limit, until = self._turn, self._limit, self._until
        is_stopped, now, send = self._stop.is_set, time.perf_counter_ns, self._call.send
        began = now()
        while not (is_stopped() or (limit is not None and turn() >= limit)):
            if until is not None and began >= until:
                break
            self._one(tally, send, began)
            began = now()
        self._ended.append(now())

    def _keep_time(self, tally: _Tally) -> None:
        """A worker on a timetable: it takes the next point, and waits for it."""
        step, now, send = _NS / self._plan.rate, time.perf_counter_ns, self._call.send
        patience = int(self._plan.patience * _NS)
        while not self._stop.is_set():
            index = self._turn()
            due = self._began + int(index * step)
            is_over = self._until is not None and due >= self._until
            if is_over or (self._limit is not None and index >= self._limit):
                break
            early = due - now()
            if early > 0 and self._stop.wait(early / _NS):
                break
            if -early > patience:
                tally.fail("deadline_exceeded/not_sent", -early)
            else:
                self._one(tally, send, due)
        self._ended.append(now())

    @staticmethod
    def _one(tally: _Tally, send: Callable[[], str], began: int) -> None:
        try:
            served = send()
        except FanError as exc:
            why = exc.reason or exc.type or ""
            tally.fail(f"{exc.code}/{why}".rstrip("/"), time.perf_counter_ns() - began)
        except Exception as exc:
            # An error that the application declared comes back as itself.
            tally.fail(f"unknown/{type(exc).__name__}", time.perf_counter_ns() - began)
        else:
            tally.answer(served, time.perf_counter_ns() - began)
