"""The registry in memory keeps the contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fan.stores.base import Session, Store
from fan.stores.memory import MemoryStore
from fan.testing.contracts.store import OpenStore, StoreContract, bodies, handles, write


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> Iterator[OpenStore]:
        root = MemoryStore()
        with handles(root.another) as open_store:
            yield open_store

    def lose(self, store: Store, session: Session) -> None:
        assert isinstance(store, MemoryStore)
        store.expire(session)


def test_two_memory_stores_share_nothing() -> None:
    with MemoryStore() as one, MemoryStore() as two:
        write(one, x="1")
        assert bodies(two) == {}


def test_the_repr_tells_where_it_stands() -> None:
    with MemoryStore("team") as store:
        write(store, x="1")
        assert repr(store) == "<MemoryStore team at generation 1>"
