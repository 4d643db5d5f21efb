"""Lifecycle: how services start, adopt a route, drain, stop, and come back into a registry."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fan import App, Service, Settings, push, rpc
from fan.errors import AlreadyExists, FailedPrecondition, FanError, Unavailable, Unknown
from fan.lifecycle import start_order
from fan.stores.memory import MemoryStore
from tests.configs import eventually

#: Seconds after which a test that waits has failed.
HANG = 10.0


class Greeter(Service):
    name = "greeter"
    version = "1.0.0"

    @rpc
    def hello(self, name: str = "World") -> str:
        return f"Hello {name}"


class Greeter2(Greeter):
    version = "2.0.0"

    @rpc
    def hello(self, name: str = "World") -> str:
        return f"Hi {name}"


class Single(Greeter):
    name = "single"
    unique = True


class Gated(Service):
    """Its one method waits until the test lets it go."""

    name = "gated"
    version = "1.0.0"

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go = threading.Event()

    @rpc
    def wait(self) -> str:
        self.entered.set()
        assert self.go.wait(HANG)
        return "done"


class World:
    """A registry in memory and the Apps of one test, closed at its end."""

    def __init__(self, folder: Path) -> None:
        self.store = MemoryStore()
        self.settings = Settings(registry="memory:", runtime_dir=str(folder / "run"))
        self._stack = contextlib.ExitStack()
        self._stack.callback(self.store.close)

    def app(self, *services: Service, store: MemoryStore | None = None) -> App:
        own = store or self.store.another()
        self._stack.callback(own.close)
        return self._stack.enter_context(App(*services, settings=self.settings, store=own))

    def routes(self, service: str = "greeter") -> dict[str, int]:
        route = self.app().discovery.service(service).route
        return dict(route.versions) if route else {}

    def states(self, service: str) -> list[str]:
        return [i.state for i in self.app().discovery.service(service).instances]

    def sockets(self) -> list[str]:
        folder = self.settings.runtime_dir
        return os.listdir(folder) if os.path.isdir(folder) else []

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def world(private: Path) -> Iterator[World]:
    world = World(private)
    yield world
    world.close()


def until(is_so: Callable[[], bool], app: App) -> None:
    """Wait for what the registry is about to say; its watch tells when to look again."""
    changed = threading.Event()
    end = app.discovery.watch(changed.set)
    try:
        while not is_so():
            assert changed.wait(HANG)
            changed.clear()
    finally:
        end()


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


def caller_scheme(url: str, transport: str) -> bool:
    return url.startswith("unix:" if transport == "ipc" else "http:")


def test_an_instance_id_in_use_is_refused(world: World) -> None:
    one, two = world.app(), world.app()
    one.add(Greeter(), "greeter-a")
    two.add(Greeter(), "greeter-a")
    one.start()
    with pytest.raises(AlreadyExists) as caught:
        two.start()
    assert (caught.value.reason, caught.value.executed) == ("duplicate_id", "no")
    assert world.states("greeter") == ["up"]
    assert world.app().call("greeter.hello") == "Hello World"


def test_an_instance_id_is_free_again_after_a_stop(world: World) -> None:
    for _ in range(2):
        app = world.app()
        app.add(Greeter(), "greeter-a")
        app.start()
        app.stop()


def test_a_unique_service_has_one_live_instance_per_version(world: World) -> None:
    first, second = world.app(Single()), world.app(Single())
    first.start()
    with pytest.raises(AlreadyExists, match=r"single 1\.0\.0 is unique and runs as single-"):
        second.start()
    assert world.states("single") == ["up"]
    first.stop()
    second.start()
    assert world.states("single") == ["up"]


def test_of_many_that_start_a_unique_service_at_once_one_wins(world: World) -> None:
    apps = [world.app(Single()) for _ in range(6)]
    barrier, outcomes = threading.Barrier(len(apps)), []

    def start(app: App) -> None:
        barrier.wait(HANG)
        try:
            app.start()
        except AlreadyExists:
            outcomes.append("refused")
        else:
            outcomes.append("up")

    threads = [threading.Thread(target=start, args=(app,)) for app in apps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
    assert sorted(outcomes) == ["refused"] * 5 + ["up"]


def test_a_unique_service_has_no_twin_in_its_own_app(world: World) -> None:
    with pytest.raises(AlreadyExists, match="in this App"):
        world.app(Single(), Single()).start()


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


def test_a_lost_session_registers_again_with_the_latest_state(world: World) -> None:
    own = world.store.another()
    app = world.app(Greeter(), store=own)
    app.start()
    watcher = world.app()
    session = app.discovery._session
    assert session is not None
    own.expire(session)
    until(lambda: world.states("greeter") == ["up"], watcher)


class Flaky(MemoryStore):
    """A store that can be told to be out of reach."""

    is_down = False

    def put(self, *args: Any, **kwargs: Any) -> None:
        self._check()
        super().put(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> bool:
        self._check()
        return super().delete(*args, **kwargs)

    def _check(self) -> None:
        if self.is_down:
            raise Unavailable("the registry is down", reason="connect_failed")


def test_a_lost_session_is_replaced_as_soon_as_the_registry_is_back(private: Path) -> None:
    store = Flaky()
    settings = Settings(registry="memory:", runtime_dir=str(private / "run"))
    with store, App(Greeter(), settings=settings, store=store) as app:
        app.start()
        store.is_down = True
        assert app.discovery._session is not None
        store.expire(app.discovery._session)
        store.is_down = False
        with App(settings=settings, store=store) as other:
            until(lambda: bool(other.discovery.service("greeter").instances), other)


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


class Job(Service):
    """The one that works: who is it, and who does not any more."""

    name = "job"
    version = "1.0.0"
    unique = True

    def __init__(self) -> None:
        self.life: list[str] = []
        self.has_changed = threading.Condition()

    def service_start(self) -> None:
        self._note("start")

    def service_stop(self) -> None:
        self._note("stop")

    def _note(self, what: str) -> None:
        with self.has_changed:
            self.life.append(what)
            self.has_changed.notify_all()

    def wait(self, *life: str) -> None:
        with self.has_changed:
            assert self.has_changed.wait_for(lambda: self.life == list(life), HANG), self.life

    @rpc
    def who(self) -> str:
        return self.instance_id


def flaky(world: World) -> Flaky:
    """One on the world's registry."""
    store = Flaky()
    store._spaces, store._space = world.store._spaces, world.store._space
    return store


