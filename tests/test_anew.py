"""A registry that is made anew under those who use it: all comes back that they know of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import fan
from fan.model import Instance, Interface, Route
from fan.stores.base import Change, Plan
from tests.configs import PATIENCE, ZOOKEEPER, eventually, lose
from tests.registries import SERVER, Registry, make_registry


class Shop(fan.Service):
    name = "shop"
    version = "1.0.0"

    @fan.rpc
    def who(self) -> str:
        return self.version


class NewShop(Shop):
    version = "2.0.0"


@pytest.fixture(params=["sqlite", ZOOKEEPER, SERVER])
def registry(request: pytest.FixtureRequest, private: Path) -> Registry:
    """A file; a part of a ZooKeeper, whose sessions stay; a whole ZooKeeper."""
    return make_registry(request, private)


class World:
    """Apps on that registry, each with a store of its own."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self.registry = registry
        self._folder = folder
        self._stack = contextlib.ExitStack()

    def app(self, *services: fan.Service, live: bool = True) -> fan.App:
        store = self._stack.enter_context(self.registry.open())
        settings = fan.Settings(runtime_dir=str(self._folder / "run"))
        app = fan.App(*services, settings=settings, store=store, live=live)
        return self._stack.enter_context(app)

    def serve(self, *services: fan.Service) -> fan.App:
        app = self.app(*services)
        app.start()
        return app

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def world(registry: Registry, private: Path) -> Iterator[World]:
    world = World(registry, private)
    yield world
    world.close()


def test_instances_interfaces_and_routes_are_as_they_were_last_seen(world: World) -> None:
    apps = [world.serve(Shop()), world.serve(NewShop())]
    caller, operator = world.app(), world.app(live=False)
    operator.versions.switch({"shop": "2.0.0"})
    before = operator.versions.weight("shop", {"1.0.0": 500}).gen
    assert all(app.mirror.refresh().gen == before for app in apps)
    assert caller.call("shop.who") in ("1.0.0", "2.0.0")
    world.registry.wipe()

    def is_as_before() -> bool:
        info = operator.discovery.service("shop")
        return (
            {(i.version, i.state) for i in info.instances}
            == {("1.0.0", "up"), ("2.0.0", "up")}
            and sorted(info.interfaces) == ["1.0.0", "2.0.0"]
            and info.route == Route(versions={"1.0.0": 500, "2.0.0": 9500})
        )

    assert eventually(is_as_before)
    (made,) = operator.versions.history()
    assert (made.gen, made.verb) == (1, "adopt")
    assert made.message.endswith("found the registry made anew")
    assert eventually(lambda: caller.call("shop.who") in ("1.0.0", "2.0.0"))
    operator.versions.switch({"shop": "1.0.0"})
    assert eventually(lambda: caller.call("shop.who") == "1.0.0")


@pytest.mark.parametrize("registry", ["sqlite", ZOOKEEPER], indirect=True)
def test_a_described_service_has_its_route_back_though_it_was_switched_after_its_start(
    world: World,
) -> None:
    companions = []
    for version in ("1.0.0", "2.0.0"):
        companions.append(world.app(live=False))
        companions[-1].operations.register(
            Interface(service="web", version=version), ["http://127.0.0.1:9"], lease=True
        )
    operator = world.app(live=False)
    gen = operator.versions.switch({"web": "2.0.0"}).gen
    for each in companions:
        assert eventually(lambda each=each: each.discovery.gen == gen)  # type: ignore[misc]
    world.registry.wipe()

    def is_as_before() -> bool:
        info = operator.discovery.service("web")
        return len(info.instances) == 2 and info.route == Route(versions={"2.0.0": 10_000})

    assert eventually(is_as_before)


@pytest.mark.parametrize("registry", ["sqlite", ZOOKEEPER], indirect=True)
def test_an_instance_whose_session_was_lost_comes_back_with_its_id_and_its_latest_data(
    world: World,
) -> None:
    server, operator = world.app(live=False), world.app(live=False)
    instance = server.operations.register(
        Interface(service="web", version="1.0.0"), ["http://127.0.0.1:9"],
        id="web-7", lease=True, state="starting",
    )  # fmt: skip
    server.discovery.update(msgspec.structs.replace(instance, state="up"))
    session = server.discovery._session
    assert session is not None
    lose(server.store, session)
    gen = operator.store.head(deadline=time.monotonic() + PATIENCE).gen

    def found() -> list[tuple[str, str, bool]]:
        records = operator.store.list("inst", deadline=time.monotonic() + PATIENCE)
        states = [msgspec.json.decode(r.body, type=Instance).state for r in records]
        return [
            (r.name, state, r.session == session.id)
            for r, state in zip(records, states, strict=True)
        ]

    assert eventually(lambda: found() == [("web/web-7", "up", False)])
    assert operator.store.head(deadline=time.monotonic() + PATIENCE).gen == gen


@pytest.mark.parametrize("registry", ["sqlite", ZOOKEEPER], indirect=True)
def test_a_route_that_was_taken_away_is_not_made_again_by_a_lost_session(world: World) -> None:
    server, operator = world.app(live=False), world.app(live=False)
    info = Interface(service="web", version="1.0.0")
    instance = server.operations.register(info, ["http://127.0.0.1:9"], lease=True)
    route = Change(object="route/web", unpin=True)
    deadline = time.monotonic() + PATIENCE
    operator.store.commit(Plan(changes=(route,), verb="rollback"), deadline=deadline)
    session = server.discovery._session
    assert session is not None
    lose(server.store, session)

    def is_registered_again() -> bool:
        found = operator.store.list("inst", deadline=time.monotonic() + PATIENCE)
        return [(r.name, r.session == session.id) for r in found] == [(f"web/{instance.id}", False)]

    assert eventually(is_registered_again)
    server.discovery.leave()  # what it does then is done
    assert operator.discovery.service("web").route is None
