"""The registry file after the clock was set back: what was written before seems to come from the
future, and nothing depends on it."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fan.sqlite import locks
from fan.stores.base import HEAD, new_op
from fan.stores.sqlite import SqliteStore
from fan.testing.contracts.store import Eventually, bodies, names, plan, repin, soon, write

#: What is written an hour before it was: the clock went back by that.
BACK = 3600.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(str(tmp_path / "registry.db")) as store:
        yield store


def set_clock_back(store: SqliteStore) -> None:
    """Have all that is there be of an hour later than now."""
    later = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(time.time() + BACK))
    with closing(sqlite3.connect(store.path, isolation_level=None)) as db:
        for table, column in (("log", "at"), ("revision", "at"), ("session", "started_at")):
            db.execute(f"UPDATE {table} SET {column} = ?", (later,))
    for path in (store.path, *Path(store.locks).iterdir()):
        then = time.time() + BACK
        os.utime(path, (then, then))


def test_generations_go_on_in_order(store: SqliteStore) -> None:
    for i in range(3):
        write(store, x=str(i))
    op = str(new_op(store.head(deadline=soon())))
    store.open_session(deadline=soon())
    set_clock_back(store)
    assert store.commit(plan(x="3"), op=op, deadline=soon()).gen == 4
    assert store.commit(plan(x="3"), op=op, deadline=soon()).was_applied is True
    assert store.commit(repin("x", 2), deadline=soon()).gen == 5
    entries = store.log(0, deadline=soon())
    assert [entry.gen for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry.prev for entry in entries[1:]] == [entry.op for entry in entries[:-1]]
    assert entries[2].at > entries[3].at
    assert [bodies(store, gen)["x"] for gen in (3, 4, 5)] == ["2", "3", "1"]


def test_watches_see_what_is_written_then(store: SqliteStore) -> None:
    write(store, x="1")
    other = store.open_session(deadline=soon())
    seen = Eventually(lambda: (store.head(deadline=soon()).gen, names(store, "inst")))
    store.watch(HEAD, seen)
    store.watch("inst", seen)
    assert seen.sees((1, []))
    set_clock_back(store)
    write(store, x="2")
    assert seen.sees((2, []))
    store.put("inst", "a", b"", session=other, deadline=soon())
    assert seen.sees((2, ["a"]))


def test_who_lives_is_alive_and_who_died_is_not(store: SqliteStore) -> None:
    mine, gone = store.open_session(deadline=soon()), store.open_session(deadline=soon())
    for name, session in (("mine", mine), ("gone", gone)):
        store.put("inst", name, b"", session=session, is_new=True, deadline=soon())
    set_clock_back(store)
    assert mine.is_alive
    assert names(store, "inst") == ["gone", "mine"]
    gone.close()
    assert names(store, "inst") == ["mine"]
    assert locks.is_alive(store.locks, mine.id)
    store.open_session(deadline=soon())
    assert names(store, "inst") == ["mine"]
