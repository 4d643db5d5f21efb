"""A service over a broker, as processes: what the tests of `push`, `listen` and `queue` share."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: The tests that are the same over every broker; the servers are started where they are needed.
BROKERS = [
    "database",
    pytest.param("redis", marks=pytest.mark.redis),
    pytest.param("amqp", marks=pytest.mark.rabbitmq),
]
#: Where nobody listens.
NOWHERE = {"FAN_REDIS_URL": "redis://127.0.0.1:1/0", "FAN_AMQP_URL": "amqp://127.0.0.1:1/"}

_SHOP = """
import os
import fan

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

class Shop(fan.Service):
    name = "{service}"
    version = "1.0.0"

    @fan.push
    def order(self, item: str, count: int = 1) -> None:
        '''Order something.'''
        if item == "poison":
            raise ValueError("it is poison")
        say("order", item, repr(count))

    @fan.subscribe("{topic}")
    def restock(self, item: str, count: int = 1) -> None:
        say("restock", item, repr(count))

    @fan.subscribe("{topic}", broadcast=True)
    def price(self, item: str, count: int = 1) -> None:
        say("price", item)
"""


class Shop:
    """A service with a push method and two for one topic, under names that no other test has."""

    def __init__(self, start_fan: Callable[..., Any], fan: Any, folder: Path, broker: str) -> None:
        unique = uuid.uuid4().hex[:8]
        self.broker = broker
        self.service, self.topic = f"shop-{unique}", f"stock-{unique}.changed"
        self._start, self._fan, self._folder = start_fan, fan, folder
        text = _SHOP.replace("{service}", self.service).replace("{topic}", self.topic)
        (folder / "shop.py").write_text(text)

    def serve(self, **vars: str) -> Any:
        """Its process, ready."""
        given = ("--transport", "ipc", "--transport", self.broker)
        process = self._start("serve", "shop", *given, cwd=self._folder, **vars)
        process.wait_for("ready")
        return process

    @staticmethod
    def said(process: Any, count: int) -> set[str]:
        """The first lines of its stdout, in no order."""
        while len(process.stdout) < count:
            process.wait_for("", "stdout")
        return set(process.stdout)

    def register(self) -> None:
        """Have it known, and down."""
        process = self.serve()
        process.send(2)
        assert process.wait() == 130

    def queue(self, name: str = "") -> dict[str, Any]:
        """The row of one of its queues."""
        ran = self._fan("queue", "list", name or self.service, "-t", self.broker, "--json")
        assert ran.exit == 0, ran
        found: dict[str, Any] = json.loads(ran.stdout)
        return found
