"""A queue database's queues for who looks after them, and its answers by idempotency key."""

from __future__ import annotations

import builtins
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from fan.codec import unpack_request
from fan.errors import FanError, NotFound
from fan.message import BYTES, Request
from fan.model import Letter, Queue, QueueName
from fan.sqlite import locks
from fan.sqlite.channel import Channel
from fan.transports.base import Ledger, Queues, queue_in_use

_WAITING, _DEAD = "state IN (0, 3)", "state = 2"

_LIST = f"""
SELECT name, sum({_WAITING}), sum(state = 1), sum({_DEAD}), min(iif({_WAITING}, at, NULL)),
    (SELECT count(*) FROM consumer WHERE consumer.queue = name)
FROM queue LEFT JOIN message ON message.queue = name
WHERE queue.session = '' OR name IN (SELECT value FROM json_each(?)) GROUP BY name ORDER BY name
"""


class DatabaseQueues(Queues):
    """The queues of one file. Those of single subscribers are left out, unless they are asked
    for."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def __repr__(self) -> str:
        return f"<DatabaseQueues {self._channel.path}>"

    def list(self, names: Sequence[QueueName], *, deadline: float) -> builtins.list[Queue]:
        import msgspec

        asked = msgspec.json.encode([str(name) for name in names]).decode()
        now = time.time()
        with self._channel.reading(deadline) as db:
            found = [] if db is None else db.execute(_LIST, (asked,)).fetchall()
        return [
            Queue(
                name=QueueName.parse(name),
                ready=ready or 0,
                in_flight=held or 0,
                dead=dead or 0,
                consumers=consumers,
                oldest=None if oldest is None else max(0.0, now - oldest),
            )
            for name, ready, held, dead, oldest, consumers in found
        ]

    def letters(
        self, name: QueueName, *, dead: bool = False, limit: int = 100, deadline: float
    ) -> builtins.list[Letter]:
        with self._channel.reading(deadline) as db:
            self._check(db, name)
            assert db is not None
            found = db.execute(
                "SELECT id, CAST(body AS BLOB), deliveries, at, error FROM message"
                f" WHERE queue = ? AND {_DEAD if dead else _WAITING} ORDER BY id LIMIT ?",
                (str(name), limit),
            ).fetchall()
        return [
            Letter(
                number=str(id),
                request=_request_of(name, body),
                deliveries=deliveries,
                at=_moment(at),
                error=error,
            )
            for id, body, deliveries, at, error in found
        ]

    def requeue(self, name: QueueName, numbers: Sequence[str] = (), *, deadline: float) -> int:
        """What had a ttl has it anew."""
        chosen = [(int(n),) for n in numbers if n.isdecimal() and len(n) < 19]
        change = (
            "UPDATE message SET state = 0, deliveries = 0, error = '', expires = ? + (expires - at)"
            f", at = ? WHERE queue = ? AND {_DEAD}"
        )
        now = time.time()
        with self._writing(name, deadline) as db:
            if not numbers:
                return db.execute(change, (now, now, str(name))).rowcount
            return sum(
                db.execute(f"{change} AND id = ?", (now, now, str(name), id)).rowcount
                for (id,) in chosen
            )

    def purge(self, name: QueueName, *, dead: bool = False, deadline: float) -> int:
        with self._writing(name, deadline) as db:
            return db.execute(
                f"DELETE FROM message WHERE queue = ? AND {_DEAD if dead else _WAITING}",
                (str(name),),
            ).rowcount

    def delete(self, name: QueueName, *, deadline: float) -> int:
        folder = f"{self._channel.path}.locks"
        with self._writing(name, deadline) as db:
            taking = "SELECT session FROM consumer WHERE queue = ?"
            who = [session for (session,) in db.execute(taking, (str(name),))]
            alive = sum(locks.is_alive(folder, session) for session in who)
            if alive:
                raise queue_in_use(name, self._channel.path, alive)
            db.execute("DELETE FROM consumer WHERE queue = ?", (str(name),))
            db.execute("DELETE FROM queue WHERE name = ?", (str(name),))
            return db.execute("DELETE FROM message WHERE queue = ?", (str(name),)).rowcount

    @contextmanager
    def _writing(self, name: QueueName, deadline: float) -> Iterator[sqlite3.Connection]:
        with self._channel.reading(deadline) as db:
            self._check(db, name)  # looking makes no file
        with self._channel.writing(deadline, is_durable=True) as db:
            yield db

    def _check(self, db: sqlite3.Connection | None, name: QueueName) -> None:
        known = db and db.execute("SELECT 1 FROM queue WHERE name = ?", (str(name),)).fetchone()
        if not known:
            raise NotFound(
                f"there is no queue {name} in {self._channel.path}",
                reason="no_such_queue",
                executed="no",
            )


class DatabaseLedger(Ledger):
    """The answers of one file."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def __repr__(self) -> str:
        return f"<DatabaseLedger {self._channel.path}>"

    def claim(self, key: str, holder: str, *, ttl: float, deadline: float) -> bytes | None:
        now = time.time()
        with self._channel.writing(deadline, is_durable=False) as db:
            db.execute("DELETE FROM answer WHERE until <= ?", (now,))
            row = db.execute("SELECT holder, body FROM answer WHERE key = ?", (key,)).fetchone()
            if row is not None and row[1] is not None:
                return bytes(row[1])
            if row is not None and row[0] != holder:
                return None
            db.execute(
                "INSERT OR REPLACE INTO answer VALUES (?, ?, NULL, ?)", (key, holder, now + ttl)
            )
            return b""

    def settle(
        self, key: str, holder: str, answer: bytes | None, *, ttl: float, deadline: float
    ) -> None:
        until = time.time() + ttl
        mine = "key = ? AND holder = ? AND body IS NULL"
        with self._channel.writing(deadline, is_durable=False) as db:
            if answer is None:
                db.execute(f"DELETE FROM answer WHERE {mine}", (key, holder))
            else:
                change = f"UPDATE answer SET body = ?, until = ? WHERE {mine}"
                db.execute(change, (answer, until, key, holder))


def _request_of(name: QueueName, body: bytes) -> Request:
    """The message, or what comes closest to one that nobody can read."""
    try:
        return unpack_request(body)
    except FanError:
        return Request(
            id="",
            service=name.service,
            method="",
            timeout_ms=0,
            kind="event" if name.topic else "push",
            topic=name.topic,
            content_type=BYTES,
            body=bytes(body),
        )


def _moment(at: float) -> str:
    told = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return told.replace("+00:00", "Z")
