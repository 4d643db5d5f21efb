"""Places: ids and `unique` services, who comes back into a registry, and who lost a place there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fan import App, Service, Settings, push, rpc
from fan.errors import AlreadyExists, Unavailable
from tests.configs import eventually
from tests.lives import HANG, Flaky, Greeter, World, until


class Single(Greeter):
    name = "single"
    unique = True


@pytest.fixture
def world(private: Path) -> Iterator[World]:
    world = World(private)
    yield world
    world.close()


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


def test_a_lost_session_registers_again_with_the_latest_state(world: World) -> None:
    own = world.store.another()
    app = world.app(Greeter(), store=own)
    app.start()
    watcher = world.app()
    session = app.discovery._session
    assert session is not None
    own.expire(session)
    until(lambda: world.states("greeter") == ["up"], watcher)


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
