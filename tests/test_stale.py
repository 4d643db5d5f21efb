"""What was read last answers while the registry is down: marked, bounded, and never for a write."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fan.discovery import Discovery
from fan.errors import DeadlineExceeded, NotFound, Unavailable
from fan.model import Instance, Interface
from fan.stale import DOWN, StaleStore
from fan.stores.base import Change, Cut, Head, Plan
from fan.stores.memory import MemoryStore
from fan.testing.fakes import FakeClock

FOREVER = float("inf")


class Broken(MemoryStore):
    """A store that can be made to fail."""

    def __init__(self) -> None:
        super().__init__("stale")
        self.failure: Exception | None = None
        self.asked = 0

    def _check(self) -> None:
        self.asked += 1
        if self.failure is not None:
            raise self.failure

    def read(self, *args: Any, **how: Any) -> Cut:
        self._check()
        return super().read(*args, **how)

    def list(self, *args: Any, **how: Any) -> Any:
        self._check()
        return super().list(*args, **how)

    def head(self, **how: Any) -> Head:
        self._check()
        return super().head(**how)


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.real = Broken()
        self.ages: list[float] = []

    def store(self, name: str = "default", max_stale: float = 3600.0) -> StaleStore:
        """As another process has it."""
        return StaleStore(self.real, name, str(self.folder), max_stale, self.ages.append)

    def discovery(self, **how: Any) -> Discovery:
        store = self.store(**how)
        return Discovery(lambda: store, live=False)

    def fail(self, failure: Exception | None = None) -> None:
        self.real.failure = failure or Unavailable("the registry is down")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "cache" / "fan")
    discovery = Discovery(lambda: made.real, live=False)
    one = Instance(id="a-1", service="a", version="1.0.0")
    # Nobody holds it, and so nobody reads but who is tested.
    discovery.register(one, Interface(service="a", version="1.0.0"), is_lasting=True)
    discovery.adopt("a", "1.0.0")
    yield made
    made.real.failure = None
    discovery.close()
    made.real.close()


def soon() -> float:
    return time.monotonic() + 10


def test_a_reading_is_answered_from_the_last_one_and_says_its_age(world: World) -> None:
    fresh = world.discovery().service("a")
    assert world.ages == []
    world.fail()
    stale = world.discovery().service("a")
    assert stale == fresh
    assert world.ages
    assert all(0 <= age < 60 for age in world.ages)


def test_a_list_that_was_read_answers_for_one_service_of_it(world: World) -> None:
    world.store().list("inst", deadline=soon())
    world.fail()
    assert [r.name for r in world.store().list("inst", "a/", deadline=soon())] == ["a/a-1"]
    assert world.store().list("inst", "b/", deadline=soon()) == []


def test_an_empty_answer_is_believed(world: World) -> None:
    world.store().list("inst", deadline=soon())
    world.real.delete("inst", "a/a-1", deadline=soon())
    assert world.store().list("inst", deadline=soon()) == []
    world.fail()
    assert world.store().list("inst", deadline=soon()) == []


def test_what_was_never_read_fails_as_it_would(world: World) -> None:
    world.discovery().service("a")
    world.fail()
    with pytest.raises(Unavailable, match="is down"):
        world.store().read(["route/b"], deadline=soon())
    with pytest.raises(Unavailable):
        world.discovery(name="another").service("a")


def test_what_is_too_old_fails_as_it_would(world: World) -> None:
    world.discovery().service("a")
    for path in world.folder.rglob("*.json"):
        os.utime(path, (time.time() - 100, time.time() - 100))
    world.fail()
    assert world.discovery(max_stale=200).service("a").is_known
    assert all(age > 99 for age in world.ages)
    with pytest.raises(Unavailable):
        world.discovery(max_stale=50).service("a")


def test_a_reading_that_is_as_it_was_is_young_again_and_not_written_again(world: World) -> None:
    world.discovery().service("a")
    files = {path: path.stat().st_ino for path in world.folder.rglob("*.json")}
    for path in files:
        os.utime(path, (time.time() - 100, time.time() - 100))
    world.discovery().service("a")
    assert {path: path.stat().st_ino for path in world.folder.rglob("*.json")} == files
    world.fail()
    assert world.discovery(max_stale=50).service("a").is_known


def test_a_longer_list_that_says_the_same_makes_no_older_one_young(world: World) -> None:
    world.store().list("inst", "a/", deadline=soon())
    (shorter,) = world.folder.rglob("*.json")
    os.utime(shorter, (time.time() - 100, time.time() - 100))
    world.real.delete("inst", "a/a-1", deadline=soon())
    world.store().list("inst", deadline=soon())
    store = world.store(max_stale=50)
    assert store.list("inst", "a/", deadline=soon()) == []
    world.fail()
    assert world.store(max_stale=50).list("inst", "a/", deadline=soon()) == []


def test_an_answer_that_is_no_outage_is_passed_on(world: World) -> None:
    world.discovery().service("a")
    world.fail(NotFound("it says so itself"))
    with pytest.raises(NotFound, match="itself"):
        world.discovery().service("a")


def test_the_registry_is_asked_once_and_not_for_the_whole_time(world: World) -> None:
    world.discovery().service("a")
    world.fail(DeadlineExceeded("too slow"))
    asked = world.real.asked
    world.discovery().service("a")
    assert world.real.asked == asked + 1


def test_a_registry_that_is_back_is_asked_again(world: World) -> None:
    clock = FakeClock()
    store = StaleStore(
        world.real, "default", str(world.folder), 3600.0, world.ages.append, clock=clock
    )
    assert len(store.list("inst", deadline=soon())) == 1
    world.fail()
    store.list("inst", deadline=soon())
    assert "old" in repr(store)
    world.real.failure = None
    world.real.delete("inst", "a/a-1", deadline=soon())
    asked = world.real.asked
    assert len(store.list("inst", deadline=soon())) == 1  # it may be down still
    assert world.real.asked == asked
    clock.advance(DOWN)
    assert store.list("inst", deadline=soon()) == []
    assert "fresh" in repr(store)
    assert len(world.ages) == 2


def test_writes_and_history_take_nothing_old(world: World) -> None:
    store = world.store()
    store.head(deadline=soon())
    world.fail()
    with pytest.raises(Unavailable):
        store.head(deadline=soon())
    plan = Plan(changes=(Change(object="route/a", body=b"{}"),), verb="x")
    world.real.failure = None
    assert store.commit(plan, deadline=soon()).is_changed


def test_what_is_damaged_is_not_believed(world: World) -> None:
    world.discovery().service("a")
    for path in world.folder.rglob("*.json"):
        path.write_bytes(path.read_bytes()[:-9])
    world.fail()
    with pytest.raises(Unavailable):
        world.discovery().service("a")


def test_others_cannot_read_what_is_kept_and_no_name_tells_of_the_registry(world: World) -> None:
    world.discovery(name="default zk://user:password@h").service("a")
    paths = [world.folder, *world.folder.rglob("*")]
    assert all(path.stat().st_mode & 0o077 == 0 for path in paths if path != world.folder)
    assert not any("password" in str(path) for path in paths)


def test_a_folder_that_cannot_be_written_is_no_failure(world: World) -> None:
    world.folder.parent.mkdir()
    world.folder.write_text("a file")
    assert world.discovery().service("a").is_known


def kept(folder: Path) -> list[Path]:
    """The readings that are kept, of all registries."""
    return sorted(folder.glob("*/*"))


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_what_is_too_old_goes_when_something_new_is_kept(world: World) -> None:
    store = world.store()
    store.list("inst", deadline=FOREVER)
    (old,) = kept(world.folder)
    age(old, 2 * 86_400)
    left_behind = old.with_name(f"{old.name}.4711")  # by somebody who was killed
    left_behind.touch()
    age(left_behind, 2 * 86_400)
    foreign = old.with_name("notes.txt")
    foreign.touch()
    age(foreign, 2 * 86_400)
    store.list("iface", deadline=FOREVER)
    assert not old.exists()
    assert not left_behind.exists()
    assert foreign.exists()
    assert len(kept(world.folder)) == 2


def test_what_somebody_still_wants_is_kept_however_old(world: World) -> None:
    store = world.store(max_stale=10 * 86_400)
    store.list("inst", deadline=FOREVER)
    (old,) = kept(world.folder)
    age(old, 2 * 86_400)
    store.list("iface", deadline=FOREVER)
    assert old.exists()


def test_the_readings_of_one_registry_are_bounded_in_number(world: World) -> None:
    store = world.store()
    store.list("inst", "service0/", deadline=FOREVER)
    age(kept(world.folder)[0], 60)
    for number in range(1, 520):
        store.list("inst", f"service{number}/", deadline=FOREVER)
    assert len(kept(world.folder)) == 500
    world.fail()
    assert store.list("inst", "service519/", deadline=FOREVER) == []
    with pytest.raises(Unavailable):
        store.list("inst", "service0/", deadline=FOREVER)


def test_a_registry_that_nobody_reads_any_more_is_forgotten_with_the_next_one(
    world: World,
) -> None:
    world.store("old").list("inst", deadline=FOREVER)
    (old,) = kept(world.folder)
    age(old, 2 * 86_400)
    world.store("new").list("inst", deadline=FOREVER)
    assert not old.parent.exists()
    assert len(kept(world.folder)) == 1
