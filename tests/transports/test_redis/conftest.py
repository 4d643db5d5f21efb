"""Apps on one Redis: a server with a `Probe`, and a client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from redis import Redis

from fan.app import App
from fan.settings import Settings
from fan.stores.memory import MemoryStore
from fan.testing.contracts.probe import BOUND, Probe


class Apps:
    """The Apps of one test, on one registry in memory."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._store = MemoryStore("redis")
        self._stack = ExitStack()
        self._stack.callback(self._store.close)

    def app(self, *services: Probe, url: str = "", **settings: Any) -> App:
        """An App that knows the Redis."""
        usual: dict[str, Any] = {"redis_url": url or self.url, "queue": "redis"}
        app = App(*services, settings=Settings(**{**usual, **settings}), store=self._store)
        self._stack.callback(app.close)
        return app

    def serve(self, service: Probe, **settings: Any) -> App:
        """An App that serves."""
        app = self.app(service, **settings)
        app.start(("redis",))
        self._stack.callback(app.stop, BOUND)
        self._stack.callback(service.release)
        return app

    def close(self) -> None:
        """Stop and close everything, newest first."""
        self._stack.close()


@pytest.fixture
def url(redis_server: Any) -> str:
    """The run's Redis, empty."""
    with Redis.from_url(redis_server.url) as client:
        client.flushdb()
    found: str = redis_server.url
    return found


@pytest.fixture
def redis(url: str) -> Iterator[Redis]:
    """A bare client of it."""
    with Redis.from_url(url) as client:
        yield client


@pytest.fixture
def make_apps() -> Iterator[Callable[[str], Apps]]:
    """Makes Apps on a Redis of the test's own."""
    with ExitStack() as stack:

        def make(url: str) -> Apps:
            apps = Apps(url)
            stack.callback(apps.close)
            return apps

        yield make


@pytest.fixture
def apps(url: str, make_apps: Callable[[str], Apps]) -> Apps:
    """Apps on the run's Redis."""
    return make_apps(url)
