"""What the tests of an App's life share: services, a registry that can be out of reach, and the
Apps of one test."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fan import App, Service, Settings, rpc
from fan.errors import Unavailable
from fan.stores.memory import MemoryStore

#: Seconds after which a test that waits has failed.
HANG = 30.0


class Greeter(Service):
    name = "greeter"
    version = "1.0.0"

    @rpc
    def hello(self, name: str = "World") -> str:
        return f"Hello {name}"


class Flaky(MemoryStore):
    """A store that can be told to be out of reach."""

    is_down = False

    def put(self, *args: Any, **kwargs: Any) -> None:
        self._check()
        super().put(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> bool:
        self._check()
        return super().delete(*args, **kwargs)

    def _check(self) -> None:
        if self.is_down:
            raise Unavailable("the registry is down", reason="connect_failed")


class World:
    """A registry in memory and the Apps of one test, closed at its end."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.store = MemoryStore()
        usual = {"registry": "memory:", "runtime_dir": str(folder / "run")}
        self.settings = Settings(**{**usual, **settings})
        self._stack = contextlib.ExitStack()
        self._stack.callback(self.store.close)

    def app(self, *services: Service, store: MemoryStore | None = None) -> App:
        own = store or self.store.another()
        self._stack.callback(own.close)
        return self._stack.enter_context(App(*services, settings=self.settings, store=own))

    def routes(self, service: str = "greeter") -> dict[str, int]:
        route = self.app().discovery.service(service).route
        return dict(route.versions) if route else {}

    def states(self, service: str) -> list[str]:
        return [i.state for i in self.app().discovery.service(service).instances]

    def sockets(self) -> list[str]:
        folder = self.settings.runtime_dir
        return os.listdir(folder) if os.path.isdir(folder) else []

    def close(self) -> None:
        self._stack.close()


def until(is_so: Callable[[], bool], app: App) -> None:
    """Wait for what the registry is about to say; its watch tells when to look again."""
    changed = threading.Event()
    end = app.discovery.watch(changed.set)
    try:
        while not is_so():
            assert changed.wait(HANG)
            changed.clear()
    finally:
        end()
