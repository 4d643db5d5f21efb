"""What the registry in a file remembers of operations that made no generation."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fan.config import Configs
from fan.errors import Aborted
from fan.stores.base import Change, Plan, new_op
from fan.stores.sqlite import SqliteStore
from fan.testing.contracts.store_harness import bodies, plan, soon, write


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "registry.db")


@pytest.fixture
def store(path: str) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path)) as opened:
        yield opened


def count(path: str) -> int:
    """The operations that the file remembers."""
    with closing(sqlite3.connect(path)) as db:
        (found,) = db.execute("SELECT count(*) FROM op").fetchone()
    return int(found)


def keep(path: str, generations: int) -> None:
    """Let the registry keep so many."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE head SET retention = ?", (generations,))


def test_what_changes_nothing_is_remembered_only_for_who_named_the_operation(
    path: str, store: SqliteStore
) -> None:
    write(store, x="1")
    for _ in range(3):
        assert not store.commit(plan(x="1"), deadline=soon()).is_changed
    assert count(path) == 1


def test_a_config_that_is_set_to_what_it_is_leaves_nothing_behind(
    path: str, store: SqliteStore
) -> None:
    config = Configs(lambda: store)
    config.set("shop/limit", 3)
    for _ in range(3):
        assert not config.set("shop/limit", 3).is_changed
    assert count(path) == 1


@pytest.mark.parametrize("is_refused", [False, True])
def test_operations_that_make_no_generation_are_forgotten_by_number_the_oldest_first(
    path: str, store: SqliteStore, is_refused: bool
) -> None:
    write(store, x="1")
    keep(path, 3)
    moved = Plan(changes=(Change(object="config/x", body=b"2", from_rev=9),), verb="set")
    asked = moved if is_refused else plan(x="1")

    def send(op: str) -> bool:
        try:
            return store.commit(asked, op=op, deadline=soon()).was_applied
        except Aborted as exc:
            return exc.details["gen"] == 1 and bodies(store) != {"x": "1"}

    ops = [str(new_op(store.head(deadline=soon()))) for _ in range(8)]
    for op in ops:
        send(op)
    assert count(path) == 1 + 3
    write(store, x="2")
    assert all(send(op) for op in ops[-3:])  # as it was, though it would be otherwise now
    assert bodies(store) == {"x": "2"}
