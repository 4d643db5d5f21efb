"""One execution for one key, over several processes: the answers are in a ledger."""

from __future__ import annotations

import pytest

from fan import errors
from fan.context import Context
from fan.message import Response
from fan.middleware.dedupe import Dedupe
from fan.transports.base import Ledger


class MemoryLedger(Ledger):
    """A ledger in a dictionary."""

    def __init__(self) -> None:
        self.claims: dict[str, str] = {}
        self.answers: dict[str, bytes] = {}
        self.is_down = False

    def claim(self, key, holder, *, ttl, deadline):
        if self.is_down:
            raise errors.Unavailable("the ledger is down", executed="no")
        if key in self.answers:
            return self.answers[key]
        return b"" if self.claims.setdefault(key, holder) == holder else None

    def settle(self, key, holder, answer, *, ttl, deadline):
        if self.is_down:
            raise errors.Unavailable("the ledger is down", executed="no")
        if self.claims.get(key) == holder:
            del self.claims[key]
            if answer is not None:
                self.answers[key] = answer


@pytest.fixture
def ledger():
    return MemoryLedger()


@pytest.fixture
def make(make_inbound):
    def inbound(**kwargs):
        made = make_inbound(**{"key": "k", **kwargs})
        made.dedupe = "shared"
        return made

    return inbound


def process(ledger):
    """The layer of another process on the same ledger."""
    return Dedupe(ledger=lambda: ledger)


def test_another_process_answers_what_the_first_did(ledger, clock, callee, make):
    inner = callee(Response(id="a", body=b"1", served="1.0.0/one"))
    first = clock.drive(process(ledger).on_request(make(id="a"), inner))
    again = clock.drive(process(ledger).on_request(make(id="b"), inner))
    assert len(inner.seen) == 1
    assert (again.body, again.served, again.id) == (first.body, first.served, "b")


def test_a_failure_that_ran_is_repeated_elsewhere(ledger, clock, callee, make):
    inner = callee(errors.RemoteError("no", type="ValueError", details={"a": 1}, reason="r"))
    for _ in range(2):
        with pytest.raises(errors.RemoteError, match="ValueError: no") as caught:
            clock.drive(process(ledger).on_request(make(), inner))
        assert (caught.value.executed, caught.value.details) == ("yes", {"a": 1})
    assert len(inner.seen) == 1


def test_what_did_not_run_may_run_elsewhere(ledger, clock, callee, make):
    inner = callee(errors.Unavailable("full", executed="no"))
    with pytest.raises(errors.Unavailable):
        clock.drive(process(ledger).on_request(make(), inner))
    clock.drive(process(ledger).on_request(make(), inner))
    assert len(inner.seen) == 2


def test_other_arguments_under_the_same_key_are_refused(ledger, clock, callee, make):
    clock.drive(process(ledger).on_request(make(body=b"1"), callee()))
    with pytest.raises(errors.InvalidArgument, match="other arguments") as caught:
        clock.drive(process(ledger).on_request(make(body=b"2"), callee()))
    assert caught.value.reason == "key_reused"


def test_a_duplicate_waits_and_is_told_when_the_first_outlasts_it(
    ledger, clock, callee, make, unfinished
):
    first = process(ledger).on_request(make(), unfinished)
    next(first)
    late = make(timeout_ms=1)
    late.context = Context.at(None, "shop", "buy", request=late.request, own_deadline=0.0)
    with pytest.raises(errors.Aborted) as caught:
        clock.drive(process(ledger).on_request(late, callee()))
    assert (caught.value.reason, caught.value.executed) == ("duplicate_in_progress", "no")
    with pytest.raises(StopIteration):
        first.send(Response(id="r"))
    assert len(ledger.answers) == 1


def test_a_request_that_was_given_up_leaves_its_key_free(ledger, clock, callee, make, unfinished):
    first = process(ledger).on_request(make(), unfinished)
    next(first)
    first.close()
    inner = callee()
    clock.drive(process(ledger).on_request(make(), inner))
    assert len(inner.seen) == 1


def test_nothing_runs_while_the_ledger_cannot_be_asked(ledger, clock, callee, make):
    ledger.is_down = True
    inner = callee()
    with pytest.raises(errors.Unavailable, match="down"):
        clock.drive(process(ledger).on_request(make(), inner))
    assert inner.seen == []


def test_an_answer_that_cannot_be_kept_is_answered_all_the_same(
    ledger, clock, callee, make, caplog
):
    def goes_down(_):
        ledger.is_down = True
        return Response(id="r", body=b"1")

    answer = clock.drive(process(ledger).on_request(make(), callee(goes_down)))
    assert answer.body == b"1"
    assert "an answer could not be kept: the ledger is down" in caplog.text


def test_only_methods_that_ask_for_it_are_kept_there(ledger, clock, callee, make_inbound):
    clock.drive(process(ledger).on_request(make_inbound(key="k"), callee()))
    assert ledger.answers == {}
