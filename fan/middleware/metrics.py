"""Counts and times what an App calls and serves.

Times go into buckets that double, from 1/16 ms: what a Prometheus histogram is made of
(https://prometheus.io/docs/concepts/metric_types/#histogram), and enough to tell 10 ms from 20.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from fan.errors import FanError
from fan.middleware.base import Call, CallNext, Inbound, InboundNext, Middleware, Steps

#: Upper bounds of the buckets in seconds, 62.5 us to 64 s; the last one has no end.
BOUNDS = tuple(2.0**n / 16_000 for n in range(21))

Side = Literal["call", "request"]


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one method with one outcome: how often, how long in all (seconds), and how
    many took at most each of `BOUNDS` (the last: any time). `side` is "call" for what this App
    called, "request" for what it served; `code` is "ok" or an error's; `service` is empty and
    `method` the topic for an event that was published."""

    side: Side
    service: str
    method: str
    code: str
    count: int
    seconds: float
    buckets: tuple[int, ...]


class Metrics(Middleware):
    """One for an App. What a local call costs is not counted: it is the method itself."""

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.start_over()

    def start_over(self) -> None:
        """Count from zero: the parent counts its own."""
        self._rows: dict[tuple[Side, str, str, str], _Row] = {}
        self._lock = threading.Lock()

    def on_call(self, call: Call, next: CallNext) -> Steps:
        """Raises nothing of its own."""
        begun, code = self._clock(), "cancelled"
        try:
            response = yield from next(call)
            code = response.code
            return response
        except FanError as error:
            code = error.code
            raise
        except Exception:  # an application's own class
            code = "unknown"
            raise
        finally:
            self._count(("call", call.service, call.method or call.topic, code), begun)

    def on_request(self, inbound: Inbound, next: InboundNext) -> Steps:
        """Raises nothing of its own."""
        begun, code, request = self._clock(), "cancelled", inbound.request
        try:
            response = yield from next(inbound)
            code = response.code
            return response
        except FanError as error:
            code = error.code
            raise
        finally:
            self._count(("request", request.service, request.method, code), begun)

    def _count(self, key: tuple[Side, str, str, str], begun: float) -> None:
        seconds = self._clock() - begun
        place = bisect_left(BOUNDS, seconds)
        with self._lock:
            row = self._rows.get(key)
            if row is None:
                row = self._rows[key] = _Row()
            row.seconds += seconds
            row.buckets[place] += 1

    def snapshot(self) -> list[Metric]:
        """All that was counted so far, by side, service, method and code."""
        with self._lock:
            rows = [(key, row.seconds, tuple(row.buckets)) for key, row in self._rows.items()]
        return [
            Metric(
                side=side, service=service, method=method, code=code,
                count=sum(buckets), seconds=seconds, buckets=_summed(buckets),
            )
            for (side, service, method, code), seconds, buckets in sorted(rows)
        ]  # fmt: skip

    def text(self) -> str:
        """The same in Prometheus' text format, version 0.0.4
        (https://prometheus.io/docs/instrumenting/exposition_formats/)."""
        lines = []
        for side in ("call", "request"):
            rows = [row for row in self.snapshot() if row.side == side]
            if rows:
                lines.append(f"# TYPE fan_{side}_seconds histogram")
            for row in rows:
                lines += _lines(f"fan_{side}_seconds", row)
        return "".join(f"{line}\n" for line in lines)


class _Row:
    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.buckets = [0] * (len(BOUNDS) + 1)


def _summed(buckets: Iterable[int]) -> tuple[int, ...]:
    total, out = 0, []
    for n in buckets:
        total += n
        out.append(total)
    return tuple(out)


def _lines(name: str, row: Metric) -> Iterable[str]:
    labels = f'service="{row.service}",method="{row.method}",code="{row.code}"'
    for bound, count in zip((*BOUNDS, None), row.buckets, strict=True):
        upto = "+Inf" if bound is None else f"{bound:g}"
        yield f'{name}_bucket{{{labels},le="{upto}"}} {count}'
    yield f"{name}_sum{{{labels}}} {row.seconds:.6f}"
    yield f"{name}_count{{{labels}}} {row.count}"
