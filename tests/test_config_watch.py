"""Following: nothing twice, nothing left out, and a history that was rewritten is seen."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fan import Configs, InvalidArgument, OutOfRange, Unavailable
from fan.config_watch import ConfigWatch, Event
from fan.following import Cursor, advance, coalesce
from fan.stores.base import RETENTION, Change, Diff, Entry, Head, Plan, Store
from fan.stores.sqlite import SqliteStore
from tests.configs import PATIENCE, STORES, another, make_store, open_store


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, private: Path) -> Iterator[Store]:
    with make_store(request, private) as store:
        yield store


@pytest.fixture
def config(store: Store) -> Configs:
    return Configs(lambda: store, live=False)


def now(watch: ConfigWatch) -> list[Event]:
    """The events that there are until there are no more for now."""
    events: list[Event] = []
    for batch in watch.batches():
        if batch.is_idle:
            return events
        events += batch.events
    raise AssertionError("it ended")


def told(events: list[Event]) -> list[tuple[Any, ...]]:
    return [(e.event, e.key, e.value, e.rev, e.gen) for e in events]


def test_the_present_value_comes_first(config: Configs) -> None:
    config.set("k", "dark")
    with config.watch("k", "p/") as watch:
        events = now(watch)
    assert told(events) == [("snapshot", "k", "dark", 1, 1), ("snapshot", "p/", {}, 0, 1)]
    assert events[0].cursor == ""
    assert Cursor.parse(events[1].cursor).gen == 1


def test_a_key_that_is_not_there_has_a_snapshot_without_a_revision(config: Configs) -> None:
    with config.watch("k") as watch:
        assert told(now(watch)) == [("snapshot", "k", None, 0, 0)]


def test_then_every_change_in_order(config: Configs) -> None:
    with config.watch("k", "p/") as watch:
        now(watch)
        config.set("k", 1)
        config.set("other", 1)
        config.apply({"p/a": 2, "p/b": 3})
        config.delete("k")
        config.rollback("k")
        seen: list[Event] = []
        while len(seen) < 5:
            seen += now(watch)
    assert told(seen) == [
        ("set", "k", 1, 1, 1),
        ("set", "p/a", 2, 3, 3),
        ("set", "p/b", 3, 3, 3),
        ("delete", "k", None, 4, 4),
        ("set", "k", 1, 1, 5),
    ]
    assert [bool(event.cursor) for event in seen] == [True, False, True, True, True]


def test_with_a_cursor_comes_what_was_after_it(config: Configs) -> None:
    config.set("k", 1)
    with config.watch("k") as watch:
        cursor = now(watch)[-1].cursor
    config.set("k", 2)
    config.set("k", 3)
    with config.watch("k", since=cursor) as watch:
        assert told(now(watch)) == [("set", "k", 2, 2, 2), ("set", "k", 3, 3, 3)]
    epoch = cursor.partition(":")[0]
    with config.watch("k", since=f"{epoch}:2") as watch:
        assert told(now(watch)) == [("set", "k", 3, 3, 3)]
    with config.watch("k", since=f"{epoch}:3") as watch:
        assert now(watch) == []


def test_a_watch_that_began_before_the_first_write_misses_nothing(config: Configs) -> None:
    with config.watch("k") as watch:
        cursor = now(watch)[-1].cursor
        config.set("k", 1)
        assert next(iter(watch)).value == 1
    with config.watch("k", since=cursor) as watch:
        assert told(now(watch)) == [("set", "k", 1, 1, 1)]


def test_latest_takes_what_waits_together(config: Configs) -> None:
    with config.watch("p/") as watch:
        cursor = now(watch)[-1].cursor
    for number in range(10):
        config.set("p/a", number)
    config.set("p/b", 1)
    config.delete("p/b")
    with config.watch("p/", since=cursor, latest=True) as watch:
        assert [(e.event, e.key, e.value) for e in now(watch)] == [
            ("set", "p/a", 9),
            ("delete", "p/b", None),
        ]


def test_a_history_that_is_not_kept_any_more_is_said_so(config: Configs, store: Store) -> None:
    config.set("k", 0)
    with config.watch("k") as watch:
        cursor = now(watch)[-1].cursor
    for number in range(RETENTION + 2):
        plan = Plan(changes=(Change(object="config/k", body=str(number).encode()),), verb="set")
        store.commit(plan, deadline=time.monotonic() + PATIENCE)
    with config.watch("k", since=cursor) as watch:
        first, second = now(watch)
    assert (first.event, first.cursor) == ("compacted", "")
    assert (second.event, second.value) == ("snapshot", RETENTION + 1)
    with config.watch("k", since=cursor, strict=True) as watch:
        events = iter(watch)
        assert next(events).event == "compacted"
        with pytest.raises(OutOfRange) as caught:
            next(events)
        assert caught.value.reason == "compacted"


@pytest.mark.parametrize(
    "since", ["other:1:x", "other:1", "{epoch}:1:x", "{epoch}:9", "{epoch}:2:x"]
)
def test_a_cursor_of_another_history_is_a_reset(config: Configs, since: str) -> None:
    config.set("k", 1)
    config.set("k", 2)
    with config.watch("k") as watch:
        epoch = now(watch)[-1].cursor.partition(":")[0]
    with config.watch("k", since=since.format(epoch=epoch)) as watch:
        assert [event.event for event in now(watch)] == ["reset", "snapshot"]


def test_a_history_that_was_put_back_and_went_on_is_a_reset(private: Path) -> None:
    path = private / "r.db"
    with SqliteStore(str(path)) as store:
        Configs(lambda: store, live=False).set("k", 1)
    shutil.copy(path, private / "backup.db")
    with SqliteStore(str(path)) as store:
        config = Configs(lambda: store, live=False)
        config.set("k", 2)
        with config.watch("k") as watch:
            cursor = now(watch)[-1].cursor
    shutil.move(private / "backup.db", path)
    with SqliteStore(str(path)) as store:
        config = Configs(lambda: store, live=False)
        config.set("k", "another two")  # the same generation, by another op
        config.set("k", 3)
        with config.watch("k", since=cursor) as watch:
            assert told(now(watch)) == [("reset", "", None, 0, 3), ("snapshot", "k", 3, 3, 3)]


def test_a_registry_that_was_wiped_under_a_watch_is_a_reset(private: Path) -> None:
    path = private / "r.db"
    with SqliteStore(str(path)) as store:
        config = Configs(lambda: store, live=False)
        config.set("k", 1)
        with config.watch("k") as watch:
            now(watch)
            for file in private.glob("r.db*"):
                if file.is_file():
                    file.unlink()
            with SqliteStore(str(path)) as new:
                Configs(lambda: new, live=False).set("k", "new")
            seen: list[str] = []
            for event in watch:
                seen.append(event.event)
                if event.value == "new":
                    break
    assert "reset" in seen
    assert seen[-1] in ("snapshot", "set")


def test_watches_that_stop_and_resume_during_500_writes_miss_none(
    config: Configs, store: Store
) -> None:
    config.set("k", -1)
    with config.watch("k") as watch:
        cursor = now(watch)[-1].cursor

    def write() -> None:
        with another(store) as mine:
            writer = Configs(lambda: mine, live=False, timeout=PATIENCE)
            for number in range(500):
                writer.set("k", number)

    writer = threading.Thread(target=write)
    writer.start()
    seen: list[int] = []
    while not seen or seen[-1] < 499:
        with config.watch("k", since=cursor) as watch:
            for event in watch:
                seen.append(event.value)
                cursor = event.cursor
                if len(seen) % 7 == 0 or event.value == 499:
                    break
    writer.join(PATIENCE)
    assert seen == list(range(500))


class Failing:
    """A store that is away for a while."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.is_away = False

    def __getattr__(self, name: str) -> Any:
        if self.is_away and name in ("head", "read", "log", "revision"):
            raise Unavailable("away", reason="connect_failed")
        return getattr(self._store, name)


