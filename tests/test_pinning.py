"""One request never mixes two generations; a retired version is told, and tried again once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import fan
from fan.middleware.base import Call, CallNext, Middleware, Steps
from fan.middleware.retry import Retry
from fan.model import WHOLE, Route
from fan.stores.base import RETENTION, Change, Plan, Store
from tests.configs import PATIENCE as BOUND
from tests.configs import STORES, another, make_store


class Back(fan.Service):
    name = "back"
    version = "1.0.0"

    @fan.rpc
    def who(self) -> str:
        return self.version


class NewBack(Back):
    version = "2.0.0"


class Front(fan.Service):
    name = "front"
    version = "1.0.0"

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go_on = threading.Event()

    @fan.rpc
    def ask(self) -> list[Any]:
        first = self.app.call("back.who")
        self.entered.set()
        self.go_on.wait(BOUND)
        context = fan.current()
        assert context is not None
        return [first, self.app.call("back.who"), context.gen]


class World:
    def __init__(self, store: Store, folder: str) -> None:
        self.store = store
        self._folder = folder
        self._apps: list[fan.App] = []
        self._stores: list[Store] = []

    def app(self, *services: fan.Service, **options: Any) -> fan.App:
        settings = fan.Settings(runtime_dir=self._folder)
        self._stores.append(another(self.store))
        self._apps.append(fan.App(*services, settings=settings, store=self._stores[-1], **options))
        return self._apps[-1]

    def serve(self, *services: fan.Service) -> fan.App:
        app = self.app(*services)
        app.start()
        return app

    def route(self, service: str, route: Route) -> int:
        change = Change(object=f"route/{service}", body=msgspec.json.encode(route))
        plan = Plan(changes=(change,), verb="switch")
        return self.store.commit(plan, deadline=time.monotonic() + BOUND).gen

    def close(self) -> None:
        for each in (*self._apps, *self._stores):
            each.close()


@pytest.fixture(params=STORES)
def world(request: pytest.FixtureRequest, private: Path) -> Iterator[World]:
    with make_store(request, private) as store:
        made = World(store, str(private / "run"))
        yield made
        made.close()


def until(app: fan.App, gen: int) -> None:
    """Have an App put a generation in force, and wait for what it does with it."""
    app.mirror.refresh()
    assert app.discovery.gen >= gen


def test_a_call_tree_stays_in_the_generation_that_it_began_in(world: World) -> None:
    front = Front()
    world.serve(Back())
    world.serve(NewBack())
    server, caller = world.serve(front), world.app()
    pending = caller.submit("front.ask")
    assert front.entered.wait(BOUND)
    gen = world.route("back", Route(versions={"2.0.0": WHOLE}))
    until(server, gen)
    front.go_on.set()
    first, second, pinned = pending.result(BOUND)
    assert (first, second) == ("1.0.0", "1.0.0")
    assert pinned == gen - 1
    until(caller, gen)  # who begins a tree pins it
    front.go_on.set()
    assert caller.call("front.ask") == ["2.0.0", "2.0.0", gen]


def test_a_generation_that_is_not_kept_any_more_is_unavailable_and_did_not_run(
    world: World,
) -> None:
    world.serve(Back())
    app = world.app()
    app.discovery.service("back")
    for number in range(RETENTION):
        change = Change(object="config/busy", body=b"%d" % number)
        plan = Plan(changes=(change,), verb="set")
        world.store.commit(plan, deadline=time.monotonic() + BOUND)
    until(app, world.route("back", Route(versions={"2.0.0": WHOLE})))
    info = app.discovery.service("back")
    with pytest.raises(fan.Unavailable) as caught:
        app.discovery.as_of(info, 1, time.monotonic() + BOUND)
    assert (caught.value.reason, caught.value.executed) == ("stale_pin", "no")


def test_a_retired_version_is_told_and_the_entry_tries_the_new_route_once(world: World) -> None:
    old = world.serve(Back())
    world.serve(NewBack())
    caller = world.app()
    assert caller.call("back.who") == "1.0.0"
    stale = caller.discovery.service("back")
    gen = world.route("back", Route(versions={"2.0.0": WHOLE}, retired=("1.0.0",)))
    until(old, gen)
    (address,) = next(i for i in stale.instances if i.version == "1.0.0").addresses
    with pytest.raises(fan.FailedPrecondition) as caught:
        caller.using(peers=(address.url,), retries=0).call("back.who")
    assert (caught.value.reason, caught.value.executed) == ("stale_route", "no")
    assert caught.value.details["gen"] == gen
    assert caller.call("back.who") == "2.0.0"


def test_a_retired_version_is_left_by_who_has_not_heard_of_it(world: World) -> None:
    old = world.serve(Back())
    world.serve(NewBack())
    caller = world.app()
    watch = caller.store.watch
    caller.store.watch = lambda kind, on_hint: watch(kind, lambda hint: None)  # type: ignore[method-assign]
    assert caller.call("back.who") == "1.0.0"
    gen = world.route("back", Route(versions={"2.0.0": WHOLE}, retired=("1.0.0",)))
    until(old, gen)
    assert caller.discovery.gen < gen
    assert caller.call("back.who") == "2.0.0"
    assert caller.discovery.gen == gen


def test_a_retired_version_is_not_found_by_those_who_ask_for_it(world: World) -> None:
    world.serve(Back())
    world.serve(NewBack())
    world.route("back", Route(versions={"2.0.0": WHOLE}, retired=("1.0.0",)))
    caller = world.app()
    with pytest.raises(fan.Unavailable) as caught:
        caller.call("back.who@1")
    assert caught.value.reason == "no_instance"


def test_a_replaced_service_is_answered_by_the_other_one(world: World) -> None:
    class Other(fan.Service):
        name = "other"
        version = "3.0.0"

        @fan.rpc
        def who(self) -> str:
            return "other"

    world.serve(Back())
    world.serve(Other())
    caller = world.app()
    assert caller.call("back.who") == "1.0.0"
    gen = world.route("back", Route(versions={"1.0.0": WHOLE}, replaced_by="other@3"))
    until(caller, gen)
    assert caller.call("back.who") == "other"
    assert caller.client.resolve("back", "who").why[0] == "service other: instead of back"


def test_services_that_replace_each_other_are_refused(world: World) -> None:
    world.serve(Back())
    world.serve(Front())
    world.route("back", Route(versions={"1.0.0": WHOLE}, replaced_by="front"))
    world.route("front", Route(versions={"1.0.0": WHOLE}, replaced_by="back"))
    with pytest.raises(fan.FailedPrecondition, match="back -> front -> back") as caught:
        world.app().call("back.who")
    assert caught.value.reason == "replacement_loop"


def test_configs_read_in_a_call_are_those_of_its_generation(world: World) -> None:
    class Themed(fan.Service):
        name = "themed"
        version = "1.0.0"
        entered, go_on = threading.Event(), threading.Event()

        @fan.rpc
        def theme(self) -> list[Any]:
            context = fan.current()
            assert context is not None
            self.entered.set()
            self.go_on.wait(BOUND)
            return [
                context.config["themed/theme"],
                self.app.config["themed/theme"],
                context.config.get("themed/none", "default"),
                "themed/none" in context.config,
            ]

    server, caller = world.serve(Themed()), world.app()
    caller.config.set("themed/theme", "light")
    pending = caller.submit("themed.theme")
    assert Themed.entered.wait(BOUND)
    gen = caller.config.set("themed/theme", "dark").gen
    until(server, gen)
    Themed.go_on.set()
    assert pending.result(BOUND) == ["light", "dark", "default", False]
    assert caller.call("themed.theme")[:2] == ["dark", "dark"]


class Between(Middleware):
    """Does something when a call has looked up its route, and has sent nothing yet."""

    def __init__(self, doing: Callable[[], object]) -> None:
        self._doing = [doing]

    def on_call(self, call: Call, next: CallNext) -> Steps:
        while self._doing:
            self._doing.pop()()
        return (yield from next(call))


def test_a_call_whose_route_nobody_serves_any_more_goes_where_the_route_goes(world: World) -> None:
    old = world.serve(Back())
    world.serve(NewBack())

    def move() -> None:
        gen = world.route("back", Route(versions={"2.0.0": WHOLE}))
        until(old, gen)
        old.close()

    caller = world.app(middleware=[Between(move), Retry()])
    assert caller.call("back.who") == "2.0.0"


class Other(Back):
    name = "other"


def test_a_call_of_a_service_that_is_not_replaced_any_more_goes_to_the_service_itself(
    world: World,
) -> None:
    world.serve(Back())
    other = world.serve(Other())
    world.route("back", Route(versions={}, replaced_by="other@1.0.0"))

    def go_back() -> None:
        until(other, world.route("back", Route(versions={"1.0.0": WHOLE})))
        other.close()

    caller = world.app(middleware=[Between(go_back), Retry()])
    result = caller.using().request("back", "who", "", b"")
    assert (result.value, result.version) == ("1.0.0", "1.0.0")


def test_a_call_within_a_tree_does_not_leave_the_generation_of_the_tree(world: World) -> None:
    old = world.serve(Back())
    world.serve(NewBack())
    front = Front()
    server, caller = world.serve(front), world.app()
    pending = caller.submit("front.ask")
    assert front.entered.wait(BOUND)
    until(server, world.route("back", Route(versions={"2.0.0": WHOLE})))
    old.close()
    front.go_on.set()
    with pytest.raises(fan.Unknown, match="unavailable: back has no live instance"):
        pending.result(BOUND)  # that is what `ask` was told, and let through
