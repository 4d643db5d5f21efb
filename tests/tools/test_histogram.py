"""Histograms of latencies: three digits, percentiles, and the text that plotters read."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan.tools.histogram import Histogram

durations = st.lists(st.integers(1, 10**12), min_size=1, max_size=200)


def of(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@given(durations, st.sampled_from([0.0, 1.0, 50.0, 90.0, 99.0, 99.9, 100.0]))
def test_a_percentile_is_right_to_a_thousandth(values: list[int], percent: float) -> None:
    exact = sorted(values)[max(0, -(-len(values) * percent // 100).__int__() - 1)] / 1e6
    assert exact <= of(values).percentile(percent) <= exact * 1.001 + 1e-9


@given(durations, durations)
def test_merging_is_recording_all(one: list[int], other: list[int]) -> None:
    merged, whole = Histogram.merged([of(one), of(other)]), of(one + other)
    assert list(merged.percentile_lines()) == list(whole.percentile_lines())
    assert (merged.shortest, merged.longest) == (min(one + other), max(one + other))


@given(durations, st.integers(1, 20))
def test_the_bars_hold_every_value_once(values: list[int], rows: int) -> None:
    bars = of(values).bars(rows)
    assert sum(count for _, count in bars) == len(values)
    assert len(bars) <= rows
    assert bars[-1][0] == pytest.approx(max(values) / 1e6)


def test_nothing_recorded_is_zeros_and_no_error() -> None:
    empty = Histogram()
    assert (empty.count, empty.percentile(99), empty.mean(), empty.bars(5)) == (0, 0.0, 0.0, [])
    assert "Total count    =            0]" in "\n".join(empty.percentile_lines())


def test_the_percentile_text_is_that_of_hdrhistogram() -> None:
    lines = list(of([ms * 1_000_000 for ms in range(1, 1001)]).percentile_lines())
    assert lines[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    rows = [line.split() for line in lines[2:-3]]
    assert all(re.fullmatch(r"\d+\.\d{3}", row[0]) for row in rows)
    assert rows[0][1:] == ["0.000000000000", "1", "1.00"]
    assert ["0.500000000000", "500", "2.00"] in [row[1:] for row in rows]
    assert rows[-1][1:] == ["1.000000000000", "1000"]
    shares = [float(row[1]) for row in rows]
    assert shares == sorted(shares)
    assert re.fullmatch(r"#\[Mean    = +\d+\.\d{3}, StdDeviation   = +\d+\.\d{3}\]", lines[-3])
    assert re.fullmatch(r"#\[Max     = +1000\.000, Total count    = +1000\]", lines[-2])
