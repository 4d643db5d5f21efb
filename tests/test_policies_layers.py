"""Each layer around a call is switched off or configured for one method or one service, from code
and, live, from the registry, and the others go on as before."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

import fan
from fan.settings import Settings
from fan.stores.base import Change, Plan
from fan.stores.memory import MemoryStore
from fan.testing.fakes import RecordingTracer

BOUND = 10.0


class Desk(fan.Service):
    """Each pair of methods does the same; the policies are about the first of them."""

    name = "desk"
    version = "1.0.0"

    def __init__(self) -> None:
        super().__init__()
        self.runs: Counter[str] = Counter()
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()

    def _fail(self, name: str) -> None:
        self.runs[name] += 1
        raise ValueError("no")

    def _hold(self) -> None:
        self.entered.release()
        self.gate.wait(BOUND)

    @fan.rpc(idempotent=True)
    def fail(self) -> None:
        """Raise what is tried again."""
        self._fail("fail")

    @fan.rpc(idempotent=True)
    def fail_too(self) -> None:
        """The same."""
        self._fail("fail_too")

    @fan.rpc
    def hold(self) -> None:
        """Take as long as it is held."""
        self._hold()

    @fan.rpc
    def hold_too(self) -> None:
        """The same."""
        self._hold()

    @fan.rpc
    def count(self) -> int:
        """How often it ran."""
        self.runs["count"] += 1
        return self.runs["count"]

    @fan.rpc
    def count_too(self) -> int:
        """The same."""
        self.runs["count_too"] += 1
        return self.runs["count_too"]

    @fan.rpc
    def left(self) -> float:
        """Seconds that it has."""
        return fan.current().remaining or 0.0  # type: ignore[union-attr]

    @fan.rpc
    def left_too(self) -> float:
        """The same."""
        return fan.current().remaining or 0.0  # type: ignore[union-attr]


class Shelf(Desk):
    """A service that no policy is about."""

    name = "shelf"


class World:
    """A server and a caller of it, each in an App, and what they are told of a method."""

    def __init__(self, folder: str, caplog: pytest.LogCaptureFixture) -> None:
        self.store = MemoryStore("layers")
        self._caplog = caplog
        self.desk = Desk()
        #: The service that is looked at.
        self.name = "desk"
        self.tracer = RecordingTracer()
        self._folder = folder
        self._apps: list[fan.App] = []

    def turn_to(self, other: Desk) -> None:
        """Look at another service from now on."""
        self.desk, self.name = other, other.name

    def begin(self, policy: dict[str, Any] | None) -> None:
        """Start both, with a policy in code or with none."""
        given = {"desk": policy} if policy else {}
        self.shelf = Shelf()
        for services in ((self.desk, self.shelf), ()):
            settings = Settings(
                runtime_dir=self._folder, retry_delay=0.0, sample=1.0, breaker_failures=3
            )
            app = fan.App(
                *services, settings=settings, store=self.store, policies=given, tracer=self.tracer
            )
            self._apps.append(app)
        self.server, self.caller = self._apps
        self.server.start()

    def write(self, policy: dict[str, Any]) -> None:
        """Put a policy into the registry, while both go on."""
        change = Change(object="config/desk/policy", body=msgspec.json.encode(policy))
        deadline = time.monotonic() + BOUND
        self.store.commit(Plan(changes=(change,), verb="set"), deadline=deadline)
        for app in self._apps:
            app.mirror.refresh()

    def close(self) -> None:
        """End all of it."""
        self.desk.gate.set()
        for app in reversed(self._apps):
            app.close()
        self.store.close()

    def code(self, method: str, **options: Any) -> str:
        """What a call comes to: `ok`, or the reason or code of its failure."""
        try:
            self.caller.using(**options).call(f"{self.name}.{method}")
        except fan.FanError as exc:
            return exc.reason or exc.code
        return "ok"

    def is_full(self, method: str) -> bool:
        """Whether a second call at the same time is refused."""
        entered = self.desk.entered
        self.desk.gate.clear()
        first = self.caller.submit(f"{self.name}.{method}")
        assert entered.acquire(timeout=BOUND)
        second = self.caller.using(retries=0).submit(f"{self.name}.{method}")
        second.add_done_callback(lambda done: entered.release())
        assert entered.acquire(timeout=BOUND)  # it runs as well, or has ended
        is_refused = second.done()
        self.desk.gate.set()
        first.result(BOUND)
        failure = second.exception(BOUND)
        assert is_refused == (getattr(failure, "reason", "") == "bulkhead_full")
        return is_refused

    def ran(self, method: str, act: Callable[[], object]) -> int:
        """How often a method runs meanwhile."""
        before = self.desk.runs[method]
        act()
        return self.desk.runs[method] - before

    def opens(self, method: str) -> bool:
        """Whether a method that keeps failing is left alone."""
        return "circuit_open" in {self.code(method, retries=0) for _ in range(5)}

    def is_repeated(self, method: str) -> bool:
        """Whether the same key runs twice."""
        key = fan.new_id()
        return self.ran(method, lambda: [self.code(method, key=key) for _ in range(2)]) == 2

    def counted(self, method: str) -> int:
        """How often a call is counted, on both sides."""
        self.code(method)
        rows = [row for app in self._apps for row in app.metrics.snapshot()]
        return sum(row.count for row in rows if (row.service, row.method) == (self.name, method))

    def spans(self, method: str) -> int:
        """Spans of a call, on both sides."""
        self.code(method)
        return sum(span.name == f"{self.name}.{method}" for span in self.tracer.spans)

    def told(self, method: str) -> int:
        """Lines of the access log about a call."""
        self.code(method)
        return sum(f"{self.name}.{method} " in line for line in self._caplog.messages)


@pytest.fixture
def world(private: Any, caplog: pytest.LogCaptureFixture) -> Iterator[World]:
    """On a registry in memory."""
    with caplog.at_level("INFO", logger="fan.access"):
        made = World(str(private), caplog)
        yield made
        made.close()


Case = tuple[str, Any, str, Callable[[World, str], Any], Any, Any]

#: Field, value, the first method of a pair, what is seen of a method; with the policy, without.
CASES: tuple[Case, ...] = (
    ("timeout", "1m", "left", lambda w, m: w.caller.call(f"{w.name}.{m}") > 50, True, False),
    ("retries", 0, "fail", lambda w, m: w.ran(m, lambda: w.code(m)), 1, 3),
    ("breaker_failures", 0, "fail", World.opens, False, True),
    ("bulkhead_calls", 1, "hold", World.is_full, True, False),
    ("bulkhead_requests", 1, "hold", World.is_full, True, False),
    ("dedupe_window", 0, "count", World.is_repeated, True, False),
    ("metrics", False, "count", World.counted, 0, 2),
    ("tracing", False, "count", World.spans, 0, 2),
    ("access_log", True, "count", World.told, 1, 0),
)  # fmt: skip


@pytest.mark.parametrize("source", ["code", "registry"])
@pytest.mark.parametrize("case", CASES, ids=[f"{case[0]}={case[1]}" for case in CASES])
def test_a_layer_is_otherwise_for_one_method(world: World, case: Case, source: str) -> None:
    field, value, method, seen, otherwise, usual = case
    policy = {"methods": {method: {field: value}}}
    world.begin(policy if source == "code" else None)
    world.caller.call("desk.left")  # it is known, and used
    if source == "registry":
        world.write(policy)
    assert seen(world, method) == otherwise
    assert seen(world, f"{method}_too") == usual


@pytest.mark.parametrize("source", ["code", "registry"])
@pytest.mark.parametrize("case", CASES, ids=[f"{case[0]}={case[1]}" for case in CASES])
def test_a_layer_is_otherwise_for_one_service(world: World, case: Case, source: str) -> None:
    field, value, method, seen, otherwise, usual = case
    world.begin({field: value} if source == "code" else None)
    for service in ("desk", "shelf"):
        world.caller.call(f"{service}.left")  # it is known, and used
    if source == "registry":
        world.write({field: value})
    assert seen(world, method) == otherwise
    assert seen(world, f"{method}_too") == otherwise
    world.turn_to(world.shelf)
    assert seen(world, method) == usual


def test_a_key_is_remembered_whatever_else_its_policy_says(world: World) -> None:
    world.begin(None)
    key = fan.new_id()
    assert world.ran("count", lambda: world.code("count", key=key)) == 1
    for policy in ({"timeout": 30}, {"methods": {"count": {"access_log": True}}}, {}):
        world.write(policy)
        assert world.ran("count", lambda: world.code("count", key=key)) == 0, policy


@pytest.mark.parametrize("field", ["bulkhead_requests", "bulkhead_calls"])
def test_the_limit_of_a_service_holds_over_methods_that_differ_otherwise(
    world: World, field: str
) -> None:
    world.begin({field: 1, "methods": {"hold_too": {"timeout": 20}}})
    first = world.caller.submit("desk.hold")
    assert world.desk.entered.acquire(timeout=BOUND)
    assert world.code("hold_too", retries=0) == "bulkhead_full"
    world.desk.gate.set()
    first.result(BOUND)
    assert world.code("hold_too", retries=0) == "ok"


def test_what_an_instance_failed_counts_whatever_else_its_policy_says(world: World) -> None:
    world.begin({"retries": 0})
    assert world.opens("fail")
    world.write({"timeout": 30})
    assert world.code("fail") == "circuit_open"


def test_layers_of_policies_that_were_are_let_go(world: World) -> None:
    world.begin(None)
    for n in range(20):
        world.write({"timeout": 30 + n})
        assert world.code("count") == "ok"
    for app in (world.server, world.caller):
        assert "in_use=1" in repr(app.policies) or "in_use=2" in repr(app.policies)
    assert len(world.caller.client._sender._chains) <= 2
