"""Budgets of time."""

from __future__ import annotations

import pytest

from fan.context import Context
from fan.errors import DeadlineExceeded
from fan.middleware.deadline import Deadline


@pytest.fixture
def layer(clock):
    return Deadline(clock=clock, wall=lambda: 5000.0)


def test_a_call_without_a_deadline_gets_the_default(layer, clock, callee, make_call):
    call = make_call(deadline=0.0)
    clock.drive(layer.on_call(call, callee()))
    assert call.deadline == 1005.0


def test_a_child_gets_what_its_parent_has_left(layer, clock, callee, make_call):
    call = make_call(deadline=1005.0, parent=Context(own_deadline=1002.0))
    clock.drive(layer.on_call(call, callee()))
    assert call.deadline == 1002.0


def test_a_child_may_want_less_than_its_parent_has(layer, clock, callee, make_call):
    call = make_call(deadline=1001.0, parent=Context(own_deadline=1002.0))
    clock.drive(layer.on_call(call, callee()))
    assert call.deadline == 1001.0


def test_a_parent_without_a_deadline_takes_nothing_away(layer, clock, callee, make_call):
    call = make_call(deadline=1005.0, parent=Context())
    clock.drive(layer.on_call(call, callee()))
    assert call.deadline == 1005.0


def test_a_spent_budget_makes_no_downstream_call(layer, clock, callee, make_call):
    inner = callee()
    with pytest.raises(DeadlineExceeded) as caught:
        clock.drive(layer.on_call(make_call(parent=Context(own_deadline=1000.0)), inner))
    assert (caught.value.executed, inner.seen) == ("no", [])


def test_the_handler_sees_the_deadline_of_its_request(layer, clock, callee, make_inbound):
    inbound = make_inbound(timeout_ms=700)
    clock.drive(layer.on_request(inbound, callee()))
    assert inbound.context.deadline == pytest.approx(1000.7)


def test_the_dispatchers_deadline_counts_from_receipt(layer, clock, callee, make_inbound):
    inbound = make_inbound(timeout_ms=700)
    inbound.context.own_deadline = 1000.2
    clock.drive(layer.on_request(inbound, callee()))
    assert inbound.context.deadline == 1000.2


def test_the_senders_absolute_deadline_counts_where_it_is_sooner(
    layer, clock, callee, make_inbound
):
    inbound = make_inbound(timeout_ms=700, deadline_ms=5_000_300)
    clock.drive(layer.on_request(inbound, callee()))
    assert inbound.context.deadline == pytest.approx(1000.3)


def test_a_later_absolute_deadline_changes_nothing(layer, clock, callee, make_inbound):
    inbound = make_inbound(timeout_ms=700, deadline_ms=5_009_000)
    clock.drive(layer.on_request(inbound, callee()))
    assert inbound.context.deadline == pytest.approx(1000.7)


@pytest.mark.parametrize("sent", [{"timeout_ms": 0}, {"deadline_ms": 4_999_999}])
def test_a_request_that_expired_on_its_way_does_not_run(layer, clock, callee, make_inbound, sent):
    inner = callee()
    with pytest.raises(DeadlineExceeded) as caught:
        clock.drive(layer.on_request(make_inbound(**sent), inner))
    assert (caught.value.reason, caught.value.executed) == ("expired_in_queue", "no")
    assert inner.seen == []


def test_what_a_push_does_outlasts_the_time_of_its_sender(layer, clock, callee, make_inbound):
    inbound = make_inbound(kind="push", deadline_ms=1)
    assert clock.drive(layer.on_request(inbound, callee())).code == "ok"
