"""The registry on ZooKeeper keeps the contract, on a real server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.retry import KazooRetry

from fan.stores.base import Session, Store
from fan.stores.zookeeper import ZookeeperStore
from fan.stores.zookeeper_session import ZookeeperSession
from fan.testing.contracts.store import OpenStore, StoreContract, handles

pytestmark = pytest.mark.zookeeper


def end_session(session: Session) -> None:
    """Have the servers end a session: a second client that has its id and password closes it."""
    assert isinstance(session, ZookeeperSession)
    channel = session.channel
    client = channel._client
    assert client is not None
    other = KazooClient(
        channel.ensemble.hosts,
        client_id=client.client_id,
        connection_retry=KazooRetry(max_tries=20, delay=0.05),
    )
    other.start(15)
    other.stop()
    other.close()


class TestZookeeperStore(StoreContract):
    @pytest.fixture
    def store(self, zookeeper_server: Any) -> Iterator[OpenStore]:
        url = f"{zookeeper_server.url}/{uuid.uuid4().hex}"
        place = url.removeprefix("zk:")
        with handles(lambda namespace: ZookeeperStore(place, namespace)) as open_store:
            yield open_store

    def lose(self, store: Store, session: Session) -> None:
        end_session(session)
