"""One execution for one key."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fan import errors
from fan.context import Context
from fan.message import Response
from fan.middleware.dedupe import Dedupe


@pytest.fixture
def layer(clock):
    return Dedupe(window=60.0, clock=clock)


def test_the_same_key_runs_once_and_answers_the_same(layer, clock, callee, make_inbound):
    inner = callee(Response(id="a", body=b"1", served="1.0.0/one"))
    first = clock.drive(layer.on_request(make_inbound(id="a", key="k"), inner))
    again = clock.drive(layer.on_request(make_inbound(id="b", key="k", attempt=1), inner))
    assert len(inner.seen) == 1
    assert (again.body, again.served, again.id) == (first.body, first.served, "b")


@pytest.mark.parametrize("key", ["", "id-1"])
def test_a_request_without_a_key_of_its_own_leaves_no_trace(
    layer, clock, callee, make_inbound, key
):
    inner = callee()
    for _ in range(2):
        clock.drive(layer.on_request(make_inbound(key=key), inner))
    assert len(inner.seen) == 2
    assert layer._answers == {}


@pytest.mark.parametrize(
    "other", [{"principal": "eve"}, {"service": "bank"}, {"method": "sell"}, {"key": "l"}]
)
def test_keys_are_scoped(layer, clock, callee, make_inbound, other):
    inner = callee()
    clock.drive(layer.on_request(make_inbound(key="k"), inner))
    clock.drive(layer.on_request(make_inbound(**{"key": "k", **other}), inner))
    assert len(inner.seen) == 2


def test_a_failure_that_ran_is_repeated(layer, clock, callee, make_inbound):
    error = errors.RemoteError("no", type="ValueError", details={"a": 1}, reason="r")
    inner = callee(error)
    for _ in range(2):
        with pytest.raises(errors.RemoteError, match="ValueError: no") as caught:
            clock.drive(layer.on_request(make_inbound(key="k"), inner))
        same = caught.value
        assert (same.code, same.type, same.details, same.executed, same.reason) == (
            *("unknown", "ValueError", {"a": 1}, "yes", "r"),
        )
    assert len(inner.seen) == 1


def test_an_error_of_a_built_in_class_comes_back_as_that(layer, clock, callee, make_inbound):
    inner = callee(errors.NotFound("no", executed="yes"))
    for _ in range(2):
        with pytest.raises(errors.NotFound):
            clock.drive(layer.on_request(make_inbound(key="k"), inner))
    assert len(inner.seen) == 1


def test_a_failure_that_did_not_run_is_forgotten(layer, clock, callee, make_inbound):
    inner = callee(errors.InvalidArgument("no"))
    with pytest.raises(errors.InvalidArgument):
        clock.drive(layer.on_request(make_inbound(key="k"), inner))
    assert clock.drive(layer.on_request(make_inbound(key="k"), inner)).code == "ok"


def test_an_idempotent_method_may_fail_and_run_again(layer, clock, callee, make_inbound):
    inner, same = callee(errors.Unknown("no")), {"key": "k", "is_idempotent": True}
    with pytest.raises(errors.Unknown):
        clock.drive(layer.on_request(make_inbound(**same), inner))
    for _ in range(2):
        assert clock.drive(layer.on_request(make_inbound(**same), inner)).code == "ok"
    assert len(inner.seen) == 2


def test_a_redelivered_push_runs_again_only_after_a_failure(layer, clock, callee, make_inbound):
    inner = callee(errors.Unknown("no"))
    with pytest.raises(errors.Unknown):
        clock.drive(layer.on_request(make_inbound(kind="push"), inner))
    for _ in range(2):
        clock.drive(layer.on_request(make_inbound(kind="push"), inner))
    assert len(inner.seen) == 2


def test_a_call_of_a_handler_runs_again_after_a_failure_and_not_after_a_success(
    layer, clock, callee, make_inbound
):
    inner, same = callee(errors.Unknown("no")), {"key": "the-push/1", "hops": 1}
    with pytest.raises(errors.Unknown):
        clock.drive(layer.on_request(make_inbound(id="1", **same), inner))
    for id in ("2", "3"):
        assert clock.drive(layer.on_request(make_inbound(id=id, **same), inner)).code == "ok"
    assert len(inner.seen) == 2


def test_a_failure_under_a_key_that_a_caller_chose_is_kept_whatever_the_key(
    layer, clock, callee, make_inbound
):
    inner = callee(errors.Unknown("no", executed="yes"))
    for _ in range(2):
        with pytest.raises(errors.Unknown):
            clock.drive(layer.on_request(make_inbound(key="order/1"), inner))
    assert len(inner.seen) == 1


def test_streams_are_let_through(layer, clock, callee, make_inbound):
    inner = callee()
    for _ in range(2):
        clock.drive(layer.on_request(make_inbound(key="k", kind="stream"), inner))
    assert len(inner.seen) == 2


def test_a_key_with_other_arguments_is_refused(layer, clock, callee, make_inbound):
    inner = callee()
    clock.drive(layer.on_request(make_inbound(key="k", body=b"1"), inner))
    with pytest.raises(errors.InvalidArgument, match="new key") as caught:
        clock.drive(layer.on_request(make_inbound(key="k", body=b"2"), inner))
    assert (caught.value.reason, len(inner.seen)) == ("key_reused", 1)


def test_a_parent_that_runs_again_may_order_its_calls_otherwise(layer, clock, callee, make_inbound):
    inner = callee()
    for body in (b"1", b"2", b"1"):
        clock.drive(layer.on_request(make_inbound(key="parent/1", body=body), inner))
    assert len(inner.seen) == 2


def test_calls_made_by_two_local_children_are_not_duplicates(make_inbound):
    parent = make_inbound(key="k").context
    keys = [Context(parent=parent).child_key(), Context(parent=parent).child_key()]
    assert [*keys, parent.child_key()] == ["k/1", "k/2", "k/3"]


def test_answers_expire(layer, clock, callee, make_inbound):
    inner = callee()
    clock.drive(layer.on_request(make_inbound(key="k"), inner))
    clock.now += 59
    clock.drive(layer.on_request(make_inbound(key="k"), inner))
    assert len(inner.seen) == 1
    clock.now += 1
    clock.drive(layer.on_request(make_inbound(key="k"), inner))
    assert len(inner.seen) == 2


def test_memory_is_limited_by_number_and_bytes(clock, callee, make_inbound):
    few = Dedupe(max_entries=3, clock=clock)
    small = Dedupe(max_bytes=5000, clock=clock)
    for number in range(10):
        inner = callee(Response(id="r", body=b"x" * 1000))
        clock.drive(few.on_request(make_inbound(key=f"k{number}"), callee()))
        clock.drive(small.on_request(make_inbound(key=f"k{number}"), inner))
    assert [key[3] for key in few._answers] == ["k7", "k8", "k9"]
    assert [key[3] for key in small._answers] == ["k8", "k9"]
    assert small._bytes == sum(answer.size for answer in small._answers.values())


def test_expired_answers_leave_the_memory(layer, clock, callee, make_inbound):
    clock.drive(layer.on_request(make_inbound(key="k"), callee()))
    clock.now += 60
    clock.drive(layer.on_request(make_inbound(key="l"), callee()))
    assert [key[3] for key in layer._answers] == ["l"]
    assert layer._running == {}


def test_a_duplicate_waits_for_the_first(layer, clock, make_inbound, unfinished, callee):
    first = layer.on_request(make_inbound(key="k"), unfinished)
    next(first)
    second = layer.on_request(make_inbound(key="k", id="b"), callee())
    next(second)
    with pytest.raises(StopIteration):
        first.send(Response(id="a", body=b"1"))
    assert clock.drive(second).body == b"1"


def test_a_duplicate_gives_up_before_its_own_deadline(
    layer, clock, callee, make_inbound, unfinished
):
    first = layer.on_request(make_inbound(key="k"), unfinished)
    next(first)
    begun, inner = clock.now, callee()
    with pytest.raises(errors.Aborted) as caught:
        clock.drive(layer.on_request(make_inbound(key="k", timeout_ms=1000), inner))
    assert (caught.value.reason, caught.value.is_retryable) == ("duplicate_in_progress", True)
    assert 0.8 < clock.now - begun < 1.0
    assert inner.seen == []
    first.close()


def test_a_duplicate_takes_over_when_the_first_was_abandoned(
    layer, clock, callee, make_inbound, unfinished
):
    first = layer.on_request(make_inbound(key="k"), unfinished)
    next(first)
    second = layer.on_request(make_inbound(key="k"), callee(Response(id="2")))
    next(second)
    first.close()
    assert clock.drive(second).id == "2"


def test_threads_with_one_key_run_the_handler_once(make_inbound, clock):
    layer, threads, runs = Dedupe(), 8, []
    gate = threading.Barrier(threads)

    def handler(inbound):
        runs.append(inbound)
        return Response(id="r", body=b"1")
        yield

    def work(number):
        gate.wait(30)
        return clock.drive(layer.on_request(make_inbound(key="k", id=f"{number}"), handler)).body

    with ThreadPoolExecutor(threads) as pool:
        assert list(pool.map(work, range(threads))) == [b"1"] * threads
    assert len(runs) == 1
