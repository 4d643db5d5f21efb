"""Behaviours 16 to 18: calls at the same time do not get in each other's way."""

from __future__ import annotations

import gc
import os
import threading
from typing import Any

import pytest

from fan.errors import ResourceExhausted
from fan.testing.contracts.callers import Caller, Planned
from fan.testing.contracts.harness import Harness, World
from fan.testing.contracts.probe import BOUND, Probe, probe

#: Calls made at once; fewer than a server's workers.
MANY = 16


class Concurrency(Harness):
    """Parallel calls, and what they leave behind."""

    def test_calls_run_at_the_same_time(self, caller: Caller, served: Probe) -> None:
        served.barrier = threading.Barrier(MANY)  # each waits for all
        caller = caller.using(timeout=2 * BOUND)
        calls: list[tuple[Caller, Planned]] = [
            (caller, ("probe.meet", (n,), {})) for n in range(MANY)
        ]
        assert caller.together(calls) == list(range(MANY))

    @pytest.mark.parametrize("method", ["hold", "hold_async"])
    def test_replies_out_of_order_reach_the_right_caller(
        self, caller: Caller, served: Probe, method: str
    ) -> None:
        caller = caller.using(timeout=2 * BOUND)
        pending = {n: caller.start(f"probe.{method}", n) for n in range(5)}
        assert {served.wait_entered() for _ in pending} == set(pending)
        for n in reversed(pending):
            served.gate(n).set()
            assert pending[n].result() == n

    def test_many_calls_each_get_their_own_answer(self, caller: Caller) -> None:
        calls: list[tuple[Caller, Planned]] = [
            (caller, ("probe.echo", (n,), {})) for n in range(100)
        ]
        assert [got["args"] for got in caller.together(calls)] == [[n] for n in range(100)]

    def test_calls_from_inside_a_handler_do_not_hang(self, world: World, face: Any) -> None:
        world.serve(probe("front"))
        world.serve(probe("back"))
        outcomes = face(world.client()).times(2 * MANY, "front.relay", ["back"])
        assert [[hop["service"] for hop in got] for got in outcomes] == [
            ["front", "back"] for _ in outcomes
        ]

    def test_a_service_can_call_itself_over_the_transport(self, world: World, face: Any) -> None:
        world.serve(probe("self"))
        hops = face(world.client()).call("self.relay", ["self"] * 7)
        assert len(hops) == 8

    def test_a_full_bulkhead_refuses_at_once(self, world: World, face: Any) -> None:
        service = probe()
        world.serve(service, bulkhead_requests=1)
        caller = face(world.client(retries=0))
        held = caller.using(timeout=10 * BOUND).start("probe.hold")
        service.wait_entered()
        failure = caller.using(timeout=10 * BOUND).failure("probe.echo")
        assert isinstance(failure, ResourceExhausted)
        assert (failure.reason, failure.executed) == ("bulkhead_full", "no")
        assert service.runs["echo"] == 0
        service.release()
        assert held.result() is None
        assert caller.call("probe.add", 1) == 2

    def test_a_full_bulkhead_of_the_caller_refuses_at_once(self, world: World, face: Any) -> None:
        service = probe()
        world.serve(service, bulkhead_calls=1)
        caller = face(world.client(retries=0, bulkhead_calls=1)).using(timeout=10 * BOUND)
        held = caller.start("probe.hold")
        service.wait_entered()
        failure = caller.failure("probe.echo")
        assert isinstance(failure, ResourceExhausted)
        assert (failure.reason, failure.executed) == ("bulkhead_full", "no")
        service.release()
        assert held.result() is None
        assert caller.call("probe.add", 1) == 2

    def test_a_thousand_calls_leave_threads_and_files_where_they_were(self, caller: Caller) -> None:
        for n in range(50):
            caller.call("probe.add", n)
        caller.times(8, "probe.add", 1)
        before = footprint()
        for n in range(1000):
            assert caller.call("probe.add", n) == n + 1
        after = footprint()
        assert after["files"] <= before["files"] + 2
        assert after["threads"] <= before["threads"] + 2

    def test_failed_calls_leave_threads_and_files_where_they_were(self, caller: Caller) -> None:
        for _ in range(10):
            caller.failure("probe.out_of_stock", "tea")
        before = footprint()
        for _ in range(100):
            caller.failure("probe.out_of_stock", "tea")
            caller.failure("probe.add", "no number")
        assert footprint()["files"] <= before["files"] + 2


def footprint() -> dict[str, int]:
    """Open files (sockets included) and threads of this process: both ends of every connection."""
    gc.collect()
    return {"files": len(os.listdir("/proc/self/fd")), "threads": threading.active_count()}
