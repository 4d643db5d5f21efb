"""What the tests of configs share: the stores, and an App on each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fan.stores.base import Store
from fan.stores.memory import MemoryStore
from fan.stores.sqlite import SqliteStore

#: A bound on hangs, in seconds; everything here takes a fraction of one.
PATIENCE = 30.0

STORES: dict[str, Callable[[Path], Store]] = {
    "memory": lambda folder: MemoryStore(),
    "sqlite": lambda folder: SqliteStore(str(folder / "registry.db")),
}


def another(store: Store) -> Store:
    """A second handle on the same registry, as another process has it."""
    if isinstance(store, MemoryStore):
        return store.another()
    assert isinstance(store, SqliteStore)
    return SqliteStore(store.path, store.namespace)
