"""The registry in a file keeps the contract, also across processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fan.sqlite import locks
from fan.stores.base import Session, Store
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
