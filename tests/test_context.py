"""The context of a call, as its handler uses it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fan
from fan import App, Service, Settings, rpc


class Back(Service):
    name, version = "back", "1.0.0"

    @rpc
    def baggage(self) -> dict[str, str]:
        return dict(fan.current().baggage)


class Front(Service):
    name, version = "front", "1.0.0"

    @rpc
    def relay(self, transport: str) -> list[dict[str, str]]:
        """What is seen below before a pair is added, and after that."""
        client = self.app.using(transport=transport)
        before = client.call("back.baggage")
        fan.current().set_baggage("tenant", "t1")
        return [before, client.call("back.baggage")]


@pytest.fixture
def app(private: Path) -> Iterator[App]:
    settings = Settings(registry="memory:", runtime_dir=str(private / "run"))
    with App(Front(), Back(), settings=settings) as app:
        app.start()
        yield app


@pytest.mark.parametrize("transport", ["local", "ipc"])
def test_baggage_that_a_handler_adds_goes_with_its_later_calls_and_no_further(
    app: App, transport: str
) -> None:
    client: Any = app.using(transport=transport, baggage={"user": "ada"})
    for _ in range(2):  # the next call begins with its own
        before, after = client.call("front.relay", transport)
        assert before == {"user": "ada"}
        assert after == {"user": "ada", "tenant": "t1"}
