"""Latencies as counts in buckets: three significant digits in constant memory, whatever their
number.

The buckets and the text of `percentile_lines` are HdrHistogram's
(https://hdrhistogram.github.io/HdrHistogram), which plotters read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Self

#: Bits of a value that are kept: 2**11 buckets per power of two differ by a thousandth at most.
_BITS = 11
#: Lines of the percentile text between one halving of what is left and the next.
_TICKS = 5
_NS_PER_MS = 1e6


class Histogram:
    """Durations in nanoseconds. Recording takes no lock: one thread records, others may read."""

    __slots__ = ("_counts", "longest", "shortest", "total")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        #: The longest and the shortest one, exactly, and the sum of all.
        self.longest = 0
        self.shortest = 0
        self.total = 0

    def __repr__(self) -> str:
        return f"<Histogram count={self.count} p50={self.percentile(50):.3f}ms>"

    def record(self, ns: int) -> None:
        """Count one duration."""
        shift = ns.bit_length() - _BITS
        bucket = ns >> shift << shift if shift > 0 else ns
        counts = self._counts
        counts[bucket] = counts.get(bucket, 0) + 1
        self.total += ns
        if ns > self.longest:
            self.longest = ns
        if ns < self.shortest or not self.shortest:
            self.shortest = ns

    @property
    def count(self) -> int:
        """How many were recorded."""
        return sum(self._counts.copy().values())

    @classmethod
    def merged(cls, parts: Iterable[Histogram]) -> Self:
        """One histogram of several."""
        whole = cls()
        for part in parts:
            for bucket, count in part._counts.copy().items():
                whole._counts[bucket] = whole._counts.get(bucket, 0) + count
            whole.total += part.total
            whole.longest = max(whole.longest, part.longest)
            if part.shortest and (part.shortest < whole.shortest or not whole.shortest):
                whole.shortest = part.shortest
        return whole

    def percentile(self, percent: float) -> float:
        """Milliseconds that `percent` of all do not exceed; 0 where there are none."""
        wanted = max(1, math.ceil(self.count * percent / 100 - 1e-9))
        for bucket, up_to in self._running():
            if up_to >= wanted:
                return self._shown(bucket)
        return 0.0

    def mean(self) -> float:
        """Milliseconds on average; 0 where there are none."""
        count = self.count
        return self.total / count / _NS_PER_MS if count else 0.0

    def deviation(self) -> float:
        """The standard deviation in milliseconds."""
        count, mean = self.count, self.mean()
        if not count:
            return 0.0
        squares = ((b / _NS_PER_MS - mean) ** 2 * n for b, n in self._counts.copy().items())
        return math.sqrt(sum(squares) / count)

    def bars(self, rows: int) -> list[tuple[float, int]]:
        """At most `rows` steps from the shortest to the longest, in a geometric row: the upper end
        of each in milliseconds, and how many are in it."""
        if not self._counts:
            return []
        low, high = max(1, self.shortest), max(1, self.longest)
        ratio = (high / low) ** (1 / rows)
        ends = [low * ratio**row for row in range(1, rows)] if ratio > 1.0001 else []
        ends.append(float(high))
        found = [0] * len(ends)
        for bucket, count in self._counts.copy().items():
            found[next(row for row, end in enumerate(ends) if bucket <= end)] += count
        return [(end / _NS_PER_MS, count) for end, count in zip(ends, found, strict=True)]

    def percentile_lines(self) -> Iterator[str]:
        """HdrHistogram's percentile text in milliseconds, for its plotters."""
        yield f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}"
        yield ""
        count, percent = self.count, 0.0
        steps = self._running() if count else iter(())
        bucket, up_to = next(steps, (0, 0))
        while count:
            while up_to * 100 < percent * count:
                bucket, up_to = next(steps)
            value = self._shown(bucket)
            if up_to >= count:
                yield f"{value:12.3f} {1.0:2.12f} {count:10d}"
                break
            share = percent / 100
            yield f"{value:12.3f} {share:2.12f} {up_to:10d} {1 / (1 - share):14.2f}"
            halvings = int(math.log2(100 / (100 - percent))) + 1
            percent += 100 / (2**halvings * _TICKS)
        longest = self.longest / _NS_PER_MS
        yield f"#[Mean    = {self.mean():12.3f}, StdDeviation   = {self.deviation():12.3f}]"
        yield f"#[Max     = {longest:12.3f}, Total count    = {count:12d}]"
        yield f"#[Buckets = {64 - _BITS:12d}, SubBuckets     = {2**_BITS:12d}]"

    def _running(self) -> Iterator[tuple[int, int]]:
        """Each bucket, ascending, and how many are in it and below."""
        up_to = 0
        for bucket, count in sorted(self._counts.copy().items()):
            up_to += count
            yield bucket, up_to

    def _shown(self, bucket: int) -> float:
        """Milliseconds of a bucket: its upper end, as HdrHistogram has it, or the longest."""
        shift = max(0, bucket.bit_length() - _BITS)
        return min(bucket + (1 << shift) - 1, self.longest) / _NS_PER_MS
