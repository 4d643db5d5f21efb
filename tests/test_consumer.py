"""What an App tells the registry of what it has in force."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import fan
from fan.consumer import Registration, registered, users_of
from fan.errors import PermissionDenied, Unavailable
from fan.mirror import MOST_PASSING, Mirror, State
from fan.model import WHOLE, Consumer, Proposal, Route
from fan.stores.base import Change, Plan, Store
from fan.stores.memory import MemoryStore
from tests.configs import PATIENCE as BOUND
from tests.configs import STORES, another, eventually, lose, make_store


class Shop(fan.Service):
    name = "shop"
    version = "1.0.0"

    @fan.rpc
    def who(self) -> str:
        return self.version


class NewShop(Shop):
    version = "2.0.0"


class Limits(msgspec.Struct):
    size: int = 1


class World:
    """Apps on one registry, and an operator who looks at it and changes it."""

    def __init__(self, store: Store, folder: str) -> None:
        self.store = store
        self._folder = folder
        self._apps: list[fan.App] = []
        self._stores: list[Store] = []

    def app(self, *services: fan.Service, **settings: Any) -> fan.App:
        self._stores.append(another(self.store))
        made = fan.App(
            *services,
            settings=fan.Settings(runtime_dir=self._folder, **settings),
            store=self._stores[-1],
        )
        self._apps.append(made)
        return made

    def serve(self, *services: fan.Service) -> fan.App:
        app = self.app(*services)
        app.start()
        return app

    def deadline(self) -> float:
        return time.monotonic() + BOUND

    def commit(self, **bodies: Any) -> int:
        changes = tuple(
            Change(object=name.replace("__", "/"), body=msgspec.json.encode(body))
            for name, body in bodies.items()
        )
        return self.store.commit(Plan(changes=changes, verb="switch"), deadline=self.deadline()).gen

    def switch(self, version: str) -> int:
        return self.commit(route__shop=Route(versions={version: WHOLE}))

    def consumers(self) -> list[Consumer]:
        found = self.store.list("subs", deadline=self.deadline())
        return [c for c in map(registered, found) if c is not None]

    def consumer(self, app: fan.App) -> Consumer:
        assert app.consumer is not None
        mine = app.consumer.record.id
        return next(c for c in self.consumers() if c.id == mine)

    def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for what a consumer is about to write."""
        changed = threading.Event()
        watch = self.store.watch("subs", lambda hint: changed.set())
        try:
            while not is_so():
                assert changed.wait(BOUND)
                changed.clear()
        finally:
            watch.close()

    def close(self) -> None:
        for each in (*self._apps, *self._stores):
            each.close()


@pytest.fixture(params=STORES)
def world(request: pytest.FixtureRequest, private: Path) -> Iterator[World]:
    with make_store(request, private) as store:
        made = World(store, str(private / "run"))
        yield made
        made.close()


def test_who_uses_a_service_is_registered_with_the_generation_in_force(world: World) -> None:
    world.serve(Shop())
    caller = world.app()
    assert caller.using(transport="ipc").call("shop.who") == "1.0.0"
    head = world.store.head(deadline=world.deadline())
    world.until(lambda: world.consumer(caller).applied.gen == head.gen)
    found = world.consumer(caller)
    assert found.uses == ("shop",)
    assert (found.applied.epoch, found.applied.gen, found.applied.op) == (
        head.epoch, head.gen, head.op,
    )  # fmt: skip
    assert (found.app, found.nack) == ("app", None)


def test_it_is_registered_before_it_reads(world: World) -> None:
    world.serve(Shop())
    caller, seen = world.app(), []
    read = caller.store.read

    def spy(*args: Any, **kwargs: Any) -> Any:
        seen.append([c.uses for c in world.consumers() if c.app == caller.name])
        return read(*args, **kwargs)

    caller.discovery.service("shop")  # looked at, and then used
    assert caller.mirror.state.gen
    caller.store.read = spy  # type: ignore[method-assign]
    caller.config.get("other/theme")
    assert ("other", "shop") in seen[0]


