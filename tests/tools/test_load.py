"""Load: closed loops, timetables, warm-up, failures, and an end that always comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from fan import App, Client, Load, LoadPlan, LoadReport, Service, Settings, rpc
from fan.stores.memory import MemoryStore

#: Far more seconds than any of these takes.
HANG = 50


class Target(Service):
    """Answers, fails, stalls once, and blocks."""

    name = "target"
    version = "1.2.0"

    def __init__(self) -> None:
        self.seen = 0
        self.at_once = 0
        self.most_at_once = 0
        self.lock = threading.Lock()
        self.gate = threading.Event()
        self.entered = threading.Event()

    @rpc
    def answer(self) -> str:
        with self.lock:
            self.seen += 1
        return "ok"

    @rpc
    def fail(self) -> None:
        raise ValueError("no")

    @rpc
    def stall(self, seconds: float) -> None:
        with self.lock:
            self.seen += 1
            is_first = self.seen == 1
        if is_first:
            time.sleep(seconds)

    @rpc
    def block(self) -> None:
        with self.lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.entered.set()
        self.gate.wait(HANG)
        with self.lock:
            self.at_once -= 1

    @rpc
    def items(self) -> Iterator[int]:
        self.seen += 1
        yield from range(3)


@pytest.fixture
def target() -> Target:
    return Target()


@pytest.fixture
def client(target: Target) -> Iterator[Client]:
    """A client that reaches the target as it reaches a service of its own process."""
    store = MemoryStore("test")
    with App(target, settings=Settings(breaker_failures=0, retries=0), store=store) as app:
        yield app.client
    store.close()


def run(client: Client, method: str, plan: LoadPlan, body: bytes = b"") -> LoadReport:
    with Load(client, f"target.{method}", "application/json", body, plan) as load:
        load.start()
        assert load.wait(HANG)
        return load.report()


def test_a_closed_loop_sends_as_many_as_it_is_told(client: Client, target: Target) -> None:
    report = run(client, "answer", LoadPlan(requests=100, concurrency=7))
    assert (report.requests, report.failed, target.seen) == (100, 0, 100)
    assert report.rate > 0
    assert list(report.instances) == [f"1.2.0/{target.instance_id}"]


def test_no_more_are_in_flight_than_it_is_told(client: Client, target: Target) -> None:
    plan = LoadPlan(requests=20, concurrency=3)
    with Load(client, "target.block", "application/json", b"", plan) as load:
        load.start()
        assert target.entered.wait(HANG)
        target.gate.set()
        assert load.wait(HANG)
    assert target.most_at_once <= 3


def test_it_ends_when_its_time_is_up(client: Client, target: Target) -> None:
    report = run(client, "answer", LoadPlan(duration=0.5))
    assert report.requests == target.seen > 0
    assert report.elapsed >= 0.5


def test_a_stall_shows_in_every_call_that_it_held_up(client: Client) -> None:
    plan = LoadPlan(requests=50, rate=1000, concurrency=1)
    report = run(client, "stall", plan, b'{"seconds":0.3}')
    assert report.requests == 50
    # The last of them was due 0.05 s after the first, which took 0.3.
    assert report.latency.shortest >= 0.2e9


def test_the_same_stall_shows_in_one_call_of_a_closed_loop(client: Client) -> None:
    report = run(client, "stall", LoadPlan(requests=50), b'{"seconds":0.3}')
    assert report.latency.longest >= 0.3e9
    assert report.latency.shortest < 0.2e9


def test_a_timetable_is_kept(client: Client, target: Target) -> None:
    report = run(client, "answer", LoadPlan(rate=200, duration=0.2))
    assert report.requests == target.seen == 40
    assert report.elapsed >= 0.19


def test_what_cannot_be_sent_in_time_fails_without_being_sent(
    client: Client, target: Target
) -> None:
    plan = LoadPlan(requests=50, rate=10_000, concurrency=1, patience=1.0)
    report = run(client, "stall", plan, b'{"seconds":2.5}')
    assert report.errors == {"deadline_exceeded/not_sent": 49}
    assert target.seen == 1


@pytest.mark.parametrize("plan", [{"warmup_requests": 30}, {"warmup": 0.5}])
def test_the_warm_up_is_sent_and_not_counted(
    client: Client, target: Target, plan: dict[str, float]
) -> None:
    report = run(client, "answer", LoadPlan(requests=10, **plan))  # type: ignore[arg-type]
    assert report.requests == 10
    assert target.seen > 10


def test_failures_are_counted_by_what_they_are_and_timed(client: Client) -> None:
    report = run(client, "fail", LoadPlan(requests=10))
    assert report.errors == {"unknown/ValueError": 10}
    assert (report.requests, report.failed, report.latency.count) == (10, 10, 10)
    assert report.instances == {}


def test_a_stream_counts_once_it_has_ended(client: Client, target: Target) -> None:
    report = run(client, "items", LoadPlan(requests=5))
    assert (report.requests, report.failed, target.seen) == (5, 0, 5)


def test_closing_it_ends_a_load_that_would_go_on(client: Client, target: Target) -> None:
    with Load(client, "target.answer", "application/json", b"", LoadPlan(duration=HANG)) as load:
        load.start()
        assert not load.wait(0.01)
    assert load.wait(HANG)
    assert load.report().requests == target.seen


def test_it_says_how_it_stands(client: Client) -> None:
    load = Load(client, "target.answer", "application/json", b"", LoadPlan(requests=1))
    assert repr(load) == "<Load target.answer idle>"
    with load:
        load.start()
        assert load.wait(HANG)
        assert repr(load) == "<Load target.answer done>"
