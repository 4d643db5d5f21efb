"""The registry in a file keeps the contract, also across processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fan.sqlite import locks
from fan.stores.base import Hint, Session, Store
from fan.stores.sqlite import SqliteStore
from fan.testing.contracts.store import OpenStore, StoreContract, handles


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[OpenStore]:
        path = str(tmp_path / "registry.db")
        with handles(lambda namespace: SqliteStore(path, namespace)) as open_store:
            yield open_store

    def lose(self, store: Store, session: Session) -> None:
        assert isinstance(store, SqliteStore)
        Path(locks.path_of(store.locks, session.id)).unlink()


def test_a_callback_that_does_not_come_back_does_not_hold_up_the_close(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "registry.db"))
    entered, go, left = threading.Event(), threading.Event(), threading.Event()

    def call_back(hint: Hint) -> None:
        entered.set()
        go.wait(30.0)
        left.set()

    store.watch("inst", call_back)
    assert entered.wait(10.0)
    store.close()
    assert not left.is_set()
    go.set()
    assert left.wait(10.0)
