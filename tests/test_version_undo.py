"""The way back: which generation is undone, what stops it, and where it ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fan import Aborted, Configs, FailedPrecondition, NotFound, Write
from fan.stores.base import Change, Plan, Store
from tests.configs import STORES, make_store
from tests.versions import World


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, private: Path) -> Iterator[Store]:
    with make_store(request, private) as store:
        yield store


@pytest.fixture
def world(store: Store, private: Path) -> Iterator[World]:
    """`shop` and `stock`, both at 1.0 by adoption, with versions up to 4.0."""
    world = World(store, private)
    for service in ("shop", "stock"):
        world.register(service, "1.0", "2.0", "3.0", "4.0")
        world.adopt(service, "1.0")
    yield world
    world.close()


@pytest.fixture
def configs(store: Store) -> Configs:
    return Configs(lambda: store, live=False)


def at(world: World, *services: str) -> list[str]:
    return [next(iter(world.routed(service)), "") for service in services]


def test_routes_and_configs_come_back_together_and_a_second_one_walks_further(
    world: World, configs: Configs
) -> None:
    configs.set("shop/theme", "light")
    world.versions.switch({"shop": "2.0", "stock": "2.0"}, configs={"shop/theme": "dark"})
    world.versions.switch({"shop": "3.0"}, configs={"shop/theme": "blue"})
    world.versions.rollback()
    assert (at(world, "shop", "stock"), configs["shop/theme"]) == (["2.0", "2.0"], "dark")
    world.versions.rollback()
    assert (at(world, "shop", "stock"), configs["shop/theme"]) == (["1.0", "1.0"], "light")
    with pytest.raises(NotFound, match="nothing to undo"):
        world.versions.rollback()


def test_a_config_that_came_with_a_switch_is_gone_after_its_rollback(
    world: World, configs: Configs
) -> None:
    world.versions.switch({"shop": "2.0"}, configs={"shop/theme": "dark"})
    world.versions.rollback()
    assert "shop/theme" not in configs


def test_it_is_a_new_generation_and_the_history_says_what_it_undid(world: World) -> None:
    gen = world.versions.switch({"shop": "2.0"}).gen
    done = world.versions.rollback(how=Write(message="slow"))
    assert done.gen == gen + 1
    assert done.undoes is not None
    assert (done.undoes.gen, done.undoes.verb) == (gen, "switch")
    newest, switched = world.versions.history(2)
    assert (newest.verb, newest.undo_of, newest.message) == ("rollback", gen, "slow")
    assert (switched.gen, switched.undone_by) == (gen, done.gen)


def test_an_unrelated_change_in_between_survives(world: World, configs: Configs) -> None:
    world.versions.switch({"shop": "2.0"})
    configs.set("other/key", 1)
    world.versions.rollback()
    assert (at(world, "shop"), configs["other/key"]) == (["1.0"], 1)


def test_an_overlapping_change_stops_it_and_is_named(world: World, configs: Configs) -> None:
    gen = world.versions.switch({"shop": "2.0"}, configs={"shop/theme": "dark"}).gen
    later = configs.set("shop/theme", "mine").gen
    for which in (None, gen):
        said = f"config shop/theme was changed since, in generation {later}"
        with pytest.raises(Aborted, match=said):
            world.versions.rollback(which)
    assert (at(world, "shop"), configs["shop/theme"]) == (["2.0"], "mine")


def test_a_plain_config_change_is_no_candidate(world: World, configs: Configs) -> None:
    world.versions.switch({"shop": "2.0"})
    configs.set("shop/theme", "dark")
    world.versions.rollback()
    assert (at(world, "shop"), configs["shop/theme"]) == (["1.0"], "dark")


def test_any_generation_is_undone_once(world: World) -> None:
    first = world.versions.switch({"shop": "2.0"}).gen
    world.versions.switch({"stock": "2.0"})
    world.versions.rollback(first)
    assert at(world, "shop", "stock") == ["1.0", "2.0"]
    with pytest.raises(Aborted, match=f"generation {first} is undone already") as no:
        world.versions.rollback(first)
    assert no.value.reason == "conflict"


def test_undoing_a_rollback_brings_back_what_it_left(world: World) -> None:
    world.versions.switch({"shop": "2.0"})
    back = world.versions.rollback().gen
    world.versions.rollback(back)
    assert at(world, "shop") == ["2.0"]
    world.versions.rollback()
    assert at(world, "shop") == ["1.0"]


def test_what_is_back_already_is_left(world: World) -> None:
    gen = world.versions.switch({"shop": "2.0", "stock": "2.0"}).gen
    world.versions.restore(gen - 1, only=["stock"])
    done = world.versions.rollback(gen)
    assert [step.object for step in done.steps] == ["route/shop"]
    assert at(world, "shop", "stock") == ["1.0", "1.0"]


def test_an_adoption_cannot_be_undone(world: World) -> None:
    with pytest.raises(FailedPrecondition) as no:
        world.versions.rollback(1)
    assert no.value.reason == "adoption"


def test_a_first_switch_that_is_undone_leaves_no_route(world: World) -> None:
    world.register("mail", "1.0")
    world.versions.switch({"mail": "1.0"})
    world.versions.rollback()
    assert "mail" not in world.versions.status().routes


def test_a_version_that_is_down_is_not_returned_to_unless_forced(world: World) -> None:
    world.versions.switch({"shop": "2.0"})
    world.stop("shop", "1.0")
    with pytest.raises(FailedPrecondition) as no:
        world.versions.rollback()
    assert no.value.reason == "no_live_instance"
    world.versions.rollback(force=True)
    assert at(world, "shop") == ["1.0"]
    assert world.versions.history(1)[0].forced


def test_a_generation_that_is_not_there_is_not_found(world: World) -> None:
    for gen in (0, 99):
        with pytest.raises(NotFound) as no:
            world.versions.rollback(gen)
        assert no.value.reason == "no_such_generation"
    with pytest.raises(NotFound):
        world.versions.restore(99)


def test_trimmed_history_is_said_to_be_compacted(
    store: Store, private: Path, configs: Configs
) -> None:
    world = World(store, private)
    world.register("shop", "1.0", "2.0")
    world.adopt("shop", "1.0")
    gen = world.versions.switch({"shop": "2.0"}).gen
    for number in range(1001):
        change = Change(object="config/busy", body=b"%d" % number)
        store.commit(Plan(changes=(change,), verb="set"), deadline=world.deadline())
    for act in (
        lambda: world.versions.rollback(gen),
        world.versions.rollback,
        lambda: world.versions.restore(gen),
        lambda: world.versions.diff(gen),
    ):
        with pytest.raises(NotFound, match="history compacted") as no:
            act()
        assert no.value.reason == "compacted"
    world.close()


# --- to a generation ---


def test_the_routes_of_a_generation_come_back_and_younger_ones_stay(
    world: World, configs: Configs
) -> None:
    gen = world.versions.switch({"shop": "2.0"}, configs={"shop/theme": "dark"}).gen
    world.versions.switch({"shop": "3.0", "stock": "3.0"}, configs={"shop/theme": "blue"})
    world.register("mail", "1.0")
    world.adopt("mail", "1.0")
    world.versions.restore(gen)
    assert at(world, "shop", "stock", "mail") == ["2.0", "1.0", "1.0"]
    assert configs["shop/theme"] == "blue"
    world.versions.restore(gen, configs=True)
    assert configs["shop/theme"] == "dark"
    done = world.versions.restore(gen, configs=True)
    assert (done.is_changed, done.gen) == (False, world.gen())


def test_only_those_services_are_restored(world: World, configs: Configs) -> None:
    configs.set("shop/theme", "light")
    configs.set("shopping/theme", "light")
    gen = world.gen()
    world.versions.switch(
        {"shop": "2.0", "stock": "2.0"},
        configs={"shop/theme": "dark", "shopping/theme": "dark"},
    )
    world.versions.restore(gen, only=["shop"], configs=True)
    assert at(world, "shop", "stock") == ["1.0", "2.0"]
    assert (configs["shop/theme"], configs["shopping/theme"]) == ("light", "dark")
    with pytest.raises(NotFound):
        world.versions.restore(gen, only=["shopp"])


def test_a_deleted_config_is_restored_and_deleted_again(world: World, configs: Configs) -> None:
    configs.set("shop/theme", "dark")
    configs.delete("shop/theme")
    gone = world.gen()
    configs.set("shop/theme", "light")
    world.versions.restore(gone - 1, configs=True)
    assert configs["shop/theme"] == "dark"
    world.versions.restore(gone, configs=True)
    assert "shop/theme" not in configs


# --- retirement ---


def test_a_routed_version_and_those_of_the_next_two_rollbacks_cannot_be_retired(
    world: World,
) -> None:
    for version in ("2.0", "3.0", "4.0"):
        world.versions.switch({"shop": version})
    reasons = {}
    for version in ("4.0", "3.0", "2.0"):
        with pytest.raises(FailedPrecondition) as no:
            quick(world).retire("shop", version)
        reasons[version] = no.value.reason
    assert reasons == {"4.0": "routed", "3.0": "still_needed", "2.0": "still_needed"}
    quick(world).retire("shop", "1.0")
    assert world.route("shop").retired == ("1.0",)
    assert quick(world).retire("shop", "1.0").is_changed is False
    with pytest.raises(FailedPrecondition) as no:
        quick(world).retire("shop", "9.0")
    assert no.value.reason == "version_missing"


def quick(world: World):  # type: ignore[no-untyped-def]
    """Versions whose calls are short, so that a retirement has little to wait for."""
    from fan import Versions

    return Versions(lambda: world.store, timeout=2.5)


def test_it_waits_as_long_as_a_call_may_take(world: World) -> None:
    world.register("shop", "1.0", methods=("slow",), timeout=3.0, live=False)
    for version in ("2.0", "3.0", "4.0"):
        world.versions.switch({"shop": version})
    told: list[float] = []
    quick(world).retire("shop", "1.0", tell=told.append)
    assert len(told) == 1
    assert 0 < told[0] <= 3.0


def test_the_next_switch_ends_a_retirement(world: World) -> None:
    for version in ("2.0", "3.0", "4.0"):
        world.versions.switch({"shop": version})
    quick(world).retire("shop", "1.0")
    world.versions.switch({"shop": "1.0"})
    assert world.route("shop").retired == ()


def test_a_version_that_answers_for_another_service_cannot_be_retired(world: World) -> None:
    for version in ("2.0", "3.0", "4.0"):
        world.versions.switch({"shop": version})
    world.versions.switch({"stock": "shop@1.0"})
    with pytest.raises(FailedPrecondition, match="takes the calls of stock"):
        quick(world).retire("shop", "1.0")


# --- looking back ---


def test_a_difference_is_told_both_ways(world: World, configs: Configs) -> None:
    first = world.gen()
    world.versions.switch({"shop": "2.0"}, configs={"a": 1})
    world.versions.switch({"shop": "3.0"})
    there = {s.object: (s.before, s.after) for s in world.versions.diff(first)}
    back = {s.object: (s.after, s.before) for s in world.versions.diff(world.gen(), first)}
    assert there == back
    assert there["config/a"] == (None, b"1")
    assert world.versions.diff(first, first) == []


def test_the_history_does_not_tell_what_configs_hold(world: World) -> None:
    world.versions.switch({"shop": "2.0"}, configs={"shop/password": "hidden"})
    assert b"hidden" not in msgspec.json.encode(world.versions.history())
