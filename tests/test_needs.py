"""A service starts when what it needs is there, in the version that it needs."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fan
from fan.errors import FailedPrecondition, Unavailable, Unknown
from fan.stores.base import Store
from tests.configs import STORES, another, make_store
from tests.shaky import BOUND, Shaky

#: Has a test run on every store; the others have one that fails when it is told to.
EACH = pytest.mark.parametrize("world", STORES, indirect=True)


def service(name: str, version: str = "1.0.0", **depend: Any) -> fan.Service:
    """A service with one method that says its version."""

    def who(self: fan.Service) -> str:
        return self.version

    body = {"name": name, "version": version, "depend": depend, "who": fan.rpc(who)}
    return type("Made", (fan.Service,), body)()  # type: ignore[no-any-return]


class World:
    def __init__(self, store: Store, folder: str) -> None:
        self.registry = store
        self._folder = folder
        self._apps: list[fan.App] = []
        self._stores: list[Store] = []

    @property
    def store(self) -> Shaky:
        """What fails."""
        assert isinstance(self.registry, Shaky)
        return self.registry

    def app(self, *services: fan.Service) -> fan.App:
        settings = fan.Settings(runtime_dir=self._folder, timeout=BOUND)
        store = self.registry
        if not isinstance(store, Shaky):  # each has its own, as other processes have
            store = another(store)
            self._stores.append(store)
        self._apps.append(fan.App(*services, settings=settings, store=store))
        return self._apps[-1]

    def serve(self, *services: fan.Service) -> fan.App:
        app = self.app(*services)
        app.start()
        return app

    def close(self) -> None:
        for app in reversed(self._apps):
            app.close()
        for store in (*self._stores, self.registry):
            store.close()


@pytest.fixture
def world(request: pytest.FixtureRequest, private: Path) -> Iterator[World]:
    store = make_store(request, private) if hasattr(request, "param") else Shaky()
    made = World(store, str(private / "run"))
    yield made
    made.close()


def state(app: fan.App) -> tuple[str, tuple[str, ...]]:
    (instance,) = app.lifecycle.instances
    return instance.state, instance.unmet


def until(app: fan.App, is_so: Callable[[], bool]) -> None:
    changed = threading.Event()
    end = app.discovery.watch(changed.set)
    try:
        while not is_so():
            assert changed.wait(BOUND)
            changed.clear()
    finally:
        end()


@EACH
def test_a_service_waits_for_what_it_needs_and_is_not_routed_meanwhile(world: World) -> None:
    shop = world.serve(service("shop", hard=["users"]))
    assert state(shop) == ("starting", ("users (have none)",))
    caller = world.app()
    with pytest.raises(Unavailable) as caught:
        caller.call("shop.who")
    assert (caught.value.reason, caught.value.executed) == ("no_instance", "no")
    world.serve(service("users"))
    until(caller, lambda: state(shop) == ("up", ()))
    assert caller.call("shop.who") == "1.0.0"


@EACH
def test_a_version_out_of_the_range_is_not_what_it_needs(world: World) -> None:
    world.serve(service("users", "1.1.4"))
    shop = world.serve(service("shop", hard={"users": ">=1.2,<2"}))
    assert state(shop) == ("starting", ("users>=1.2,<2 (have 1.1.4)",))
    world.serve(service("users", "1.10.0"))  # live, though the route goes to 1.1.4
    until(shop, lambda: state(shop) == ("up", ()))


def test_the_hook_runs_when_the_service_may_start(world: World) -> None:
    made, started = service("shop", hard=["users"]), threading.Event()
    made.service_start = started.set  # type: ignore[method-assign]
    world.serve(made)
    assert not started.is_set()
    world.serve(service("users"))
    assert started.wait(BOUND)


def test_a_hook_that_fails_late_leaves_the_service_starting_and_says_why(world: World) -> None:
    def fail() -> None:
        raise ValueError("no disk")

    made = service("shop", hard=["users"])
    made.service_start = fail  # type: ignore[method-assign]
    shop = world.serve(made)
    world.serve(service("users"))
    until(shop, lambda: "no disk" in str(state(shop)))
    with pytest.raises(Unknown, match="no disk"):
        shop.lifecycle.wait_up()  # it is told a moment before the try is over
    assert state(shop)[0] == "starting"
    assert [one.name for one in shop.lifecycle.waiting] == ["shop"]  # it takes from no queue


def test_who_waits_for_an_app_is_told_what_could_not_start(world: World) -> None:
    def fail() -> None:
        raise ValueError("no disk")

    made = service("shop", hard=["users"])
    made.service_start = fail  # type: ignore[method-assign]
    shop = world.serve(made)
    world.serve(service("users"))
    with pytest.raises(Unknown, match="could not start: ValueError: no disk") as caught:
        shop.lifecycle.wait_up()
    assert caught.value.reason == "start_failed"


def test_what_it_needs_is_found_though_the_registry_cannot_be_read_when_it_comes(
    world: World,
) -> None:
    shop = world.serve(service("shop", hard=["users"]))
    theirs = world.store.another()
    app = fan.App(service("users"), settings=shop.settings, store=theirs)
    world.store.failing += ["list"] * 1_000_000
    with app:
        app.start()
        instances = [r.name for r in theirs.list("inst", "users/", deadline=float("inf"))]
        assert len(instances) == 1
        assert world.store.failed.wait(BOUND)  # what changed was heard of, and not seen
        assert state(shop)[0] == "starting"
        world.store.failing.clear()
        assert shop.lifecycle.wait_up()
    theirs.close()


def test_a_service_that_could_not_be_told_to_be_up_is_started_once(world: World) -> None:
    made, starts = service("shop", hard=["users"]), []
    shop = world.app(made)
    put = world.store.put

    def start() -> None:
        starts.append(1)
        world.store.put = fail  # type: ignore[method-assign]

    def fail(*args: Any, **how: Any) -> None:
        world.store.put = put  # type: ignore[method-assign]
        raise Unavailable("a hiccup")

    made.service_start = start  # type: ignore[method-assign]
    shop.start()
    world.serve(service("users"))
    assert shop.lifecycle.wait_up()
    assert state(shop) == ("up", ())
    assert len(starts) == 1


def test_a_program_that_fails_while_something_waits_ends(tmp_path: Any) -> None:
    code = (
        "import fan\n"
        "class Shop(fan.Service):\n"
        "    name, version, depend = 'shop', '1.0.0', {'hard': ['users']}\n"
        f"settings = fan.Settings(registry='memory:', runtime_dir={str(tmp_path / 'run')!r})\n"
        "app = fan.App(Shop(), settings=settings)\n"
        "app.start()\n"
        "raise SystemExit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=BOUND, check=False)
    assert done.returncode == 3


@EACH
def test_what_goes_away_later_is_listed_and_takes_nobody_down(world: World) -> None:
    users = world.serve(service("users"))
    shop = world.serve(service("shop", hard=["users"]))
    assert state(shop) == ("up", ())
    users.close()
    until(shop, lambda: state(shop) == ("up", ("users (have none)",)))
    world.serve(service("users"))
    until(shop, lambda: state(shop) == ("up", ()))


@EACH
def test_a_soft_dependency_is_a_warning(world: World, caplog: pytest.LogCaptureFixture) -> None:
    shop = world.serve(service("shop", soft={"mail": ">=2"}))
    assert state(shop) == ("up", ())
    assert "shop works without what it would use: mail>=2 (have none)" in caplog.text


def test_services_of_one_app_wait_for_nobody_else(world: World) -> None:
    app = world.serve(service("shop", hard=["users"]), service("users"))
    assert {i.state for i in app.lifecycle.instances} == {"up"}


@EACH
def test_services_of_several_processes_that_wait_for_each_other_are_refused(world: World) -> None:
    world.serve(service("shop", hard=["users"]))
    world.serve(service("users", hard=["rights"]))
    with pytest.raises(FailedPrecondition, match="rights -> shop -> users -> rights") as caught:
        world.serve(service("rights", hard=["shop"]))
    assert caught.value.reason == "dependency_missing"


def test_who_waits_for_an_app_is_told_when_all_is_up_and_when_it_stops(world: World) -> None:
    shop = world.serve(service("shop", hard=["users"]))
    told: list[bool] = []
    thread = threading.Thread(target=lambda: told.append(shop.lifecycle.wait_up()))
    thread.start()
    users = world.serve(service("users"))
    thread.join(BOUND)
    other = world.serve(service("other", hard=["nobody"]))
    thread = threading.Thread(target=lambda: told.append(other.lifecycle.wait_up()))
    thread.start()
    other.stop()
    thread.join(BOUND)
    assert told == [True, False]
    assert users.lifecycle.wait_up()


def test_an_app_that_stops_waits_no_longer(world: World) -> None:
    shop = world.serve(service("shop", hard=["users"]))
    shop.stop()
    assert shop.lifecycle.instances == []
    world.serve(service("users"))
    assert shop.lifecycle.waiting == []
