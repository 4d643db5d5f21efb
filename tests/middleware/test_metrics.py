"""Counting and timing of calls and requests."""

from __future__ import annotations

import contextlib

import pytest

from fan import errors
from fan.message import Response
from fan.middleware.metrics import BOUNDS, Metrics


@pytest.fixture
def layer(clock):
    return Metrics(clock=clock)


def taking(clock, seconds):
    def run(_):
        clock.now += seconds
        return Response(id="r")

    return run


def test_a_call_is_counted_by_outcome_and_timed(layer, clock, callee, make_call):
    inner = callee(taking(clock, 0.5), errors.Unavailable("no"), taking(clock, 0.25))
    for _ in range(3):
        with contextlib.suppress(errors.Unavailable):
            clock.drive(layer.on_call(make_call(), inner))
    ok, failed = layer.snapshot()
    assert (ok.side, ok.service, ok.method, ok.code) == ("call", "shop", "buy", "ok")
    assert (ok.count, ok.seconds) == (2, 0.75)
    assert (failed.code, failed.count) == ("unavailable", 1)


def test_a_time_is_in_each_bucket_that_is_wide_enough(layer, clock, callee, make_inbound):
    clock.drive(layer.on_request(make_inbound(), callee(taking(clock, 0.5))))
    (row,) = layer.snapshot()
    assert row.side == "request"
    assert row.buckets == tuple(int(bound >= 0.5) for bound in (*BOUNDS, 100.0))


def test_a_call_that_is_given_up_counts_as_cancelled(layer, make_call, unfinished):
    steps = layer.on_call(make_call(), unfinished)
    next(steps)
    steps.close()
    (row,) = layer.snapshot()
    assert row.code == "cancelled"


def test_the_text_is_a_prometheus_histogram(layer, clock, callee, make_call):
    clock.drive(layer.on_call(make_call(), callee(taking(clock, 0.5))))
    lines = layer.text().splitlines()
    assert lines[0] == "# TYPE fan_call_seconds histogram"
    labels = 'service="shop",method="buy",code="ok"'
    assert f'fan_call_seconds_bucket{{{labels},le="+Inf"}} 1' in lines
    assert f"fan_call_seconds_sum{{{labels}}} 0.500000" in lines
    assert f"fan_call_seconds_count{{{labels}}} 1" in lines
