"""What a message does when it is delivered anew: it gets further than the last time."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fan import App, Service, current, push, rpc
from fan.settings import Settings

#: Seconds within which what has to happen has happened.
BOUND = 30.0


class Bank(Service):
    """Answers calls: `charge` fails at first, `open` runs once."""

    name = "bank"
    version = "1.0.0"

    def __init__(self) -> None:
        self.ran: list[str] = []

    @rpc
    def open(self, account: str) -> int:
        self.ran.append("open")
        return len(self.ran)

    @rpc
    def charge(self, account: str) -> int:
        self.ran.append("charge")
        if self.ran.count("charge") == 1:
            raise RuntimeError("the vault is closed")
        return len(self.ran)

    @rpc(dedupe="shared")
    def open_shared(self, account: str) -> int:
        return self.open(account)

    @rpc(dedupe="shared")
    def charge_shared(self, account: str) -> int:
        return self.charge(account)


class Till(Service):
    """Is pushed to, and calls the bank."""

    name = "till"
    version = "1.0.0"

    def __init__(self) -> None:
        self.done: queue.SimpleQueue[Any] = queue.SimpleQueue()

    @push
    def pay(self, suffix: str) -> None:
        opened = self.app.call(f"bank.open{suffix}", "Ada")
        charged = self.app.call(f"bank.charge{suffix}", "Ada")
        context = current()
        assert context is not None
        self.done.put((context.attempt, opened, charged))


@pytest.fixture
def make_app(private: Path) -> Iterator[Callable[..., App]]:
    apps: list[App] = []

    def make(*services: Service) -> App:
        settings = Settings(
            registry=f"sqlite:{private}/registry.db",
            database_url=f"sqlite:{private}/queue.db",
            runtime_dir=f"{private}/run",
            queue="database",
        )
        app = App(*services, settings=settings)
        apps.append(app)
        if services:
            app.start(["ipc"])
        return app

    yield make
    for app in reversed(apps):
        app.close()


@pytest.mark.parametrize("suffix", ["", "_shared"])
def test_a_call_that_failed_runs_again_and_one_that_went_well_does_not(
    make_app: Callable[..., App], suffix: str
) -> None:
    bank, till = Bank(), Till()
    make_app(bank)
    make_app(till)
    make_app().push("till.pay", suffix)
    assert till.done.get(timeout=BOUND) == (1, 1, 3)
    assert bank.ran == ["open", "charge", "charge"]
