"""What an operator does: instances out of service and back, leftovers, and what is wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

import fan
from fan.errors import AlreadyExists, FailedPrecondition, NotFound, Unavailable
from fan.model import Interface
from fan.registration import put_interface
from fan.stores.base import Change, Plan, Store
from fan.stores.memory import MemoryStore
from tests.configs import STORES, another, make_store

BOUND = 20.0
FOREVER = time.monotonic() + 86_400.0

#: Has a test run on every store; the others have the one in memory.
EACH = pytest.mark.parametrize("world", STORES, indirect=True)


class Worker(fan.Service):
    name = "worker"
    version = "1.0.0"

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    @fan.rpc
    def which(self) -> str:
        return self.instance_id

    @fan.rpc
    def wait(self) -> str:
        self.begun.set()
        assert self.go_on.wait(BOUND)
        return self.instance_id


class Single(Worker):
    unique = True


class World:
    def __init__(self, store: Store, folder: str) -> None:
        self.store = store
        self._settings = fan.Settings(registry="memory:", runtime_dir=folder, timeout=BOUND)
        self._apps: list[fan.App] = []
        self._stores = [store]

    def app(self, *services: fan.Service, ids: tuple[str, ...] = (), **how: Any) -> fan.App:
        self._stores.append(another(self.store))
        app = fan.App(settings=self._settings, store=self._stores[-1], **how)
        for one, id in zip(services, ids or [None] * len(services), strict=True):
            app.add(one, id)
        self._apps.append(app)
        return app

    def serve(self, id: str, one: fan.Service | None = None) -> fan.App:
        app = self.app(one or Worker(), ids=(id,))
        app.start(["ipc"])
        return app

    def close(self) -> None:
        for app in reversed(self._apps):
            app.close()
        for store in reversed(self._stores):
            store.close()


@pytest.fixture
def world(request: pytest.FixtureRequest, private: Path) -> Iterator[World]:
    store = make_store(request, private) if hasattr(request, "param") else MemoryStore()
    made = World(store, str(private))
    yield made
    made.close()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BOUND
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def states(app: fan.App) -> dict[str, str]:
    return {i.id: i.state for i in app.discovery.service("worker").instances}


def callees(app: fan.App, calls: int = 6) -> set[str]:
    return {app.call("worker.which") for _ in range(calls)}


@EACH
@pytest.mark.parametrize("state", ["draining", "down"])
def test_an_overridden_instance_gets_no_calls_until_that_is_lifted(
    world: World, state: Any
) -> None:
    world.serve("w-1")
    world.serve("w-2")
    caller, operator = world.app(), world.app(live=False)
    assert callees(caller) == {"w-1", "w-2"}
    one = operator.operations.find("worker", id="w-1")
    assert operator.operations.override(one, state, why="new disk") == one
    until(lambda: states(caller)["w-1"] == state)
    assert callees(caller) == {"w-2"}
    assert caller.discovery.service("worker").overrides["w-1"].why == "new disk"
    assert operator.operations.override(one, state, why="new disk") == ()
    assert operator.operations.lift(one)[0].id == "w-1"
    assert operator.operations.lift(one) == ()
    until(lambda: states(caller)["w-1"] == "up")
    assert callees(caller) == {"w-1", "w-2"}


def test_an_override_ends_by_itself_where_nobody_writes_anything(world: World) -> None:
    world.serve("w-1")
    caller, operator = world.app(), world.app(live=False)
    caller.discovery.service("worker")
    found = operator.operations.find("worker", id="w-1")
    operator.operations.override(found, "down", until=time.time() + 4.0)
    until(lambda: states(caller)["w-1"] == "down")
    with pytest.raises(Unavailable):
        caller.using(retries=0).call("worker.which")
    until(lambda: states(caller)["w-1"] == "up")
    assert caller.call("worker.which") == "w-1"


@EACH
def test_an_override_outlives_a_restart_under_the_same_id(world: World) -> None:
    app = world.serve("w-1")
    operator = world.app(live=False)
    operator.operations.override(operator.operations.find("worker", id="w-1"), "down")
    app.close()
    world.serve("w-1")
    assert states(operator) == {"w-1": "down"}


@EACH
def test_draining_waits_for_the_calls_in_flight(world: World) -> None:
    busy = Worker()
    world.serve("w-1", busy)
    caller, operator = world.app(), world.app(live=False)
    answer = caller.submit("worker.wait")
    assert busy.begun.wait(BOUND)
    one = operator.operations.find("worker", id="w-1")
    operator.operations.override(one, "draining")
    assert operator.operations.wait_idle(one, 0.5) == list(one)
    busy.go_on.set()
    assert operator.operations.wait_idle(one, BOUND) == []
    assert answer.result(BOUND) == "w-1"


def test_a_busy_service_beside_it_does_not_keep_an_instance_from_being_idle(world: World) -> None:
    class Other(Worker):
        name = "other"

    busy = Other()
    app = world.app(Worker(), busy, ids=("w-1", "o-1"))
    app.start(["ipc"])
    caller, operator = world.app(), world.app(live=False)
    answer = caller.submit("other.wait")
    assert busy.begun.wait(BOUND)
    one = operator.operations.find("worker", id="w-1")
    assert operator.operations.wait_idle(one, BOUND) == []
    busy.go_on.set()
    assert answer.result(BOUND) == "o-1"


def test_an_instance_that_is_gone_is_idle(world: World) -> None:
    app = world.serve("w-1")
    operator = world.app(live=False)
    one = operator.operations.find("worker", id="w-1")
    app.close()
    assert operator.operations.wait_idle(one, BOUND) == []


def test_instances_are_found_by_id_and_by_version(world: World) -> None:
    world.serve("w-1")
    operations = world.app(live=False).operations
    assert [i.id for i in operations.find("worker", version="1")] == ["w-1"]
    for wanted in ({"id": "w-2"}, {"version": "2"}):
        with pytest.raises(NotFound) as caught:
            operations.find("worker", **wanted)
        assert caught.value.reason == "no_such_instance"
    with pytest.raises(NotFound):
        operations.find("nobody", id="x")


@EACH
def test_what_was_registered_for_good_stays_until_it_is_deregistered(world: World) -> None:
    operator = world.app(live=False)
    interface = Interface(service="billing", version="1.0.0")
    made = operator.operations.register(interface, ["http://127.0.0.1:9"], id="b-1")
    with pytest.raises(AlreadyExists):
        operator.operations.register(interface, ["http://127.0.0.1:9"], id="b-1")
    operator.close()
    other = world.app(live=False)
    info = other.discovery.service("billing")
    assert [i.id for i in info.instances] == [made.id] == ["b-1"]
    assert info.route is not None
    assert other.operations.deregister("billing", "b-1")
    assert other.discovery.service("billing").instances == ()
    with pytest.raises(NotFound):
        other.operations.deregister("billing", "b-1")


def test_a_leased_registration_ends_with_its_app(world: World) -> None:
    operator, other = world.app(live=False), world.app(live=False)
    interface = Interface(service="billing", version="1.0.0")
    operator.operations.register(interface, ["http://127.0.0.1:9"], lease=True)
    assert len(other.discovery.service("billing").instances) == 1
    operator.close()
    assert other.discovery.service("billing").instances == ()


@EACH
def test_leftovers_are_what_nobody_needs_and_nothing_else(world: World) -> None:
    world.serve("w-1")
    operator = world.app(live=False)
    operations, put = operator.operations, operator.store.put
    operations.override(operations.find("worker", id="w-1"), "draining")
    put("override", "worker/gone", b'{"state":"down"}', deadline=FOREVER)
    put("unique", "worker/1.0.0", b"gone", deadline=FOREVER)
    old = Interface(service="worker", version="0.9.0", depend={"hard": {"stock": ">=1"}})
    put_interface(operator.store, old, FOREVER)
    found = operations.leftovers()
    assert [(each.kind, each.name) for each in found] == [
        ("override", "worker/gone"), ("unique", "worker/1.0.0"), ("interface", "worker/0.9.0"),
    ]  # fmt: skip
    operations.remove(found)
    assert operations.leftovers() == []
    assert operator.store.list("needs", deadline=FOREVER) == []
    assert states(operator) == {"w-1": "draining"}
    assert set(operator.discovery.service("worker").interfaces) == {"1.0.0"}


def test_the_version_that_a_rollback_returns_to_is_no_leftover(world: World) -> None:
    world.serve("w-1")
    operator = world.app(live=False)
    body = b'{"versions":{"2.0.0":10000}}'
    put = Change(object="route/worker", body=body)
    operator.store.put("iface", "worker/1.0.0", b'{"service":"worker","version":"1.0.0"}',
                       deadline=FOREVER)  # fmt: skip
    operator.store.commit(Plan(changes=(put,), verb="switch"), deadline=FOREVER)
    operator.operations.deregister("worker", "w-1")
    assert operator.operations.leftovers() == []


def kinds(app: fan.App, service: str = "") -> list[tuple[str, str]]:
    return [(each.kind, each.service) for each in app.operations.check(service)]


def test_a_check_finds_nothing_wrong_with_what_works(world: World) -> None:
    world.serve("w-1")
    assert kinds(world.app(live=False)) == []


@EACH
def test_a_check_finds_what_is_unmet_down_and_unrouted(world: World) -> None:
    class Needy(Worker):
        name = "needy"
        depend: ClassVar[Any] = {"hard": {"worker": ">=2"}}

    world.serve("w-1")
    world.serve("n-1", Needy())
    operator = world.app(live=False)
    found = operator.operations.check()
    assert [(f.kind, f.service, f.instance) for f in found] == [
        ("unmet", "needy", "n-1"), ("down", "needy", ""),
    ]  # fmt: skip
    assert "worker>=2 (have 1.0.0)" in found[0].what
    unpin = Change(object="route/worker", unpin=True)
    operator.store.commit(Plan(changes=(unpin,), verb="x"), deadline=FOREVER)
    assert kinds(operator, "worker") == [("unrouted", "worker")]


@EACH
def test_a_second_unique_service_stands_by_until_the_first_is_gone(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    first = world.serve("s-1", Single())
    with pytest.raises(AlreadyExists, match="runs as s-1"):
        world.serve("s-2", Single())
    second = world.app(Single(), ids=("s-3",))
    standing = threading.Thread(target=second.start, args=(["ipc"],), kwargs={"standby": True})
    standing.start()
    until(lambda: "stands by" in caplog.text)
    assert not second.is_started
    first.close()
    standing.join(BOUND)
    assert second.is_started
    assert states(second) == {"s-3": "up"}


def test_who_stands_by_can_be_closed(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.serve("s-1", Single())
    second = world.app(Single(), ids=("s-2",))
    failed: list[BaseException] = []

    def start() -> None:
        try:
            second.start(["ipc"], standby=True)
        except Unavailable as exc:
            failed.append(exc)

    standing = threading.Thread(target=start)
    standing.start()
    until(lambda: "stands by" in caplog.text)
    second.discovery.close()
    standing.join(BOUND)
    assert not standing.is_alive()
    assert failed


def test_an_instance_that_is_not_of_fan_cannot_be_waited_for(world: World) -> None:
    from fan.tools.foreign import read_services

    (found,) = read_services(
        "{name: web, version: '1', addr: 'http://127.0.0.1:9', methods: [{name: x, url: /}]}", {}
    )
    operator = world.app(live=False)
    made = operator.operations.register(found.interface, found.urls)
    with pytest.raises(FailedPrecondition, match="no service of fan"):
        operator.operations.wait_idle([made], BOUND)
