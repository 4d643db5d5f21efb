"""What is tried again, how often, when, and by whom."""

from __future__ import annotations

import contextlib
import gc

import pytest

from fan import errors
from fan.context import Context
from fan.message import Request, Response
from fan.middleware.retry import Budget, Retry
from fan.model import Address, Instance


class OutOfStock(errors.FanError):
    """An application's own."""


def refused(**kwargs):
    return errors.Unavailable("no", reason="connect_failed", **kwargs)


def lost():
    return errors.Unavailable("no", reason="connection_lost")


def draining():
    return errors.Unavailable("no", reason="draining")


def stale():
    return errors.FailedPrecondition("no", reason="stale_route")


@pytest.fixture
def layer(clock):
    return Retry(delay=0.1, max_delay=1.0, clock=clock, random=lambda: 1.0)


@pytest.fixture
def attempts(layer, clock, callee, make_call):
    """Runs one call over a script of outcomes; returns how often it was tried."""

    def attempts(*script, call=None, layer=layer, **kwargs):
        inner = callee(*script)
        try:
            clock.drive(layer.on_call(call or make_call(**kwargs), inner))
        except errors.FanError:
            assert inner.script == []
        return len(inner.seen)

    return attempts


def picking(*instances):
    """Outcomes preceded by the choice of an instance, as the layer below would make it."""

    def step(instance, error):
        def outcome(call):
            call.instance = Instance(id=instance, service="shop", version="1.0.0")
            return error if error is not None else Response(id="r")

        return outcome

    return [step(*pair) for pair in instances]


def test_what_did_not_run_is_tried_again(attempts):
    assert attempts(refused()) == 2


def test_three_attempts_by_default(attempts):
    assert attempts(refused(), refused(), refused()) == 3


def test_what_may_have_run_is_not_tried_again(attempts):
    assert attempts(lost()) == 1


@pytest.mark.parametrize(
    "error", [lost(), errors.Unknown("x"), errors.DeadlineExceeded("x", reason="server_timer")]
)
def test_an_idempotent_method_may_run_again(attempts, error):
    assert attempts(error, is_idempotent=True) == 2


NEVER = [
    errors.Cancelled("x"),
    errors.InvalidArgument("x"),
    errors.NotFound("x"),
    errors.AlreadyExists("x"),
    errors.PermissionDenied("x"),
    errors.Unauthenticated("x"),
    errors.ResourceExhausted("x", reason="payload_too_large"),
    errors.FailedPrecondition("x", reason="paused"),
    errors.OutOfRange("x"),
    errors.Unimplemented("x"),
    errors.Internal("x"),
    errors.DataLoss("x"),
    OutOfStock("x"),
]


@pytest.mark.parametrize("error", NEVER, ids=lambda e: f"{type(e).__name__}-{e.reason}")
def test_what_fails_the_same_way_again_is_not_repeated(attempts, error):
    assert attempts(error, is_idempotent=True) == 1


def test_options_override_the_number(attempts):
    assert attempts(*[refused()] * 6, retries=5) == 6
    assert attempts(refused(), retries=0) == 1
    assert attempts(draining(), retries=0) == 1


def test_pauses_double_with_full_jitter_up_to_a_limit(clock, attempts):
    attempts(*[refused()] * 8, retries=7, deadline=2000.0)
    assert clock.slept == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0])
    clock.slept.clear()
    attempts(refused(), layer=Retry(delay=0.1, clock=clock, random=lambda: 0.25))
    assert clock.slept == pytest.approx([0.025])


def test_a_callee_says_when_to_come_back(clock, attempts):
    attempts(errors.ResourceExhausted("x", reason="bulkhead_full", retry_after_ms=500))
    assert clock.slept == pytest.approx([0.6])


def test_no_pause_goes_past_the_deadline(clock, attempts):
    assert attempts(refused(retry_after_ms=5000)) == 1
    assert clock.slept == []
    assert attempts(refused(), deadline=clock.now + 0.05) == 1


def test_an_attempt_that_used_up_the_time_is_the_last(clock, attempts):
    def late(_):
        clock.now += 10
        return refused()

    assert attempts(late) == 1


def test_the_failed_instance_is_noted_and_the_next_attempt_counted(layer, clock, callee, make_call):
    call, seen = make_call(), []
    inner = callee(*picking(("one", refused()), ("two", refused()), ("three", None)))

    def watched(call):
        seen.append((call.attempt, call.id, call.key, set(call.tried), call.instance))
        return inner(call)

    clock.drive(layer.on_call(call, watched))
    assert [(n, tried) for n, _, _, tried, _ in seen] == [
        (0, set()),
        (1, {"one"}),
        (2, {"one", "two"}),
    ]
    assert len({id for _, id, *_ in seen}) == 3
    assert [key for _, _, key, *_ in seen] == ["", "id-1", "id-1"]
    assert [picked for *_, picked in seen[1:]] == [None, None]


def test_an_address_stands_in_for_an_instance(attempts, make_call):
    call = make_call(instance="", address=Address("http://a"))
    attempts(refused(), call=call)
    assert call.tried == {"http://a"}


def test_a_key_of_the_users_own_is_kept(attempts, make_call):
    call = make_call(key="mine")
    attempts(refused(), call=call)
    assert call.key == "mine"


