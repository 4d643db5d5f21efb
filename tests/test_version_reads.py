"""What a switch reads: what it touches and who needs that, among however many services."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from pathlib import Path

import pytest

from fan.errors import FailedPrecondition
from fan.stores.base import Record
from fan.stores.memory import MemoryStore
from tests.versions import World


class ReadStore(MemoryStore):
    """Remembers the names of the records that it gave out."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[str] = []

    def list(self, kind: str, prefix: str = "", *, deadline: float) -> builtins.list[Record]:
        found = super().list(kind, prefix, deadline=deadline)
        self.given += [f"{kind}/{record.name}" for record in found]
        return found


@pytest.fixture
def store() -> Iterator[ReadStore]:
    with ReadStore() as store:
        yield store


@pytest.fixture
def world(store: ReadStore, tmp_path: Path) -> Iterator[World]:
    world = World(store, tmp_path)
    yield world
    world.close()


def test_a_switch_reads_no_record_of_services_that_it_has_nothing_to_do_with(
    world: World, store: ReadStore
) -> None:
    for name in ("other", "another"):
        world.register(name, "1.0.0", depend={"hard": {"stranger": ""}})
        world.adopt(name, "1.0.0")
    world.register("stock", "1.0.0", "2.0.0")
    world.register("shop", "1.0.0", depend={"hard": {"stock": ">=1"}})
    for name in ("stock", "shop"):
        world.adopt(name, "1.0.0")
    store.given.clear()
    assert world.versions.switch({"stock": "2"}).is_changed
    assert {name.split("/")[1] for name in store.given} == {"stock", "shop"}


def test_who_needs_a_service_is_found_by_its_switch_whenever_it_was_registered(
    world: World,
) -> None:
    world.register("stock", "1.0.0", "2.0.0")
    world.adopt("stock", "1.0.0")
    world.versions.switch({"stock": "2"})
    world.register("shop", "1.0.0", depend={"hard": {"stock": ">=2"}})
    world.adopt("shop", "1.0.0")
    with pytest.raises(FailedPrecondition, match=r"shop 1\.0\.0 needs stock>=2") as caught:
        world.versions.rollback()
    assert caught.value.reason == "unmet_dependency"
