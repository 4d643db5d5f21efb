"""What the tests of configs and versions share: the stores."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from fan.stores.base import Store
from fan.stores.memory import MemoryStore
from fan.stores.sqlite import SqliteStore
from fan.stores.zookeeper import ZookeeperStore

#: A bound on hangs, in seconds; everything here takes a fraction of one.
PATIENCE = 30.0

#: Parameters of a fixture that `make_store` gives a store for.
STORES: list[Any] = [
    "memory",
    "sqlite",
    pytest.param("zookeeper", marks=pytest.mark.zookeeper),
]


def make_store(request: pytest.FixtureRequest, folder: Path) -> Store:
    """An empty registry of the kind that the fixture's parameter names."""
    if request.param == "memory":
        return MemoryStore()
    if request.param == "sqlite":
        return SqliteStore(str(folder / "registry.db"))
    url = request.getfixturevalue("zookeeper_server").url
    return ZookeeperStore(f"{url.removeprefix('zk:')}/{uuid.uuid4().hex}")


def another(store: Store) -> Store:
    """A second handle on the same registry, as another process has it."""
    if isinstance(store, MemoryStore):
        return store.another()
    if isinstance(store, SqliteStore):
        return SqliteStore(store.path, store.namespace)
    assert isinstance(store, ZookeeperStore)
    return ZookeeperStore(f"//{str(store.ensemble).removeprefix('zk://')}", store.namespace)
