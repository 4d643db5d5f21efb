"""Queues as users meet them: `fan serve` and `fan push`, with nothing configured."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fan
from fan import load_settings
from fan.testing.contracts.store import soon
from tests.transports.test_database.conftest import until

pytestmark = pytest.mark.usefixtures("registry_url")

SHOP = """
import os
import threading
import fan

class Shop(fan.Service):
    name = "shop"
    version = "1.0.0"

    @fan.push
    def order(self, item: str, hold: bool = False) -> None:
        attempt = fan.current().attempt
        os.write(1, f"order {item} {attempt}\\n".encode())
        if hold and not attempt:
            threading.Event().wait()

    @fan.subscribe("stock.changed")
    def restock(self, item: str) -> None:
        os.write(1, f"restock {item}\\n".encode())
"""


@pytest.fixture
def folder(private: Path) -> Path:
    """A folder with `shop.py` in it."""
    path = private / "project"
    path.mkdir()
    (path / "shop.py").write_text(SHOP)
    return path


@pytest.fixture
def serve(start_fan: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    """Starts `fan serve shop`, without waiting for it."""
    return lambda **vars: start_fan("serve", "shop.py:Shop", cwd=folder, **vars)


def push(start_fan: Callable[..., Any], *args: str) -> None:
    assert start_fan("push", *args).wait() == 0


def test_a_service_that_takes_pushes_works_without_a_broker(
    start_fan: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    server = serve()
    assert "database:" in server.wait_for("serving")
    server.wait_for("ready")
    push(start_fan, "shop.order", "item=apple")
    assert server.wait_for("order", "stdout") == "order apple 0"
    with fan.App(settings=load_settings().settings) as app:
        app.publish("stock.changed", "pear")
    assert server.wait_for("restock", "stdout") == "restock pear"
    server.send(signal.SIGTERM)
    assert server.wait() == 143


def test_a_push_in_the_hand_of_a_killed_server_comes_after_its_restart(
    start_fan: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    server = serve(FAN_LEASE="1h")  # its end is seen, not waited for
    server.wait_for("ready")
    push(start_fan, "shop.order", "item=apple", "hold=true")
    assert server.wait_for("order", "stdout") == "order apple 0"
    server.send(signal.SIGKILL)
    server.wait()
    push(start_fan, "shop.order", "item=pear", "-t", "database")
    again = serve(FAN_LEASE="1h")
    assert {again.wait_for("order", "stdout") for _ in range(2)} == {
        "order apple 1",
        "order pear 0",
    }
    again.send(signal.SIGTERM)
    assert again.wait() == 143


def test_servers_that_are_killed_under_load_lose_nothing(serve: Callable[..., Any]) -> None:
    """Each message is handled at least once, and delivered no more often than the settings say."""
    vars = {"FAN_WORKERS": "4", "FAN_DELIVERIES": "10", "FAN_LEASE": "5s"}
    servers = [serve(**vars) for _ in range(2)]
    for server in servers:
        server.wait_for("ready")
    with fan.App(settings=load_settings().settings) as app:
        sender = app.using(transport="database", timeout=20.0)
        killed = []
        for n in range(400):
            sender.push("shop.order", item=str(n))
            if n % 100 == 50:  # one dies, another comes
                servers.append(serve(**vars))
                doomed = servers.pop(0)
                doomed.send(signal.SIGKILL)
                killed.append(doomed)
        transport = app.transport("database")
        queues = transport.queues(transport.home())

        def shop() -> fan.Queue:
            return next(q for q in queues.list([], deadline=soon()) if str(q.name) == "shop")

        until(lambda: not shop().ready and not shop().in_flight)
        assert shop().dead == 0
    for server in servers:
        server.send(signal.SIGTERM)
    seen: Counter[str] = Counter()
    for server in (*servers, *killed):
        server.wait()
        seen.update(line.split()[1] for line in server.stdout if line.startswith("order"))
    assert seen.keys() == {str(n) for n in range(400)}
    assert max(seen.values()) <= 10
