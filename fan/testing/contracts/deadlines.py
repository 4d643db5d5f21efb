"""Behaviours 11 to 15: every call ends within its budget, and a late reply harms nobody."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest

import fan
from fan.errors import Cancelled, DeadlineExceeded, FanError
from fan.testing.contracts.bare import answering
from fan.testing.contracts.callers import Caller
from fan.testing.contracts.harness import Harness, World, needs
from fan.testing.contracts.probe import BOUND, Probe, probe

#: Seconds of a budget that ends while its handler runs: time enough to get there on a busy machine.
BRIEF = 1.0


class Deadlines(Harness):
    """Time-outs, budgets and cancellation."""

    @pytest.mark.parametrize("method", ["hold", "hold_async"])
    def test_a_slow_handler_is_deadline_exceeded(
        self, caller: Caller, served: Probe, method: str
    ) -> None:
        warm(caller)
        failure = caller.using(timeout=BRIEF).failure(f"probe.{method}", "slow")
        assert isinstance(failure, DeadlineExceeded)
        assert failure.reason in ("client_timer", "server_timer")
        assert failure.executed in ("maybe", "yes")
        assert failure.target == f"probe.{method}"
        assert not served.gate("slow").is_set()  # nobody had to release it

    def test_a_late_reply_is_dropped_and_the_next_call_gets_its_own(
        self, caller: Caller, served: Probe
    ) -> None:
        warm(caller)
        for n in range(3):
            failure = caller.using(timeout=BRIEF).failure("probe.hold", n)
            assert isinstance(failure, DeadlineExceeded)
            served.wait_entered()
            served.gate(n).set()
            assert caller.call("probe.echo", n)["args"] == [n]

    def test_a_reply_that_drips_in_is_deadline_exceeded(self, world: World, caller: Caller) -> None:
        listener, address = self.listen(world)
        dripping = caller.using(peers=(address.url,), timeout=BRIEF, retries=0)
        with listener, answering(listener, self.drip, gap=0.02):
            failure = dripping.failure("probe.add", 1)
        assert isinstance(failure, DeadlineExceeded)
        assert (failure.reason, failure.executed) == ("client_timer", "maybe")

    def test_a_server_that_accepts_and_says_nothing_is_deadline_exceeded(
        self, world: World, caller: Caller
    ) -> None:
        listener, address = self.listen(world)
        with listener:
            failure = caller.using(peers=(address.url,), timeout=0.3, retries=0).failure(
                "probe.add", 1
            )
        assert isinstance(failure, DeadlineExceeded)

    def test_a_call_without_a_deadline_gets_the_default(self, caller: Caller) -> None:
        remaining = caller.call("probe.budget")
        assert 0 < remaining <= 5.0

    def test_a_call_gets_the_budget_that_it_names(self, caller: Caller) -> None:
        assert 5.0 < caller.using(timeout=40.0).call("probe.budget") <= 40.0

    def test_a_methods_own_budget_is_its_callers_default(self, caller: Caller) -> None:
        assert 0 < caller.call("probe.budget_of_its_own") <= 3.0

    def test_the_apps_own_budget_is_the_default(self, world: World, face: Any) -> None:
        world.serve(probe(), timeout=30.0)
        assert 5.0 < face(world.client(timeout=30.0)).call("probe.budget") <= 30.0

    @pytest.mark.parametrize("method", ["relay", "relay_async"])
    def test_the_budget_shrinks_from_hop_to_hop(
        self, world: World, face: Callable[[Any], Caller], method: str
    ) -> None:
        serve_three(world)
        path = ["beta", "gamma"]
        hops = face(world.client()).using(timeout=20.0).call(f"alpha.{method}", path)
        left = [hop["remaining"] for hop in hops]
        assert 20.0 >= left[0] >= left[1] >= left[2] > 5.0
        assert [hop["service"] for hop in hops] == ["alpha", "beta", "gamma"]

    def test_a_spent_budget_makes_no_call(self, world: World, face: Any) -> None:
        below = probe("below")
        world.serve(probe("above"))
        world.serve(below)
        failure = face(world.client()).using(timeout=0.2).failure("above.spend", "below.echo")
        assert isinstance(failure, FanError)
        world.close()  # whatever was on its way has arrived
        assert below.runs["echo"] == 0

    def test_an_expired_request_never_runs_and_its_caller_is_told(
        self, world: World, served: Probe, caller: Caller
    ) -> None:
        past = int(time.time() * 1000) - 1000
        response = world.send(caller.client, world.request("probe.add", b"[1]", deadline_ms=past))
        assert (response.code, response.reason) == ("deadline_exceeded", "expired_in_queue")
        assert response.executed == "no"
        assert served.runs["add"] == 0

    def test_a_deadline_that_is_over_sends_nothing(self, caller: Caller, served: Probe) -> None:
        with fan.Context.at(caller.client, own_deadline=time.monotonic() - 1.0):
            failure = caller.failure("probe.add", 1)
        assert isinstance(failure, DeadlineExceeded)
        assert failure.executed == "no"
        assert served.runs["add"] == 0

    def test_the_transport_survives_a_cancelled_call(self, caller: Caller, served: Probe) -> None:
        for n in range(5):
            pending = caller.start("probe.hold", n)
            served.wait_entered()
            pending.cancel()
            with pytest.raises((CancelledError, Cancelled)):
                pending.result()
            served.gate(n).set()
            assert caller.call("probe.echo", n)["args"] == [n]

    @needs("cancel")
    def test_a_handler_learns_that_its_caller_gave_up(self, caller: Caller, served: Probe) -> None:
        pending = caller.start("probe.until_cancelled")
        served.wait_entered()
        pending.cancel()
        assert served.closed.wait(BOUND)
        assert caller.call("probe.add", 1) == 2


def warm(caller: Caller) -> None:
    """Read the registry and connect, so that a short budget is one of the handler's."""
    assert caller.call("probe.add", 1) == 2


def serve_three(world: World) -> list[Probe]:
    """`alpha`, `beta` and `gamma`, each in an App of its own."""
    services = [probe(name) for name in ("alpha", "beta", "gamma")]
    for service in services:
        world.serve(service)
    return services