def test_the_last_error_is_raised(layer, clock, callee, make_call):
    last = errors.DeadlineExceeded("last", reason="expired_in_queue")
    with pytest.raises(errors.DeadlineExceeded, match="last") as caught:
        clock.drive(layer.on_call(make_call(), callee(refused(), refused(), last)))
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("first", "whole"), [(refused(), "no"), (lost(), "maybe"), (errors.Unknown("x"), "yes")]
)
def test_executed_covers_all_attempts(layer, clock, callee, make_call, first, whole):
    inner = callee(first, refused(), refused())
    with pytest.raises(errors.Unavailable) as caught:
        clock.drive(layer.on_call(make_call(is_idempotent=True), inner))
    assert caught.value.executed == whole


def test_draining_moves_on_at_once_and_for_free(layer, clock, callee, make_call):
    empty = Retry(budget=0.0, reserve=0.0, clock=clock)
    outcomes = picking(*((f"i{n}", draining()) for n in range(6)), ("up", None))
    assert clock.drive(empty.on_call(make_call(), callee(*outcomes))).code == "ok"
    assert clock.slept == []


def test_an_open_breaker_moves_on_at_once_and_for_free(clock, callee, make_call):
    empty = Retry(budget=0.0, reserve=0.0, clock=clock)
    is_open = errors.Unavailable("x", reason="circuit_open", retry_after_ms=9000)
    inner = callee(*picking(("one", is_open), ("two", None)))
    assert clock.drive(empty.on_call(make_call(), inner)).code == "ok"
    assert clock.slept == []


def test_a_second_refusal_of_the_same_instance_is_an_ordinary_failure(clock, attempts):
    assert attempts(*picking(*[("one", draining())] * 4)) == 4
    assert clock.slept == pytest.approx([0.1, 0.2])


def test_the_entry_repins_a_stale_route_once(attempts, make_call):
    call = make_call(gen=7)
    assert attempts(stale(), call=call) == 2
    assert call.gen == 0
    assert attempts(stale(), stale()) == 2


def test_a_stale_route_costs_nothing(clock, attempts):
    assert attempts(stale(), layer=Retry(budget=0.0, reserve=0.0, clock=clock)) == 2
    assert clock.slept == []


def parent(gen):
    return Context(request=Request(id="p", service="a", method="b", timeout_ms=9, gen=gen))


def test_a_hop_in_the_middle_passes_a_stale_route_on(attempts):
    assert attempts(stale(), parent=parent(7)) == 1


def test_a_handler_whose_caller_pinned_nothing_is_the_entry(attempts):
    assert attempts(stale(), parent=parent(0)) == 2


def test_a_stale_route_is_not_followed_after_something_ran(attempts):
    assert attempts(refused(), stale()) == 3
    ran = stale()
    ran.executed = "yes"
    assert attempts(ran) == 1


def test_retries_stay_within_a_fifth_of_the_calls(clock, callee, make_call):
    layer = Retry(reserve=3.0, clock=clock, random=lambda: 0.0)
    calls, tries = 500, 0
    for _ in range(calls):
        inner = callee(*[refused()] * 3)
        with pytest.raises(errors.Unavailable):
            clock.drive(layer.on_call(make_call(), inner))
        tries += len(inner.seen)
    assert tries - calls == pytest.approx(0.2 * calls + 3, abs=1)


def test_budgets_are_per_service(clock, attempts):
    layer = Retry(budget=0.0, reserve=1.0, clock=clock)
    assert attempts(refused(), refused(), layer=layer) == 2
    assert attempts(refused(), layer=layer) == 1
    assert attempts(refused(), layer=layer, service="other") == 2


def test_the_reserve_comes_back_with_time(clock):
    budget = Budget(0.0, 2.0, clock=clock)
    assert [budget.withdraw() for _ in range(3)] == [True, True, False]
    clock.now += 60
    assert [budget.withdraw() for _ in range(3)] == [True, True, False]


def test_savings_are_limited(clock):
    budget = Budget(0.2, 0.0, clock=clock)
    budget.calls = 100_000
    assert sum(budget.withdraw() for _ in range(1000)) == 100


def test_failed_calls_leave_no_garbage(layer, clock, make_call):
    class Gone(errors.Unavailable):
        pass

    def inner(_):
        raise Gone("x", reason="connect_failed")
        yield

    gc.disable()
    try:
        with contextlib.suppress(Gone):
            clock.drive(layer.on_call(make_call(), inner))
        assert not [o for o in gc.get_objects() if isinstance(o, Gone)]
    finally:
        gc.enable()


def test_whoever_names_the_pause_gets_it_every_time_and_spends_no_budget(clock, attempts):
    empty = Retry(budget=0.0, reserve=0.0, clock=clock, random=lambda: 1.0)
    assert attempts(*[refused()] * 4, layer=empty, retries=3, retry_delay=0.5) == 4
    assert clock.slept == [0.5, 0.5, 0.5]


def test_whatever_failed_is_tried_again_where_the_caller_says_so(attempts):
    again = {"retries": 2, "retries_all": True}
    assert attempts(lost(), OutOfStock("none"), **again) == 3
    assert attempts(errors.InvalidArgument("no"), retries=0, retries_all=True) == 1


def test_what_failed_for_certain_runs_again_under_a_new_key(layer, clock, callee, make_call):
    call = make_call(retries=2, retries_all=True)
    inner, keys = callee(errors.Unknown("x", executed="yes"), lost()), []

    def noting(call):
        keys.append(call.key or call.id)
        return inner(call)

    clock.drive(layer.on_call(call, noting))
    first, second, third = keys
    assert first != second == third


def test_a_stale_route_is_followed_also_where_nothing_is_retried(clock, attempts):
    layer = Retry(retries=0, clock=clock)
    assert attempts(stale(), layer=layer) == 2
    assert attempts(stale(), refused(), layer=layer) == 2
    assert attempts(stale(), stale(), layer=layer) == 2
