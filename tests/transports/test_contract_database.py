"""The contract of queues, held against a database."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import ClassVar

from fan.app import App
from fan.model import QueueName
from fan.testing.contracts import QueueContract


class TestDatabase(QueueContract):
    scheme: ClassVar[str] = "database"
    gates: ClassVar[dict[str, str]] = {
        "test_a_call_in_the_hand_of_a_killed_worker_is_never_run_twice": (
            "a database queue carries no calls"
        ),
        "test_a_call_that_expired_in_a_queue_never_runs_and_its_caller_is_told": (
            "a database queue carries no calls"
        ),
    }

    def wait_noticed(self, client: App, left: int = 0) -> None:
        """A worker takes from the file what it handles: a dead one takes nothing."""

    def spoil(self, world: object, client: App, name: QueueName) -> None:
        path = client.transport("database").home().url.removeprefix("database:")
        with closing(sqlite3.connect(path, timeout=10.0)) as db, db:
            for garbage in (b"\xc1garbage", b"", "text"):
                db.execute(
                    "INSERT INTO message (queue, at, body) VALUES (?, ?, ?)",
                    (str(name), time.time(), garbage),
                )