def test_a_switch_is_applied_and_then_acknowledged(world: World) -> None:
    world.serve(Shop())
    world.serve(NewShop())
    caller = world.app()
    caller.call("shop.who")
    gen = world.switch("2.0.0")
    world.until(lambda: world.consumer(caller).applied.gen == gen)
    assert caller.call("shop.who") == "2.0.0"


def test_owners_of_what_was_let_go_are_not_used_any_more_and_nobody_waits_in_vain(
    private: Path,
) -> None:
    with MemoryStore() as store:
        world = World(store, str(private))
        mirror = Mirror(lambda: store)
        consumer = Registration(mirror, lambda: store, app="reader")
        names = [f"config/owner{number}/theme" for number in range(2 * MOST_PASSING)]
        began = world.commit(config__first__theme="light")
        mirror.use("config/first/theme", is_passing=True)
        world.until(lambda: world.consumers()[0].applied.gen == began)
        mirror.use(*names, is_passing=True)
        (before,) = world.consumers()
        assert "first" in before.uses
        gen = world.commit(config__first__theme="dark")  # who switches still waits for us
        world.until(lambda: world.consumers()[0].applied.gen == gen)
        (after,) = world.consumers()
        assert len(after.uses) == MOST_PASSING
        assert "first" not in after.uses
        assert mirror.use("config/first/theme", is_passing=True).gen == gen
        (again,) = world.consumers()
        assert "first" in again.uses
        consumer.close()
        mirror.close()


def test_what_concerns_others_is_not_acknowledged_at_once(world: World) -> None:
    world.serve(Shop())
    caller = world.app()
    caller.call("shop.who")
    world.until(lambda: world.consumer(caller).applied.gen == caller.discovery.gen)
    before = world.consumer(caller).applied
    world.commit(config__other__theme="dark")
    caller.mirror.refresh()
    assert caller.discovery.gen > before.gen
    assert world.consumer(caller).applied == before


def test_a_config_that_does_not_fit_is_refused_with_the_route_of_its_generation(
    world: World,
) -> None:
    world.serve(Shop())
    world.serve(NewShop())
    caller = world.app()
    limits = caller.config.bind("shop/limits", Limits)
    assert caller.call("shop.who") == "1.0.0"
    gen = world.commit(
        route__shop=Route(versions={"2.0.0": WHOLE}), config__shop__limits={"size": "large"}
    )
    world.until(lambda: world.consumer(caller).nack is not None)
    nack = world.consumer(caller).nack
    assert nack is not None
    assert nack.gen == gen
    assert "size" in nack.error
    assert world.consumer(caller).applied.gen < gen
    assert (caller.call("shop.who"), limits.value.size) == ("1.0.0", 1)
    good = world.commit(config__shop__limits={"size": 3})
    world.until(lambda: world.consumer(caller).applied.gen == good)
    assert world.consumer(caller).nack is None
    assert (caller.call("shop.who"), limits.value.size) == ("2.0.0", 3)


def propose(world: World, op: str, **bodies: Any) -> Any:
    session = world.store.open_session(deadline=world.deadline())
    proposal = Proposal(
        changes={name.replace("__", "/"): msgspec.json.encode(b) for name, b in bodies.items()}
    )
    world.store.put(
        "prep", op, msgspec.json.encode(proposal), session=session, deadline=world.deadline()
    )
    return session


def test_a_proposal_is_voted_on_and_changes_nothing(world: World) -> None:
    world.serve(Shop())
    caller = world.app()
    caller.config.bind("shop/limits", Limits)
    caller.call("shop.who")
    propose(world, "good", config__shop__limits={"size": 2}).close()
    sessions = [propose(world, "good", config__shop__limits={"size": 2})]
    world.until(lambda: "good" in world.consumer(caller).votes)
    sessions.append(propose(world, "bad", config__shop__limits={"size": "large"}))
    world.until(lambda: "bad" in world.consumer(caller).votes)
    sessions.append(propose(world, "foreign", config__other__limits={"size": "large"}))
    sessions.append(propose(world, "later", route__shop=Route(versions={"1.0.0": WHOLE})))
    world.until(lambda: "later" in world.consumer(caller).votes)
    votes = world.consumer(caller).votes
    assert set(votes) == {"good", "bad", "later"}
    assert (votes["good"].ok, votes["bad"].ok) == (True, False)
    assert "size" in votes["bad"].error
    assert caller.config.get("shop/limits") is None
    for session in sessions:
        session.close()


