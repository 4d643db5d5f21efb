"""What the tests of configs and versions share: the stores."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NotEmptyError

from fan.errors import FanError
from fan.sqlite import locks
from fan.stores.base import Session, Store
from fan.stores.memory import MemoryStore
from fan.stores.sqlite import SqliteStore
from fan.stores.zookeeper import ZookeeperStore
from fan.stores.zookeeper_session import ZookeeperSession

#: A bound on hangs, in seconds; everything here takes a fraction of one.
PATIENCE = 30.0

ZOOKEEPER = pytest.param("zookeeper", marks=pytest.mark.zookeeper)

#: Parameters of a fixture that `make_store` gives a store for.
STORES: list[Any] = ["memory", "sqlite", ZOOKEEPER]

#: Marks a test of processes, whose registry is `registry_url`, to run on both that these can share.
BOTH = pytest.mark.parametrize("registry_url", ["sqlite", ZOOKEEPER], indirect=True)


def make_store(request: pytest.FixtureRequest, folder: Path) -> Store:
    """An empty registry of the kind that the fixture's parameter names."""
    if request.param == "memory":
        return MemoryStore()
    if request.param == "sqlite":
        return SqliteStore(str(folder / "registry.db"))
    url = request.getfixturevalue("zookeeper_server").url
    return open_store(f"{url}/{uuid.uuid4().hex}")


def open_store(url: str) -> Store:
    """The store of a registry, which is named as in `FAN_REGISTRY`."""
    scheme, _, rest = url.partition(":")
    return SqliteStore(rest) if scheme == "sqlite" else ZookeeperStore(rest)


def wipe(url: str) -> None:
    """Remove all that a registry holds, under those who use it."""
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite":
        for suffix in ("", "-wal", "-shm"):
            Path(rest + suffix).unlink(missing_ok=True)
        return
    client = KazooClient(rest.removeprefix("//").partition("/")[0])
    client.start(PATIENCE)
    while True:
        try:
            client.delete(f"/{rest.removeprefix('//').partition('/')[2]}", recursive=True)
            break
        except NotEmptyError:
            continue  # somebody wrote meanwhile
    client.stop()
    client.close()


def lose(store: Store, session: Session) -> None:
    """Have the registry give a session up, as one does that has not heard of its owner."""
    if isinstance(store, MemoryStore):
        store.expire(session)
    elif isinstance(store, SqliteStore):
        Path(locks.path_of(store.locks, session.id)).unlink()
    else:
        assert isinstance(session, ZookeeperSession)
        channel = session.channel
        assert channel._client is not None
        # Who knows a session's id and password may close it.
        client = KazooClient(channel.ensemble.hosts, client_id=channel._client.client_id)
        client.start(PATIENCE)
        client.stop()
        client.close()


def eventually(ask: Callable[[], bool]) -> bool:
    """Whether it becomes true in the end; an error in between is no answer."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(FanError):
            if ask():
                return True
        time.sleep(0.02)
    return False


def another(store: Store) -> Store:
    """A second handle on the same registry, as another process has it."""
    if isinstance(store, MemoryStore):
        return store.another()
    if isinstance(store, SqliteStore):
        return SqliteStore(store.path, store.namespace)
    assert isinstance(store, ZookeeperStore)
    return ZookeeperStore(f"//{str(store.ensemble).removeprefix('zk://')}", store.namespace)
