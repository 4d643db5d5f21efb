"""Behaviours 19, 20 and 22: retries, de-duplication, breakers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import as_completed
from typing import Any

import pytest

from fan.errors import DeadlineExceeded, FanError, RemoteError, Unavailable
from fan.testing.contracts.callers import Caller
from fan.testing.contracts.deadlines import BRIEF
from fan.testing.contracts.harness import Harness, World
from fan.testing.contracts.probe import BOUND, Broken, Probe, probe

Face = Callable[[Any], Caller]


class Resilience(Harness):
    """What a client does about failures."""

    def test_an_idempotent_method_is_retried_and_sees_its_attempt(
        self, caller: Caller, served: Probe
    ) -> None:
        served.failures_left = 2
        assert caller.call("probe.flaky") == 2
        assert served.runs["flaky"] == 3

    def test_retries_end_after_the_attempts_allowed(self, caller: Caller, served: Probe) -> None:
        served.failures_left = 100
        failure = caller.using(retries=1).failure("probe.flaky")
        assert isinstance(failure, RemoteError)
        assert failure.type == Broken.__name__
        assert served.runs["flaky"] == 2

    def test_a_call_that_wants_no_retry_gets_none(self, caller: Caller, served: Probe) -> None:
        served.failures_left = 1
        assert isinstance(caller.using(retries=0).failure("probe.flaky"), RemoteError)
        assert served.runs["flaky"] == 1

    def test_a_method_that_is_not_idempotent_runs_once(self, caller: Caller, served: Probe) -> None:
        assert isinstance(caller.failure("probe.flaky_once"), RemoteError)
        assert served.runs["flaky_once"] == 1

    def test_a_business_error_is_not_retried(self, caller: Caller, served: Probe) -> None:
        caller.failure("probe.out_of_stock", "tea")
        assert served.runs["out_of_stock"] == 1

    def test_what_was_not_executed_is_retried_elsewhere(self, world: World, face: Face) -> None:
        service = probe()
        world.serve(service)
        world.ghost()
        caller = face(world.client())
        for n in range(10):
            assert caller.call("probe.add", n) == n + 1
        assert service.runs["add"] == 10

    def test_an_address_where_nobody_listens_is_connect_failed(
        self, world: World, face: Face
    ) -> None:
        world.ghost()
        failure = face(world.client(retries=0)).failure("probe.add", 1)
        assert isinstance(failure, Unavailable)
        assert (failure.reason, failure.executed) == ("connect_failed", "no")

    def test_retries_respect_the_deadline(self, world: World, face: Face) -> None:
        service = probe()
        service.failures_left = 1_000_000
        world.serve(service)
        caller = face(world.client(retries=1_000_000, retry_budget=1e9, breaker_failures=0))
        caller.call("probe.whoami")  # the registry is read, so that there is time for an attempt
        failure = caller.using(timeout=BRIEF).failure("probe.flaky")
        assert isinstance(failure, RemoteError | DeadlineExceeded)
        assert 1 <= service.runs["flaky"] < 1000

    def test_retries_respect_the_budget(self, world: World, face: Face) -> None:
        service = probe()
        service.failures_left = 1_000_000
        world.serve(service)
        caller = face(world.client(breaker_failures=0, retry_delay=0.0, retries=5))
        for _ in range(200):
            caller.failure("probe.flaky")
        assert 200 < service.runs["flaky"] <= 200 * 1.2 + 60  # a share, and a reserve

    def test_the_same_key_runs_once_and_gets_the_same_reply(
        self, caller: Caller, served: Probe
    ) -> None:
        keyed = caller.using(key="order-1")
        first = keyed.call("probe.whoami_and_when")
        assert keyed.call("probe.whoami_and_when") == first
        assert served.runs["whoami_and_when"] == 1
        assert caller.using(key="order-2").call("probe.whoami_and_when") != first
        assert served.runs["whoami_and_when"] == 2

    def test_the_same_key_of_another_method_is_another_call(
        self, caller: Caller, served: Probe
    ) -> None:
        keyed = caller.using(key="order-1")
        keyed.call("probe.whoami_and_when")
        assert keyed.call("probe.add", 1) == 2

    def test_calls_without_a_key_all_run(self, caller: Caller, served: Probe) -> None:
        for _ in range(3):
            caller.call("probe.whoami_and_when")
        assert served.runs["whoami_and_when"] == 3

    def test_the_breaker_opens_for_one_method_of_one_instance(
        self, world: World, face: Face
    ) -> None:
        service = probe()
        world.serve(service)
        caller = face(world.client(breaker_failures=3, breaker_reset=1000.0, retries=0))
        for _ in range(3):
            assert isinstance(caller.failure("probe.fail"), RemoteError)
        failure = caller.failure("probe.fail")
        assert isinstance(failure, Unavailable)
        assert (failure.reason, failure.executed) == ("circuit_open", "no")
        assert service.runs["fail"] == 3
        assert caller.call("probe.add", 1) == 2

    def test_time_outs_open_the_breaker(self, world: World, face: Face) -> None:
        service = probe()
        world.serve(service)
        caller = face(world.client(breaker_failures=3, breaker_reset=1000.0, retries=0))
        failure, late = caller.using(timeout=0.1).failure("probe.hold"), 0
        while isinstance(failure, DeadlineExceeded) and late < 50:
            late += 1
            failure = caller.using(timeout=0.1).failure("probe.hold")
        assert isinstance(failure, Unavailable)
        assert failure.reason == "circuit_open"
        # One that ran out of time before it was sent says nothing of the instance.
        assert service.runs["hold"] <= 3 <= late

    def test_business_errors_do_not_open_the_breaker(self, world: World, face: Face) -> None:
        world.serve(probe())
        caller = face(world.client(breaker_failures=3, breaker_reset=1000.0, retries=0))
        for _ in range(10):
            failure = caller.failure("probe.out_of_stock", "tea")
            assert isinstance(failure, FanError)
            assert failure.reason == "sold_out"

    def test_an_open_breaker_of_one_instance_leaves_the_others(
        self, world: World, face: Face
    ) -> None:
        broken, sound = probe(), probe()
        broken.is_broken = True
        world.serve(broken)
        world.serve(sound)
        caller = face(world.client(breaker_failures=3, breaker_reset=1000.0))
        outcomes = [_kind(caller, "probe.work") for _ in range(60)]
        assert broken.runs["work"] == 3
        assert outcomes.count("RemoteError") == 3
        assert outcomes[-20:] == ["ok"] * 20

    def test_one_probe_goes_through_when_the_breaker_is_half_open(
        self, world: World, face: Face
    ) -> None:
        service = probe()
        world.serve(service)
        client = world.client(breaker_failures=3, breaker_reset=0.2, retries=0)
        caller = face(client).using(timeout=4 * BOUND)
        service.is_broken = True
        for _ in range(3):
            caller.failure("probe.work")
        service.is_broken = False
        threading.Event().wait(0.4)  # the reset time itself
        service.is_held = True
        pending = [caller.start("probe.work").future for _ in range(6)]
        for n, future in enumerate(as_completed(pending, BOUND), 1):
            if n < 6:
                with pytest.raises(Unavailable):
                    future.result()
            if n == 5:
                service.release()
        assert [f.exception() for f in pending].count(None) == 1
        service.is_held = False
        assert caller.call("probe.work") == service.instance_id


def _kind(caller: Caller, target: str) -> str:
    try:
        caller.call(target)
    except FanError as exc:
        return type(exc).__name__
    return "ok"
