"""Limits on what goes on at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fan.errors import ResourceExhausted, Unknown
from fan.message import Response
from fan.middleware.bulkhead import Bulkhead, ClientBulkhead


def test_the_request_above_the_limit_is_refused_unexecuted(clock, callee, make_inbound, unfinished):
    layer = Bulkhead(limit=1)
    first = layer.on_request(make_inbound(), unfinished)
    next(first)
    inner = callee()
    with pytest.raises(ResourceExhausted) as caught:
        clock.drive(layer.on_request(make_inbound(), inner))
    assert (caught.value.reason, caught.value.executed) == ("bulkhead_full", "no")
    assert inner.seen == []
    first.close()


def test_other_services_have_room_of_their_own(clock, callee, make_inbound, unfinished):
    layer = Bulkhead(limit=1)
    first = layer.on_request(make_inbound(), unfinished)
    next(first)
    assert clock.drive(layer.on_request(make_inbound(service="other"), callee())).code == "ok"
    first.close()


@pytest.mark.parametrize("outcome", [Response(id="1"), Unknown("no")])
def test_a_finished_request_gives_its_place_back(clock, callee, make_inbound, outcome):
    layer = Bulkhead(limit=1)
    steps = layer.on_request(make_inbound(), callee(outcome))
    with pytest.raises((Unknown, StopIteration)):
        next(steps)
    assert layer.in_use("shop") == 0


def test_a_closed_request_gives_its_place_back(make_inbound, unfinished):
    layer = Bulkhead(limit=1)
    steps = layer.on_request(make_inbound(), unfinished)
    next(steps)
    assert layer.in_use("shop") == 1
    steps.close()
    assert layer.in_use("shop") == 0


def test_threads_share_the_places_exactly(make_inbound, clock):
    layer, limit, threads = Bulkhead(limit=4), 4, 12
    start, decided = threading.Barrier(threads), threading.Barrier(threads)

    def handler(_):
        decided.wait(30)  # nobody leaves before everybody was let in or refused
        return Response(id="1")
        yield

    def work(_):
        start.wait(30)
        try:
            return clock.drive(layer.on_request(make_inbound(), handler)).code
        except ResourceExhausted as error:
            decided.wait(30)
            return error.reason

    with ThreadPoolExecutor(threads) as pool:
        outcomes = list(pool.map(work, range(threads)))
    assert sorted(outcomes) == ["bulkhead_full"] * (threads - limit) + ["ok"] * limit
    assert layer.in_use("shop") == 0


def test_the_callers_side_has_the_same_limit(clock, callee, make_call, unfinished):
    layer = ClientBulkhead(limit=1)
    first = layer.on_call(make_call(), unfinished)
    next(first)
    with pytest.raises(ResourceExhausted, match="the limit"):
        clock.drive(layer.on_call(make_call(), callee()))
    first.close()
    assert clock.drive(layer.on_call(make_call(), callee())).code == "ok"


def test_a_bulkhead_of_nothing_is_refused():
    with pytest.raises(ValueError, match="leave the layer out"):
        Bulkhead(limit=0)
