"""A registry whose history was rewritten behind everybody's back: a copy was put back, and went on
another way. It is seen, and nothing is taken for what it is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fan import Configs, Confirm, Versions
from fan.model import Applied
from fan.stores.base import Store
from tests.configs import PATIENCE, eventually
from tests.registries import SERVER, Registry, make_registry
from tests.versions import World


@pytest.fixture(params=["sqlite", SERVER])
def registry(request: pytest.FixtureRequest, private: Path) -> Registry:
    return make_registry(request, private)


@pytest.fixture
def store(registry: Registry) -> Iterator[Store]:
    with registry.open() as store:
        yield store


@pytest.fixture
def world(store: Store, private: Path) -> Iterator[World]:
    world = World(store, private)
    world.register("shop", "1.0", "2.0")
    world.adopt("shop", "1.0")
    yield world
    world.close()


def go_on(store: Store) -> int:
    """Another generation with the number of the one that is gone."""
    config = Configs(lambda: store, live=False, timeout=PATIENCE)
    assert eventually(lambda: config.set("shop/theme", "dark").gen > 0)
    return store.head(deadline=World.deadline()).gen


def test_a_watch_is_told_of_a_reset_and_of_all_that_there_is(
    registry: Registry, store: Store, world: World
) -> None:
    registry.save()
    with registry.open() as other, Configs(lambda: other, live=False).watch("shop/") as watch:
        writer = Configs(lambda: store, live=False, timeout=PATIENCE)
        events = iter(watch)
        assert next(events).event == "snapshot"
        lost = writer.set("shop/theme", "light")
        assert next(events).value == "light"
        registry.put_back()
        assert go_on(store) == lost.gen
        seen: list[str] = []
        for event in events:
            seen.append(event.event)
            if "dark" in str(event.value):
                break
    assert "reset" in seen


@pytest.mark.parametrize("moment", ["on_commit", "on_progress"])
def test_a_switch_that_is_gone_is_never_confirmed(
    moment: str, registry: Registry, store: Store, world: World
) -> None:
    """The copy is put back between the commit and its confirmation, or while that is waited for;
    then everybody has the other generation of that number in force."""
    registry.save()
    world.consumer("shop")
    done: list[int] = []

    def put_back(*what: Any) -> None:
        if done:
            return
        registry.put_back()
        done.append(go_on(store))
        head = store.head(deadline=world.deadline())
        world.consumer("shop", applied=Applied(head.epoch, head.gen, head.op), id="another")

    with registry.open() as mine:
        confirm = Confirm(timeout=PATIENCE, **{moment: put_back})  # type: ignore[arg-type]
        versions = Versions(lambda: mine, timeout=PATIENCE)
        # Forced: a server that was away for long has ended the sessions of the instances.
        switched = versions.switch({"shop": "2.0"}, force=True, confirm=confirm)
    assert done == [switched.gen]
    assert switched.failure is not None
    assert (switched.failure.reason, switched.failure.executed) == ("reset", "maybe")
    assert switched.confirmed.applied == ()
