"""Layers in a forked child: the parent's locks may be held, and what it does is not done here."""

from __future__ import annotations

import pytest

from fan import errors
from fan.middleware import logs
from fan.middleware.breaker import Breaker
from fan.middleware.bulkhead import Bulkhead, ClientBulkhead
from fan.middleware.dedupe import Dedupe
from fan.middleware.metrics import Metrics
from fan.middleware.retry import Retry


@pytest.mark.parametrize("layer", [Breaker(), Dedupe(), Metrics()], ids=lambda x: type(x).__name__)
def test_a_lock_that_another_thread_held_is_nobody_s(layer):
    layer._lock.acquire()
    layer.start_over()
    assert layer._lock.acquire(blocking=False)


def test_the_lock_of_the_log_factory_is_nobody_s():
    layer = logs.Logs()
    logs._lock.acquire()
    layer.start_over()
    layer.close()
    assert not logs._lock.locked()


@pytest.mark.parametrize(("cls", "side"), [(Bulkhead, "request"), (ClientBulkhead, "call")])
def test_all_places_are_free_and_stay_as_many(
    clock, callee, make_call, make_inbound, unfinished, cls, side
):
    layer = cls(limit=1)
    made = {"request": make_inbound, "call": make_call}[side]
    around = getattr(layer, f"on_{side}")
    before = around(made(), unfinished)
    next(before)
    layer.start_over()
    assert layer.in_use("shop") == 0
    before.close()  # the place was the parent's
    here = around(made(), unfinished)
    next(here)
    with pytest.raises(errors.ResourceExhausted):
        clock.drive(around(made(), callee()))
    here.close()


def test_what_ran_is_remembered_and_what_was_running_runs_here(
    clock, callee, make_inbound, unfinished
):
    layer, inner = Dedupe(clock=clock), callee()
    clock.drive(layer.on_request(make_inbound(key="done"), inner))
    running = layer.on_request(make_inbound(key="running"), unfinished)
    next(running)
    layer.start_over()
    clock.drive(layer.on_request(make_inbound(key="done"), inner))
    assert len(inner.seen) == 1
    clock.drive(layer.on_request(make_inbound(key="running"), inner))
    assert len(inner.seen) == 2
    running.close()


def test_failures_and_budgets_begin_anew(clock, callee, make_call):
    breaker = Breaker(failures=1, clock=clock)
    with pytest.raises(errors.Unknown):
        clock.drive(breaker.on_call(make_call(), callee(errors.Unknown("no"))))
    with pytest.raises(errors.Unavailable, match="left alone"):
        clock.drive(breaker.on_call(make_call(), callee()))
    breaker.start_over()
    assert clock.drive(breaker.on_call(make_call(), callee())).code == "ok"
    retry = Retry(retries=1, reserve=1.0, budget=0.0, clock=clock)
    for _ in range(2):
        inner = callee(errors.Unavailable("no"))
        assert clock.drive(retry.on_call(make_call(), inner)).code == "ok"
        retry.start_over()


def test_metrics_count_from_zero(clock, callee, make_call):
    layer = Metrics()
    clock.drive(layer.on_call(make_call(), callee()))
    layer.start_over()
    assert layer.snapshot() == []