def test_a_lost_connection_is_an_event_and_nothing_is_missed(store: Store, config: Configs) -> None:
    failing = Failing(store)
    with Configs(lambda: failing, live=False).watch("k") as watch:  # type: ignore[arg-type,return-value]
        now(watch)
        events = iter(watch)
        failing.is_away = True
        config.set("k", 1)
        assert next(events).event == "disconnected"
        config.set("k", 2)
        failing.is_away = False
        assert next(events).event == "connected"
        assert [next(events).value, next(events).value] == [1, 2]


@pytest.mark.zookeeper
def test_a_watch_goes_on_without_a_gap_over_a_server_that_is_killed_and_started_again(
    new_zookeeper: Any,
) -> None:
    server = new_zookeeper()
    with open_store(server.url) as store, open_store(server.url) as other:
        writer = Configs(lambda: other, live=False, timeout=PATIENCE)
        writer.set("k", 0)
        with Configs(lambda: store, live=False).watch("k") as watch:
            now(watch)
            events = iter(watch)
            writer.set("k", 1)
            assert next(events).value == 1
            server.kill()
            assert next(events).event == "disconnected"
            server.start()
            for number in (2, 3, 4):
                writer.set("k", number)
            assert next(events).event == "connected"
            assert [next(events).value for _ in range(3)] == [2, 3, 4]


