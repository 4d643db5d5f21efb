"""Registries that tests wipe, kill, and put back to what they were."""

from __future__ import annotations

import os
import shutil
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fan.stores.base import Store
from fan.stores.zookeeper import ZookeeperStore
from tests.configs import open_store, wipe

#: A whole ZooKeeper of the test's own.
SERVER = pytest.param("server", marks=pytest.mark.zookeeper)


class Registry:
    """One by its URL; `server` where the test has all of it."""

    def __init__(self, url: str, folder: Path, server: Any = None) -> None:
        self.url = url
        self._backup = folder / "backup"
        self._server = server

    def open(self) -> Store:
        """A store on it."""
        if self._server is None:
            return open_store(self.url)
        # An old session is given up after twice this.
        return ZookeeperStore(self.url.removeprefix("zk:"), session_timeout=1.0)

    def wipe(self) -> None:
        """Remove all that it has, under those who use it."""
        if self._server is None:
            wipe(self.url)
            return
        self._server.kill()
        shutil.rmtree(self._data)
        self._server.start()

    def save(self) -> None:
        """Make the copy that `put_back` takes."""
        if self._server is None:
            with closing(sqlite3.connect(self._path)) as db, closing(
                sqlite3.connect(self._backup)
            ) as copy:
                db.backup(copy)
            return
        self._server.kill()
        shutil.copytree(self._data, self._backup)
        self._server.start()

    def put_back(self) -> None:
        """Make it what it was when it was saved, under those who use it."""
        if self._server is None:
            wipe(self.url)
            os.replace(self._backup, self._path)
            return
        self._server.kill()
        shutil.rmtree(self._data)
        shutil.move(self._backup, self._data)
        self._server.start()

    @property
    def _path(self) -> str:
        return self.url.partition(":")[2]

    @property
    def _data(self) -> Path:
        return Path(self._server.servers[0].folder) / "data"


def make_registry(request: pytest.FixtureRequest, folder: Path) -> Registry:
    """The registry that a fixture's parameter names: sqlite, zookeeper (a part of one that others
    use too), server."""
    if request.param == "sqlite":
        return Registry(f"sqlite:{folder / 'registry.db'}", folder)
    if request.param == "zookeeper":
        url = request.getfixturevalue("zookeeper_server").url
        return Registry(f"{url}/{uuid.uuid4().hex}", folder)
    server = request.getfixturevalue("new_zookeeper")()
    return Registry(server.url, folder, server)