def test_who_was_given_up_registers_again_and_reads_anew_before_it_calls(world: World) -> None:
    world.serve(Shop())
    world.serve(NewShop())
    caller = world.app()
    caller.call("shop.who")
    assert caller.consumer is not None
    assert caller.consumer._session is not None
    mine = caller.consumer.record.id
    lose(caller.store, caller.consumer._session)
    gen = world.switch("2.0.0")
    world.until(lambda: any(c.applied.gen == gen for c in world.consumers() if c.id == mine))
    assert caller.call("shop.who") == "2.0.0"


def test_who_was_given_up_never_calls_by_what_it_knew(world: World) -> None:
    world.serve(Shop())
    world.serve(NewShop())
    caller = world.app()
    watch = caller.store.watch
    caller.store.watch = lambda kind, on_hint: watch(kind, lambda hint: None)  # type: ignore[method-assign]
    assert caller.call("shop.who") == "1.0.0"
    world.switch("2.0.0")
    assert caller.call("shop.who") == "1.0.0"  # it has not heard of it

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise Unavailable("not now", reason="connect_failed")

    caller.store.put = refuse  # type: ignore[method-assign]
    assert caller.consumer is not None
    assert caller.consumer._session is not None
    lose(caller.store, caller.consumer._session)
    assert eventually(lambda: caller.call("shop.who") == "2.0.0")


def test_who_was_given_up_acknowledges_again_also_where_nothing_changed(world: World) -> None:
    world.serve(Shop())
    caller = world.app()
    caller.call("shop.who")
    assert caller.consumer is not None
    assert caller.consumer._session is not None
    before = caller.consumer.record
    lose(caller.store, caller.consumer._session)
    world.until(
        lambda: any(
            (c.id, c.applied) == (before.id, before.applied) and c.at > before.at
            for c in world.consumers()
        )
    )


def test_where_the_registry_lets_nobody_register_calls_go_on(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.serve(Shop())
    caller = world.app()

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionDenied("readers do not write")

    caller.store.put = refuse  # type: ignore[method-assign]
    assert caller.call("shop.who") == "1.0.0"
    assert "switches will not wait for this App: readers do not write" in caplog.text


def test_who_leaves_is_no_consumer_any_more(world: World) -> None:
    world.serve(Shop())
    caller = world.app()
    caller.call("shop.who")
    mine = world.consumer(caller).id
    caller.close()
    assert mine not in [c.id for c in world.consumers()]


@pytest.mark.parametrize(
    ("object", "service"),
    [
        ("route/shop", "shop"),
        ("config/shop/theme", "shop"),
        ("config/shop", "shop"),
        ("schema/shop/theme", ""),
    ],
)
def test_a_change_concerns_the_users_of_a_service(object: str, service: str) -> None:
    assert users_of(object) == service


def test_after_a_refusal_a_lost_registration_fails_what_uses_it_if_so_wanted() -> None:
    with MemoryStore("loss") as store:
        deadline = time.monotonic() + BOUND

        def commit(body: bytes) -> None:
            change = Change(object="config/a", body=body)
            store.commit(Plan(changes=(change,), verb="set"), deadline=deadline)

        def check(state: State) -> None:
            if state.body("config/a") == b'"bad"':
                raise fan.InvalidArgument("no")

        for on_loss in ("stale", "fail"):
            commit(b'"good"')
            mirror = Mirror(lambda: store, on_loss=on_loss)
            mirror.validate(check)
            mirror.use("config/a")
            commit(b'"bad"')
            assert mirror.refresh().body("config/a") == b'"good"'
            mirror.drop()
            if on_loss == "stale":
                assert mirror.use("config/a").body("config/a") == b'"good"'
            else:
                with pytest.raises(Unavailable) as caught:
                    mirror.use("config/a")
                assert (caught.value.reason, caught.value.executed) == ("stale_cut", "no")
            mirror.close()