def oust(app: App, store: Flaky, successor: App) -> None:
    """Have the place of what `app` serves taken while its session is lost."""
    store.is_down = True
    assert app.discovery._session is not None
    store.expire(app.discovery._session)
    successor.start()
    store.is_down = False


def test_who_lost_the_place_of_a_unique_service_rests_until_it_is_free_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    own, (old, new) = flaky(world), (Job(), Job())
    first, second = world.app(old, store=own), world.app(new)
    first.start()
    address = first.lifecycle.instances[0].addresses[0].url
    direct = world.app().using(peers=(address,), retries=0)
    assert direct.call("job.who") == old.instance_id
    oust(first, own, second)
    old.wait("start", "stop")
    with pytest.raises(Unavailable, match="job is not up yet"):
        direct.call("job.who")
    assert first.call("job.who") == world.app().call("job.who") == new.instance_id
    assert [one.name for one in first.lifecycle.waiting] == ["job"]
    assert "job 1.0.0 is unique and runs as" in caplog.text
    second.stop()
    old.wait("start", "stop", "start")
    watcher = world.app()
    until(lambda: world.states("job") == ["up"], watcher)
    assert watcher.call("job.who") == first.call("job.who") == old.instance_id


def test_who_lost_the_place_of_a_unique_service_ends_what_it_handles_and_takes_no_pushes(
    world: World, private: Path
) -> None:
    class Sender(Job):
        def __init__(self) -> None:
            super().__init__()
            self.go, self.sent = threading.Event(), 0

        @push
        def send(self) -> None:
            self._note("begin")
            assert self.go.wait(HANG)
            self.sent += 1
            self._note("end")

    world.settings = msgspec.structs.replace(
        world.settings, database_url=f"sqlite:{private / 'queues.db'}", workers=1
    )
    own, (old, new) = flaky(world), (Sender(), Sender())
    first, second = world.app(old, store=own), world.app(new)
    first.start()
    caller = world.app()
    caller.push("job.send")
    old.wait("start", "begin")
    oust(first, own, second)
    assert eventually(lambda: bool(first.lifecycle.waiting))
    old.go.set()
    new.go.set()
    old.wait("start", "begin", "end", "stop")  # stopped behind what was in hand, not before
    for _ in range(5):
        caller.push("job.send")
    with new.has_changed:
        assert new.has_changed.wait_for(lambda: new.sent == 5, HANG)
    assert old.sent == 1


def test_who_lost_its_id_rests_and_ends_with_its_app(world: World) -> None:
    class Named(Job):
        unique = False

    own, (old, new) = flaky(world), (Named(), Named())
    first, second = world.app(store=own), world.app()
    first.add(old, "job-1")
    second.add(new, "job-1")
    first.start()
    oust(first, own, second)
    old.wait("start", "stop")
    first.stop()
    old.wait("start", "stop")  # not a second time
    assert world.states("job") == ["up"]  # it leaves the other's record alone


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
