"""The limit of nested calls."""

from __future__ import annotations

import pytest

from fan.context import Context
from fan.errors import FailedPrecondition
from fan.message import MAX_HOPS, Request
from fan.middleware.hops import Hops


def parent(hops):
    return Context(request=Request(id="p", service="a", method="b", timeout_ms=9, hops=hops))


def test_the_thirty_second_hop_is_made(clock, callee, make_call):
    inner = callee()
    clock.drive(Hops().on_call(make_call(parent=parent(MAX_HOPS - 1)), inner))
    assert len(inner.seen) == 1


def test_a_deeper_call_is_not_made(clock, callee, make_call):
    inner = callee()
    with pytest.raises(FailedPrecondition, match="circle") as caught:
        clock.drive(Hops().on_call(make_call(parent=parent(MAX_HOPS)), inner))
    assert (caught.value.reason, caught.value.executed) == ("max_hops", "no")
    assert inner.seen == []


def test_local_calls_count_as_hops(clock, callee, make_call):
    here = parent(MAX_HOPS - 1)
    with pytest.raises(FailedPrecondition):
        clock.drive(Hops().on_call(make_call(parent=Context(parent=here)), callee()))


def test_the_server_takes_the_last_allowed_hop(clock, callee, make_inbound):
    inner = callee()
    clock.drive(Hops().on_request(make_inbound(hops=MAX_HOPS), inner))
    assert len(inner.seen) == 1


def test_the_server_refuses_what_a_caller_should_not_have_sent(clock, callee, make_inbound):
    inner = callee()
    with pytest.raises(FailedPrecondition) as caught:
        clock.drive(Hops().on_request(make_inbound(hops=MAX_HOPS + 1), inner))
    assert caught.value.details == {"hops": 33, "limit": 32}
    assert inner.seen == []