def test_a_registry_that_was_never_there_is_an_error(store: Store) -> None:
    failing = Failing(store)
    with Configs(lambda: failing, live=False).watch("k") as watch:  # type: ignore[arg-type,return-value]
        failing.is_away = True
        with pytest.raises(Unavailable):
            next(iter(watch))


def test_close_releases_a_thread_that_waits(config: Configs) -> None:
    watch = config.watch("k")
    ready = threading.Event()

    def wait() -> None:
        for _ in watch:
            ready.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert ready.wait(PATIENCE)
    watch.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()


@pytest.mark.parametrize("text", ["", "5", "a:", "a:b", "a:-1", "a:1:b:c", "a:1" + "0" * 30])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Cursor.parse(text)
    assert caught.value.reason == "bad_cursor"


@pytest.mark.parametrize("cursor", [Cursor("e", 5, "op"), Cursor("e", 5), Cursor("", 0)])
def test_a_cursor_is_read_as_it_is_written(cursor: Cursor) -> None:
    assert Cursor.parse(str(cursor)) == cursor


def test_a_gap_between_two_readings_is_told_from_a_rewritten_history() -> None:
    def entry(gen: int, op: str, prev: str) -> Entry:
        return Entry(gen=gen, op=op, prev=prev, verb="set", diff=())

    class Canned:
        def __init__(self, heads: list[Head], log: list[Entry]) -> None:
            self._heads, self._log = heads, log

        def head(self, *, deadline: float) -> Head:
            return self._heads.pop(0)

        def log(self, after: int, upto: int | None = None, *, deadline: float) -> list[Entry]:
            return self._log

    def gap(heads: list[Head], log: list[Entry]) -> str | None:
        store: Any = Canned(heads, log)
        return advance(store, Cursor("e", 1, "a"), deadline=0).gap

    three = Head("e", 3, "c")
    assert gap([three], [entry(2, "b", "a"), entry(3, "c", "b")]) is None
    assert gap([three], [entry(2, "b", "x"), entry(3, "c", "b")]) == "reset"
    assert gap([three], [entry(2, "b", "a"), entry(3, "c", "x")]) == "reset"
    assert gap([three, three], [entry(3, "c", "b")]) == "compacted"
    assert gap([three, Head("e", 2, "z")], [entry(2, "z", "a")]) == "reset"
    assert gap([three, Head("f", 9, "z")], []) == "reset"


def test_generations_taken_together_are_what_they_came_to() -> None:
    def entry(gen: int, *diff: Diff) -> Entry:
        return Entry(gen=gen, op=f"o{gen}", prev=f"o{gen - 1}", verb="set", diff=diff)

    merged = coalesce([
        entry(5, Diff("a", 1, 5), Diff("b", 2, 5)),
        entry(6, Diff("a", 5, 6)),
        entry(7, Diff("b", 5, 2)),
    ])  # fmt: skip
    assert (merged.gen, merged.op, merged.diff) == (7, "o7", (Diff("a", 1, 6),))
