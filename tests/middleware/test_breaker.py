"""The breaker's states, its single probe, and what counts."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fan import errors
from fan.message import Response
from fan.middleware.breaker import Breaker
from fan.model import Address


class OutOfStock(errors.FanError):
    """An application's own."""


@pytest.fixture
def layer(clock):
    return Breaker(failures=3, reset=10.0, clock=clock)


@pytest.fixture
def run(layer, clock, callee, make_call):
    """One call with that outcome; returns "ok", or the error's code or reason."""

    def run(outcome=None, **kwargs):
        inner = callee(outcome if outcome is not None else Response(id="1"))
        try:
            return clock.drive(layer.on_call(make_call(**kwargs), inner)).code
        except errors.FanError as error:
            return error.reason or error.code

    return run


def trip(run, **kwargs):
    for _ in range(3):
        run(errors.Unavailable("no", reason="connect_failed"), **kwargs)


def test_failures_in_a_row_open_it(run):
    trip(run)
    assert run() == "circuit_open"


def test_a_refusal_is_unexecuted_and_says_when_to_come_back(layer, clock, callee, make_call, run):
    trip(run)
    inner = callee()
    clock.now += 4
    with pytest.raises(errors.Unavailable) as caught:
        clock.drive(layer.on_call(make_call(), inner))
    assert (caught.value.executed, caught.value.retry_after_ms, inner.seen) == ("no", 6001, [])


def test_a_success_forgets_the_failures_before_it(run):
    for _ in range(5):
        run(errors.Unknown("no"))
        run(errors.Unknown("no"))
        assert run() == "ok"
    assert run() == "ok"


def test_a_healthy_method_keeps_no_state(layer, run):
    run(errors.Unknown("no"))
    run()
    assert layer._circuits == {}


@pytest.mark.parametrize("other", [{"instance": "two"}, {"method": "sell"}, {"service": "bank"}])
def test_others_are_unaffected(run, other):
    trip(run)
    assert run(**other) == "ok"


def test_versions_and_addresses_stand_in_for_instances(run):
    trip(run, instance="", version="1.0.0")
    trip(run, instance="", address=Address("http://a"))
    assert run(instance="", version="1.0.0") == "circuit_open"
    assert run(instance="", address=Address("http://a")) == "circuit_open"
    assert run(instance="", version="2.0.0") == "ok"
    assert run(instance="", address=Address("http://b")) == "ok"


COUNTED = [
    errors.Unknown("x"),
    errors.Unknown("x", reason="downstream_failed"),
    errors.RemoteError("x", type="ValueError"),
    errors.DeadlineExceeded("x", reason="client_timer"),
    errors.DeadlineExceeded("x", reason="expired_in_queue"),
    errors.Internal("x", reason="malformed_reply"),
    errors.Unavailable("x", reason="connection_lost"),
    errors.DataLoss("x"),
]
UNCOUNTED = [
    errors.Cancelled("x"),
    errors.InvalidArgument("x"),
    errors.NotFound("x"),
    errors.AlreadyExists("x"),
    errors.Aborted("x"),
    errors.PermissionDenied("x"),
    errors.Unauthenticated("x"),
    errors.ResourceExhausted("x"),
    errors.FailedPrecondition("x"),
    errors.OutOfRange("x"),
    errors.Unimplemented("x"),
    errors.Unavailable("x", reason="draining"),
    OutOfStock("x"),
]


def ids(error):
    return f"{type(error).__name__}-{error.reason}"


@pytest.mark.parametrize("error", COUNTED, ids=ids)
def test_it_counts(run, error):
    for _ in range(3):
        run(error)
    assert run() == "circuit_open"


@pytest.mark.parametrize("error", UNCOUNTED, ids=ids)
def test_it_does_not_count(run, error):
    for _ in range(9):
        run(error)
    assert run() == "ok"


def test_a_probe_that_succeeds_closes_it(run, clock):
    trip(run)
    clock.now += 10
    assert run() == "ok"
    assert run() == "ok"


def test_a_probe_that_fails_opens_it_for_as_long_again(run, clock):
    trip(run)
    clock.now += 10
    assert run(errors.DataLoss("x")) == "data_loss"
    clock.now += 9.9
    assert run() == "circuit_open"
    clock.now += 0.1
    assert run() == "ok"


@pytest.mark.parametrize("end", ["close", "neutral"])
def test_a_probe_without_a_verdict_leaves_its_place_to_the_next(
    layer, run, clock, make_call, unfinished, end
):
    trip(run)
    clock.now += 10
    probe = layer.on_call(make_call(), unfinished)
    next(probe)
    assert run() == "circuit_open"
    if end == "close":
        probe.close()
    else:
        with pytest.raises(errors.Cancelled):
            probe.throw(errors.Cancelled("x"))
    assert run() == "ok"


def test_an_exception_of_the_applications_own_is_an_answer(layer, run, clock, make_call, callee):
    trip(run)
    clock.now += 10
    with pytest.raises(LookupError):
        clock.drive(layer.on_call(make_call(), callee(LookupError("x"))))
    assert layer._circuits == {}


def test_what_began_before_it_opened_changes_nothing(layer, run, clock, make_call, unfinished):
    early, late = (layer.on_call(make_call(), unfinished) for _ in range(2))
    next(early)
    next(late)
    trip(run)
    with pytest.raises(StopIteration):
        early.send(Response(id="1"))
    assert run() == "circuit_open"
    clock.now += 9
    with pytest.raises(errors.Unknown):
        late.throw(errors.Unknown("x"))
    clock.now += 1
    assert run() == "ok"


def test_many_threads_get_one_probe_between_them(layer, run, clock, make_call):
    trip(run)
    clock.now += 10
    threads = 16
    gate, refused, entered = threading.Barrier(threads), threading.Barrier(threads), []

    def handler(call):
        entered.append(call)
        refused.wait(30)  # the probe ends when all the others were refused
        return Response(id="1")
        yield

    def work(_):
        gate.wait(30)
        try:
            return clock.drive(layer.on_call(make_call(), handler)).code
        except errors.Unavailable as error:
            refused.wait(30)
            return error.reason

    with ThreadPoolExecutor(threads) as pool:
        outcomes = list(pool.map(work, range(threads)))
    assert sorted(outcomes) == ["circuit_open"] * (threads - 1) + ["ok"]
    assert len(entered) == 1


def test_calls_run_at_once_while_failures_are_counted(layer, run, make_call, unfinished):
    run(errors.Unknown("x"))
    calls = [layer.on_call(make_call(), unfinished) for _ in range(5)]
    for call in calls:
        next(call)  # all five are in the middle of their call
    for call in calls:
        call.close()


def test_the_failures_of_instances_long_gone_are_dropped(layer, run, monkeypatch):
    monkeypatch.setattr("fan.middleware.breaker.MAX_CIRCUITS", 10)
    for number in range(30):
        run(errors.Unknown("x"), instance=f"i{number}")
    assert len(layer._circuits) == 10


def test_pybreaker_is_imported_at_the_first_failure_only():
    code = (
        "import sys; from fan.middleware.breaker import Breaker; Breaker();"
        "sys.exit('pybreaker' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_error_keeps_its_own_traceback(layer, clock, callee, make_call):
    error = errors.Unknown("x")
    with pytest.raises(errors.Unknown) as caught:
        clock.drive(layer.on_call(make_call(), callee(error)))
    assert not any("pybreaker" in str(entry.path) for entry in caught.traceback)


def test_whoever_wants_no_breaker_calls_all_the_same(run):
    trip(run)
    assert run(breaker=False) == "ok"
    assert run() == "circuit_open"
