"""The registry on ZooKeeper keeps the contract, on a real server."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fan.stores.base import Session, Store
from fan.stores.zookeeper import ZookeeperStore
from fan.testing.contracts.store import OpenStore, StoreContract, handles

pytestmark = pytest.mark.zookeeper

#: Has the servers end a session: the fixture `end_session`.
Ends = Callable[[Session], None]


class TestZookeeperStore(StoreContract):
    @pytest.fixture
    def store(self, zookeeper_server: Any, end_session: Ends) -> Iterator[OpenStore]:
        self.end_session = end_session
        url = f"{zookeeper_server.url}/{uuid.uuid4().hex}"
        place = url.removeprefix("zk:")
        with handles(lambda namespace: ZookeeperStore(place, namespace)) as open_store:
            yield open_store

    def lose(self, store: Store, session: Session) -> None:
        self.end_session(session)
