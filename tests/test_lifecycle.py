"""Lifecycle: how services start, adopt a route, drain and stop."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fan import App, Service, Settings, rpc
from fan.errors import FailedPrecondition, FanError, Unavailable, Unknown
from fan.lifecycle import start_order
from fan.stores.memory import MemoryStore
from fan.transports.http_server import HttpListener
from tests.lives import HANG, Flaky, Greeter, World


class Greeter2(Greeter):
    version = "2.0.0"

    @rpc
    def hello(self, name: str = "World") -> str:
        return f"Hi {name}"


class Gated(Service):
    """Its one method waits until the test lets it go."""

    name = "gated"
    version = "1.0.0"

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go = threading.Event()
        self.runs = 0

    @rpc
    def wait(self) -> str:
        self.runs += 1
        self.entered.set()
        assert self.go.wait(HANG)
        return "done"


@pytest.fixture
def world(private: Path) -> Iterator[World]:
    world = World(private)
    yield world
    world.close()


def test_a_started_service_is_registered_and_reached_from_another_app(world: World) -> None:
    world.app(Greeter()).start(["ipc", "http=127.0.0.1:0"])
    caller = world.app()
    (instance,) = caller.discovery.service("greeter").instances
    assert instance.state == "up"
    assert [a.scheme for a in instance.addresses] == ["unix", "http"]
    for transport in ("ipc", "http"):
        assert caller.using(transport=transport).call("greeter.hello", name="Ada") == "Hello Ada"


def test_an_instance_says_where_and_since_when_it_runs(world: World) -> None:
    app = world.app(Greeter())
    app.start()
    (instance,) = app.lifecycle.instances
    assert (instance.pid, instance.host) == (os.getpid(), os.uname().nodename)
    assert instance.started_at.endswith("Z")
    assert instance.nonce
    assert instance.iface == app.discovery.service("greeter").interfaces["1.0.0"].hash


def test_the_first_version_gets_the_route_by_an_adoption(world: World) -> None:
    app = world.app(Greeter())
    app.start()
    assert world.routes() == {"1.0.0": 10_000}
    (entry,) = app.store.log(0, deadline=float("inf"))
    assert entry.verb == "adopt"
    assert entry.who
    assert entry.host == os.uname().nodename


def test_a_new_version_takes_no_traffic_by_being_started(world: World) -> None:
    world.app(Greeter()).start()
    world.app(Greeter2()).start()
    assert world.routes() == {"1.0.0": 10_000}
    assert world.app().call("greeter.hello") == "Hello World"
    assert world.app().call("greeter.hello@2") == "Hi World"


def test_adopt_moves_the_route_to_the_version_that_starts(world: World) -> None:
    world.app(Greeter()).start()
    world.app(Greeter2()).start(adopt=True)
    assert world.routes() == {"2.0.0": 10_000}


def test_several_versions_share_a_process_and_the_first_gets_the_route(world: World) -> None:
    app = world.app(Greeter2(), Greeter())
    app.start()
    assert world.routes() == {"2.0.0": 10_000}
    caller = world.app()
    assert caller.call("greeter.hello@1") == "Hello World"
    assert caller.call("greeter.hello@2") == "Hi World"
    assert len({instance.id for instance in app.lifecycle.instances}) == 2


def test_versions_are_adopted_in_their_order(world: World) -> None:
    world.app(Greeter(), Greeter2()).start(adopt=True)
    assert world.routes() == {"2.0.0": 10_000}


def test_while_it_starts_it_is_registered_and_refuses_calls(world: World) -> None:
    seen: list[Any] = []

    class Slow(Greeter):
        name = "slow"

        def service_start(self) -> None:
            other = world.app()
            (instance,) = other.discovery.service("slow").instances
            seen.append(instance.state)
            try:
                other.using(peers=(instance.addresses[0].url,), retries=0).call("slow.hello")
            except Unavailable as exc:
                seen.append((exc.reason, exc.executed))

    world.app(Slow()).start()
    assert seen == ["starting", ("no_instance", "no")]
    assert world.app().call("slow.hello") == "Hello World"


def test_hooks_may_be_async(world: World) -> None:
    done: list[str] = []

    class Async(Greeter):
        async def service_start(self) -> None:
            done.append("start")

        async def service_stop(self) -> None:
            done.append("stop")

    app = world.app(Async())
    app.start()
    assert done == ["start"]
    app.stop()
    assert done == ["start", "stop"]


def test_services_stop_in_reverse_order_while_they_are_marked_draining(world: World) -> None:
    stopped: list[tuple[str, list[str]]] = []

    class First(Greeter):
        name = "first"

        def service_stop(self) -> None:
            stopped.append(("first", world.states("first")))

    class Second(First):
        name = "second"

        def service_stop(self) -> None:
            stopped.append(("second", world.states("second")))

    app = world.app(First(), Second())
    app.start()
    app.stop()
    assert stopped == [("second", ["draining"]), ("first", ["draining"])]


def test_a_failing_start_is_one_error_and_leaves_nothing(world: World) -> None:
    stopped: list[str] = []

    class First(Greeter):
        name = "first"

        def service_stop(self) -> None:
            stopped.append("first")

    class Broken(Greeter):
        name = "broken"

        def service_start(self) -> None:
            raise OSError("no disk")

        def service_stop(self) -> None:
            stopped.append("broken")

    app = world.app(First(), Broken())
    with pytest.raises(Unknown, match=r"broken 1\.0\.0 could not start: OSError: no disk"):
        app.start()
    assert stopped == ["first"]
    assert world.states("broken") == []
    assert world.sockets() == []
    assert not app.is_started


def test_a_service_without_an_instance_stays_known_with_its_route(world: World) -> None:
    app = world.app(Greeter())
    app.start()
    app.stop()
    assert world.states("greeter") == []
    assert world.routes() == {"1.0.0": 10_000}
    assert world.sockets() == []
    with pytest.raises(Unavailable) as caught:
        world.app().call("greeter.hello")
    assert caught.value.executed == "no"


def test_a_stopped_app_can_be_started_again(world: World) -> None:
    app = world.app(Greeter())
    app.start()
    app.stop()
    app.stop()
    app.start()
    assert world.states("greeter") == ["up"]


def test_an_app_does_not_start_twice_or_without_services(world: World) -> None:
    app = world.app(Greeter())
    app.start()
    with pytest.raises(FailedPrecondition, match="serving already"):
        app.start()
    assert world.app().call("greeter.hello") == "Hello World"
    with pytest.raises(FailedPrecondition, match="nothing to serve"):
        world.app().start()


@pytest.mark.parametrize("transport", ["ipc", "http"])
def test_a_drain_answers_what_is_in_flight_and_refuses_what_is_new(
    world: World, transport: str
) -> None:
    gated = Gated()
    app = world.app(gated)
    app.start(["ipc", "http=127.0.0.1:0"])
    caller = world.app().using(transport=transport, timeout=HANG)
    in_flight = caller.submit("gated.wait")
    assert gated.entered.wait(HANG)
    assert app.drain(0.0) is False
    assert world.states("gated") == ["draining"]
    url = next(
        a.url for a in app.lifecycle.instances[0].addresses if caller_scheme(a.url, transport)
    )
    with pytest.raises(Unavailable) as caught:
        world.app().using(peers=(url,), retries=0).call("gated.wait")
    assert caught.value.executed == "no"
    gated.go.set()
    assert in_flight.result(HANG) == "done"
    assert app.drain(HANG) is True


@pytest.mark.parametrize("transport", ["ipc", "http"])
def test_a_stop_answers_what_was_accepted_and_waits_for_a_thread(
    private: Path, transport: str
) -> None:
    few = World(private, workers=1)
    with closing(few):
        gated = Gated()
        app = few.app(gated)
        app.start(["ipc" if transport == "ipc" else "http=127.0.0.1:0"])
        caller = few.app().using(transport=transport, timeout=HANG, retries=0)

        async def call_and_stop() -> list[str]:
            calls = [asyncio.create_task(caller.acall("gated.wait")) for _ in range(8)]
            await asyncio.to_thread(gated.entered.wait, HANG)
            await asyncio.to_thread(accepted, app, 8)
            stopping = asyncio.create_task(asyncio.to_thread(app.stop, HANG))
            await asyncio.to_thread(drained, app)
            gated.go.set()
            await stopping
            return await asyncio.gather(*calls)

        assert asyncio.run(call_and_stop()) == ["done"] * 8


def test_what_waits_for_a_thread_does_not_begin_in_a_service_that_has_stopped(
    private: Path,
) -> None:
    few = World(private, workers=1)
    with closing(few):
        gated = Gated()
        app = few.app(gated)
        app.start(["http=127.0.0.1:0"])
        caller = few.app().using(transport="http", timeout=HANG, retries=0)
        calls = [caller.submit("gated.wait") for _ in range(3)]
        assert gated.entered.wait(HANG)
        accepted(app, 3)
        workers = [thread for thread in threading.enumerate() if "fan-http-work" in thread.name]
        app.stop(0.0)
        gated.go.set()
        for call in calls:
            assert isinstance(call.exception(HANG), Unavailable)
        for worker in workers:
            worker.join(HANG)
        assert gated.runs == 1


def accepted(app: App, count: int) -> None:
    """Wait until a listener has so many requests in hand."""
    (listener,) = app.lifecycle._listeners
    give_up = time.monotonic() + HANG
    while in_hand(listener) < count:
        assert time.monotonic() < give_up
        time.sleep(0.001)


def in_hand(listener: Any) -> int:
    if isinstance(listener, HttpListener):
        return listener._app.flying
    return sum(len(session.active) for session in listener._sessions)


def drained(app: App) -> None:
    """Wait until nothing new is accepted."""
    give_up = time.monotonic() + HANG
    while not app.lifecycle._gate._is_shut_to_queued:
        assert time.monotonic() < give_up
        time.sleep(0.001)


def caller_scheme(url: str, transport: str) -> bool:
    return url.startswith("unix:" if transport == "ipc" else "http:")


def needing(name_: str, *hard: str) -> Service:
    class Needing(Greeter):
        name = name_
        depend = {"hard": list(hard)}  # noqa: RUF012  as a user writes it

    return Needing()


def test_services_start_after_their_hard_dependencies(world: World) -> None:
    app = world.app(needing("a", "b", "elsewhere"), needing("b", "c"), needing("c"))
    assert [one.name for one in start_order(app.services)] == ["c", "b", "a"]


def test_services_that_need_each_other_are_refused_by_name(world: World) -> None:
    app = world.app(needing("a", "b"), needing("b", "a"))
    with pytest.raises(FailedPrecondition, match="a -> b -> a") as caught:
        app.start()
    assert caught.value.reason == "dependency_missing"


def test_a_stop_gives_up_on_a_service_that_does_not(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    class Endless(Greeter):
        was_cancelled = False

        async def service_stop(self) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.was_cancelled = True
                raise

    service = Endless()
    app = world.app(service)
    app.start()
    app.stop(timeout=0.0)
    assert service.was_cancelled
    assert "could not stop greeter: it did not end within 2.0 s" in caplog.text
    assert not world.app().discovery.service("greeter").instances


def test_a_stop_gives_up_on_a_plain_hook_that_does_not_come_back(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    go_on, ended = threading.Event(), threading.Event()

    class Endless(Greeter):
        def service_stop(self) -> None:
            assert go_on.wait(HANG)
            ended.set()

    app = world.app(Endless())
    app.start()
    app.stop(timeout=0.0)
    assert not ended.is_set()
    assert "could not stop greeter: it did not end within 2.0 s" in caplog.text
    assert not world.app().discovery.service("greeter").instances
    go_on.set()
    assert ended.wait(HANG)


def test_an_app_can_stop_while_the_registry_is_down(
    private: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Flaky()
    settings = Settings(registry="memory:", runtime_dir=str(private / "run"))
    with store, App(Greeter(), settings=settings, store=store) as app:
        app.start()
        store.is_down = True
        app.stop()
    assert "could not deregister: the registry is down" in caplog.text
    assert os.listdir(private / "run") == []


def test_a_stop_hook_that_fails_does_not_hold_up_the_rest(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Greeter):
        def service_stop(self) -> None:
            raise ValueError("stuck")

    app = world.app(Broken())
    app.start()
    app.stop()
    assert "could not stop greeter" in caplog.text
    assert world.states("greeter") == []


def test_an_unroutable_start_says_so_and_serves(
    private: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from fan.errors import PermissionDenied

    class NoRoutes(MemoryStore):
        def commit(self, *args: Any, **kwargs: Any) -> Any:
            raise PermissionDenied("routes are written by operators")

    store = NoRoutes()
    settings = Settings(registry="memory:", runtime_dir=str(private / "run"))
    with store, App(Greeter(), settings=settings, store=store) as app:
        app.start()
        assert "greeter has no route" in caplog.text
        with App(settings=settings, store=store) as other:
            assert other.call("greeter.hello") == "Hello World"


def test_a_bad_listener_leaves_no_registration(world: World) -> None:
    app = world.app(Greeter())
    with pytest.raises(FanError):
        app.start(["ipc", "http=no such place"])
    assert app.store.list("inst", deadline=float("inf")) == []
    assert world.sockets() == []
