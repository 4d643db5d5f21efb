"""Switches, canaries and what refuses them, in the library."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fan import (
    Aborted,
    AlreadyExists,
    Confirm,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
    Unimplemented,
    Versions,
    Write,
)
from fan.stores.base import RETENTION, Change, Plan, Store
from tests.configs import PATIENCE, STORES, another, make_store
from tests.versions import World


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, private: Path) -> Iterator[Store]:
    with make_store(request, private) as store:
        yield store


@pytest.fixture
def world(store: Store, private: Path) -> Iterator[World]:
    world = World(store, private)
    world.register("shop", "1.0.0", "2.0.0", "2.1.0")
    world.adopt("shop", "1.0.0")
    yield world
    world.close()


def test_a_version_that_is_started_gets_no_call_until_a_switch(world: World) -> None:
    world.register("shop", "3.0.0")
    assert world.routed("shop") == {"1.0.0": 10_000}
    world.versions.switch({"shop": "3.0.0"})
    assert world.routed("shop") == {"3.0.0": 10_000}


def test_a_prefix_is_its_highest_live_match(world: World) -> None:
    world.register("shop", "2.2.0", live=False)
    world.versions.switch({"shop": "2"})
    assert world.routed("shop") == {"2.1.0": 10_000}


def test_versions_compare_as_versions(world: World) -> None:
    world.register("shop", "9.0", "10.0")
    world.versions.switch({"shop": ">=9"})
    assert world.routed("shop") == {"10.0": 10_000}


def test_services_and_configs_change_in_one_generation(world: World) -> None:
    world.register("stock", "1.0", "1.1")
    world.adopt("stock", "1.0")
    before = world.gen()
    done = world.versions.switch(
        {"shop": "2.0.0", "stock": "1.1"}, configs={"shop/theme": "dark"}
    )
    assert (done.gen, world.gen()) == (before + 1, before + 1)
    assert {step.object for step in done.steps} == {
        "route/shop", "route/stock", "config/shop/theme",
    }  # fmt: skip


def test_what_is_so_already_is_no_generation(world: World) -> None:
    world.versions.switch({"shop": "2.0.0"}, configs={"shop/theme": "dark"})
    before = world.gen()
    world.stop("shop", "2.0.0")
    done = world.versions.switch({"shop": "2.0.0"}, configs={"shop/theme": "dark"})
    assert (done.is_changed, done.gen, world.gen()) == (False, before, before)


def test_a_version_that_was_never_registered_is_told_with_what_there_is(world: World) -> None:
    with pytest.raises(FailedPrecondition, match=r"no version 7; there is 1\.0\.0, 2\.0\.0") as no:
        world.versions.switch({"shop": "7"})
    assert no.value.reason == "version_missing"
    assert world.routed("shop") == {"1.0.0": 10_000}


def test_a_version_without_a_live_instance_is_refused_unless_forced(world: World) -> None:
    world.register("shop", "3.0.0", live=False)
    with pytest.raises(FailedPrecondition) as no:
        world.versions.switch({"shop": "3.0.0"})
    assert no.value.reason == "no_live_instance"
    world.versions.switch({"shop": "3.0.0"}, force=True)
    world.versions.switch({"shop": "4.0.0"}, force=True)
    world.versions.switch({"shop": "2.0.0"}, force=True)
    assert [g.forced for g in world.versions.history(3)] == [False, True, True]


def test_so_many_instances_have_to_be_up(world: World) -> None:
    with pytest.raises(FailedPrecondition, match="1 live instances of the 2") as no:
        world.versions.switch({"shop": "2.0.0"}, min_healthy=2)
    assert no.value.reason == "too_few_instances"
    world.start("shop", "2.0.0", 2)
    world.versions.switch({"shop": "2.0.0"}, min_healthy=2)
    assert world.routed("shop") == {"2.0.0": 10_000}


def test_a_service_that_nobody_registered_is_not_found(world: World) -> None:
    with pytest.raises(NotFound, match="did you mean shop"):
        world.versions.switch({"shopp": "1"}, force=True)


def test_one_invalid_part_changes_nothing(world: World) -> None:
    before = world.gen()
    with pytest.raises(FailedPrecondition):
        world.versions.switch({"shop": "7"}, configs={"shop/theme": "dark"})
    with pytest.raises(InvalidArgument):
        world.versions.switch({"shop": "2.0.0"}, configs={"bad/": 1})
    assert world.gen() == before


def test_a_config_that_does_not_fit_its_schema_refuses_the_routes_too(world: World) -> None:
    from fan import Configs

    configs = Configs(lambda: world.store, live=False)
    configs.set("shop/size", 1, schema={"type": "integer"})
    with pytest.raises(InvalidArgument, match="shop/size"):
        world.versions.switch({"shop": "2.0.0"}, configs={"shop/size": "large"})
    assert world.routed("shop") == {"1.0.0": 10_000}


# --- weights ---


def test_a_canary_takes_its_share_of_the_others(world: World) -> None:
    world.versions.switch({"shop": "2.0.0"}, weights={"2": 500})
    assert world.routed("shop") == {"1.0.0": 9_500, "2.0.0": 500}
    world.versions.weight("shop", {"2.1.0": 1_000})
    assert world.routed("shop") == {"1.0.0": 8_550, "2.0.0": 450, "2.1.0": 1_000}


def test_weights_always_sum_to_the_whole(world: World) -> None:
    world.versions.switch({"shop": "2.0.0"}, weights={"2.0.0": 3_333})
    for weight in (1, 3_333, 9_999, 1_234):
        world.versions.weight("shop", {"2.1.0": weight})
        assert sum(world.routed("shop").values()) == 10_000
        assert world.routed("shop")["2.1.0"] == weight


def test_a_weight_of_zero_takes_a_version_out(world: World) -> None:
    world.versions.switch({"shop": "2.0.0"}, weights={"2.0.0": 500})
    world.versions.weight("shop", {"2.0.0": 0})
    assert world.routed("shop") == {"1.0.0": 10_000}


def test_weights_over_the_whole_are_refused(world: World) -> None:
    with pytest.raises(InvalidArgument, match="120 % together"):
        world.versions.weight("shop", {"2.0.0": 6_000, "2.1.0": 6_000})


def test_a_share_that_has_nowhere_to_go_is_refused(world: World) -> None:
    with pytest.raises(FailedPrecondition, match=r"95 % have nowhere to go") as no:
        world.versions.weight("shop", {"1.0.0": 500})
    assert no.value.reason == "no_other_version"


def test_a_canary_is_promoted_or_aborted(world: World) -> None:
    world.versions.switch({"shop": "2.0.0"}, weights={"2.0.0": 500})
    world.versions.abort("shop")
    assert world.routed("shop") == {"1.0.0": 10_000}
    world.versions.switch({"shop": "2.0.0"}, weights={"2.0.0": 500})
    world.versions.promote("shop")
    assert world.routed("shop") == {"2.0.0": 10_000}
    with pytest.raises(FailedPrecondition) as no:
        world.versions.promote("shop")
    assert no.value.reason == "no_canary"


def test_a_paused_route_refuses_switches_until_it_is_resumed(world: World) -> None:
    world.versions.switch({"shop": "2.0.0"}, weights={"2.0.0": 500})
    world.versions.pause("shop")
    for act in (
        lambda: world.versions.switch({"shop": "2.1.0"}),
        lambda: world.versions.weight("shop", {"2.0.0": 600}),
        lambda: world.versions.promote("shop"),
    ):
        with pytest.raises(FailedPrecondition, match="fan version resume shop") as no:
            act()
        assert no.value.reason == "paused"
    world.versions.abort("shop")
    world.versions.resume("shop")
    world.versions.switch({"shop": "2.1.0"})
    assert world.routed("shop") == {"2.1.0": 10_000}


# --- overrides, replacement, stickiness ---


def test_one_method_goes_elsewhere_and_back(world: World) -> None:
    world.versions.switch({"shop.hello": "2.0.0"}, weights={"2.0.0": 500})
    assert world.route("shop").overrides == {"hello": {"1.0.0": 9_500, "2.0.0": 500}}
    assert world.routed("shop") == {"1.0.0": 10_000}
    world.versions.switch({"shop.hello": ""})
    assert world.route("shop").overrides == {}


def test_a_method_that_a_version_does_not_have_is_refused(world: World) -> None:
    with pytest.raises(Unimplemented) as no:
        world.versions.switch({"shop.helo": "2.0.0"})
    assert no.value.reason == "unknown_method"


def test_the_longest_known_service_is_meant(world: World) -> None:
    world.register("shop.hello", "5.0")
    world.versions.switch({"shop.hello": "5"})
    assert world.routed("shop.hello") == {"5.0": 10_000}


def test_a_service_is_replaced_by_another_and_comes_back(world: World) -> None:
    world.register("store", "3.0")
    world.versions.switch({"shop": "store@3"})
    assert world.route("shop").replaced_by == "store@3.0"
    world.versions.switch({"shop": "1.0.0"})
    assert world.route("shop").replaced_by == ""
    with pytest.raises(NotFound):
        world.versions.switch({"shop": "stor@3"})
    with pytest.raises(FailedPrecondition) as no:
        world.versions.switch({"shop": "store@4"})
    assert no.value.reason == "version_missing"


def test_services_cannot_replace_each_other(world: World) -> None:
    world.register("store", "3.0")
    world.versions.switch({"shop": "store@3.0"})
    with pytest.raises(FailedPrecondition, match="store -> shop -> store") as no:
        world.versions.switch({"store": "shop@1.0.0"})
    assert no.value.reason == "replacement_loop"


def test_what_calls_stick_to_is_kept_in_the_route(world: World) -> None:
    world.versions.switch({"shop": "2.0.0"}, weights={"2.0.0": 500}, sticky="header:X-User")
    assert world.route("shop").sticky == "header:x-user"
    world.versions.weight("shop", {"2.0.0": 600})
    assert world.route("shop").sticky == "header:x-user"
    with pytest.raises(InvalidArgument):
        world.versions.switch({"shop": "2.0.0"}, sticky="cookie")


# --- dependencies ---


@pytest.fixture
def pair(world: World) -> World:
    """`cart` 1.0 suits `stock` 1 and 2.0 needs 2; both are at 1.0."""
    world.register("stock", "1.0", "2.0")
    world.register("cart", "1.0", depend={"hard": {"stock": ">=1,<2"}})
    world.register("cart", "2.0", depend={"hard": {"stock": ">=2"}, "soft": {"mail": ">=3"}})
    world.adopt("stock", "1.0")
    world.adopt("cart", "1.0")
    return world


def test_an_unmet_dependency_is_refused_and_both_sides_are_named(pair: World) -> None:
    with pytest.raises(FailedPrecondition, match=r"cart 2\.0 needs stock>=2 \(have 1\.0\)") as no:
        pair.versions.switch({"cart": "2.0"})
    assert no.value.reason == "unmet_dependency"
    assert str(no.value).endswith("(have 1.0): stock 2.0 would do")
    assert no.value.details["unmet"][0]["suiting"] == ["2.0"]
    with pytest.raises(FailedPrecondition, match=r"cart 1\.0 needs stock>=1,<2 \(have 2\.0\)"):
        pair.versions.switch({"stock": "2.0"})
    pair.register("cart", "4.0", depend={"hard": {"stock": ">=4"}})
    with pytest.raises(FailedPrecondition, match="no version of stock that is registered would do"):
        pair.versions.switch({"cart": "4.0"})


def test_a_rollback_that_a_dependency_forbids_names_what_it_takes_back_and_what_would_do(
    pair: World,
) -> None:
    taken = pair.versions.switch({"stock": "2.0", "cart": "2.0"}).gen
    pair.register("shelf", "1.0", depend={"hard": {"stock": ">=2"}})
    pair.adopt("shelf", "1.0")
    with pytest.raises(FailedPrecondition) as no:
        pair.versions.rollback()
    assert no.value.reason == "unmet_dependency"
    assert str(no.value) == (
        f"generation {taken} cannot be undone: shelf 1.0 needs stock>=2 (have 1.0):"
        " stock 2.0 would do"
    )


def test_a_share_of_calls_is_enough_to_be_refused(pair: World) -> None:
    words = r"\(have 1\.0, 2\.0\): not while stock 2\.0 takes calls"
    with pytest.raises(FailedPrecondition, match=words):
        pair.versions.switch({"stock": "2.0"}, weights={"2.0": 1})


def test_both_together_are_fine_and_a_soft_one_is_a_warning(pair: World) -> None:
    done = pair.versions.switch({"stock": "2.0", "cart": "2.0"})
    assert done.warnings == ("cart 2.0 needs mail>=3 (have no such service) (soft)",)


def test_dependencies_hold_for_rollbacks_too(pair: World) -> None:
    pair.versions.switch({"stock": "2.0", "cart": "2.0"})
    gen = pair.gen()
    pair.register("cart", "2.1", depend={"hard": {"stock": ">=2"}})
    pair.versions.switch({"cart": "2.1"})
    with pytest.raises(FailedPrecondition, match=r"cart 2\.1 needs stock>=2"):
        pair.versions.restore(gen - 1, only=["stock"])
    pair.versions.restore(gen - 1)
    assert (pair.routed("cart"), pair.routed("stock")) == ({"1.0": 10_000}, {"1.0": 10_000})


@pytest.mark.parametrize("turn", range(50))
def test_two_plans_that_are_valid_alone_never_end_invalid(turn: int, pair: World) -> None:
    pair.register("cart", "3.0", depend={"hard": {"stock": "<2"}})
    gate = threading.Barrier(2)
    lost: list[str] = []

    def race(services: dict[str, str]) -> None:
        with another(pair.store) as mine:
            gate.wait(PATIENCE)
            try:
                Versions(lambda: mine, timeout=PATIENCE).switch(services)
            except (FailedPrecondition, Aborted) as exc:
                lost.append(exc.reason)

    pair.register("cart", "0.9")  # suits anything
    pair.versions.switch({"cart": "0.9"})
    threads = [
        threading.Thread(target=race, args=({"stock": "2.0"},)),
        threading.Thread(target=race, args=({"cart": "3.0"},)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert lost == ["unmet_dependency"]
    assert (pair.routed("stock"), pair.routed("cart")) in (
        ({"2.0": 10_000}, {"0.9": 10_000}),
        ({"1.0": 10_000}, {"3.0": 10_000}),
    )


# --- safe retries ---


def test_the_same_op_is_applied_once(world: World) -> None:
    op: list[str] = []
    done = world.versions.switch({"shop": "2.0.0"}, how=Write(announce=op.append))
    assert op == [done.op]
    world.versions.switch({"shop": "2.1.0"})
    world.stop("shop", "2.0.0")
    for other in ("2.1.0", "1.0.0"):
        with pytest.raises(AlreadyExists):
            world.versions.switch({"shop": other}, how=Write(op=op[0]))
    again = world.versions.switch(
        {"shop": "2.0.0"}, how=Write(op=op[0]), confirm=Confirm(need=0.0)
    )
    assert (again.gen, again.was_applied) == (done.gen, True)
    assert world.routed("shop") == {"2.1.0": 10_000}


def test_a_retry_means_the_version_that_the_first_try_meant(world: World) -> None:
    done = world.versions.switch({"shop": "2"})
    world.register("shop", "2.2.0")
    world.stop("shop", "2.1.0")
    again = world.versions.switch({"shop": "2"}, how=Write(op=done.op))
    assert (again.gen, again.was_applied) == (done.gen, True)
    assert world.routed("shop") == {"2.1.0": 10_000}


def test_an_op_whose_history_is_trimmed_is_not_applied_again(world: World) -> None:
    done = world.versions.switch({"shop": "2.0.0"})
    for number in range(RETENTION + 1):
        change = Change(object="config/busy", body=b"%d" % number)
        world.store.commit(Plan(changes=(change,), verb="set"), deadline=world.deadline())
    world.versions.switch({"shop": "2.1.0"})
    before = world.gen()
    with pytest.raises(Unavailable) as no:
        world.versions.switch({"shop": "2.0.0"}, how=Write(op=done.op))
    assert (no.value.reason, no.value.executed) == ("outcome_unknown", "maybe")
    assert (world.gen(), world.routed("shop")) == (before, {"2.1.0": 10_000})


def test_a_dry_run_says_what_would_change_and_changes_nothing(world: World) -> None:
    before = world.gen()
    done = world.versions.switch({"shop": "2"}, how=Write(dry_run=True))
    assert [step.object for step in done.steps] == ["route/shop"]
    assert world.gen() == before


def test_a_change_since_it_was_planned_is_a_conflict(world: World) -> None:
    with pytest.raises(Aborted) as no:
        world.versions.switch({"shop": "2"}, how=Write(if_gen=world.gen() - 1))
    assert no.value.reason == "conflict"
