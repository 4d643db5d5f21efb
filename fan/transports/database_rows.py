"""The rows of a queue database: each function is a few statements inside the caller's
transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

# The states stand in the statements as numbers (0 ready, 1 held, 2 dead, 3 delayed): SQLite takes a
# partial index only for a literal.

#: What is told of a message that was not worth delivering any more.
EXPIRED = "deadline_exceeded/expired_in_queue: nobody took it within its ttl"
#: What is told of one whose last worker did not come back.
LOST = "unavailable/connection_lost: the worker that had it ended, or showed no sign of life"


class Claimed(NamedTuple):
    """One delivery: (session, claim) tells it from every other of the same message."""

    id: int
    session: str
    claim: int
    #: Deliveries before this one.
    attempt: int
    body: bytes


class Outcome(NamedTuple):
    """What is to become of a delivered message: `done`, `dead` (with an error), `later` (due after
    a delay), or `back`, as if it had not been delivered."""

    claimed: Claimed
    what: str
    error: str = ""
    delay: float = 0.0


class Outlook(NamedTuple):
    """What there is to do: whether something is ready, and when the next thing comes due."""

    is_ready: bool
    due: float | None
    lease: float | None


def declare(db: sqlite3.Connection, name: str, topic: str = "") -> None:
    """See to it that a queue exists which lasts."""
    db.execute("INSERT OR IGNORE INTO queue VALUES (?, ?, '')", (name, topic))


def enrol(db: sqlite3.Connection, session: str, id: int, queue: str) -> None:
    """Note that somebody takes from a queue."""
    db.execute("INSERT OR REPLACE INTO consumer VALUES (?, ?, ?)", (session, id, queue))


def own(db: sqlite3.Connection, session: str, name: str, topic: str) -> None:
    """See to it that a queue exists which is gone when the session is."""
    db.execute("INSERT OR REPLACE INTO queue VALUES (?, ?, ?)", (name, topic, session))


def leave(db: sqlite3.Connection, session: str, id: int) -> None:
    """Note that it does so no more; a queue that was its alone goes with it."""
    row = db.execute(
        "SELECT queue FROM consumer WHERE session = ? AND id = ?", (session, id)
    ).fetchone()
    if row is not None:
        db.execute("DELETE FROM consumer WHERE session = ? AND id = ?", (session, id))
        _drop(db, "name = ? AND session = ?", (row[0], session))


def accept(
    db: sqlite3.Connection, queue: str, body: bytes, now: float, expires: float | None
) -> None:
    """Put a push into its queue."""
    declare(db, queue)
    db.execute(
        "INSERT INTO message (queue, at, expires, body) VALUES (?, ?, ?, ?)",
        (queue, now, expires, body),
    )


def tell(db: sqlite3.Connection, topic: str, body: bytes, now: float, expires: float | None) -> int:
    """Put an event into every queue of its topic, and say how many there are."""
    return db.execute(
        "INSERT INTO message (queue, at, expires, body)"
        " SELECT name, ?, ?, ? FROM queue WHERE topic <> '' AND topic = ?",
        (now, expires, body, topic),
    ).rowcount


def outlook(db: sqlite3.Connection, queues: Iterable[str], session: str) -> Outlook:
    """What there is to do for who takes from `queues`."""
    is_ready = any(
        db.execute("SELECT 1 FROM message WHERE state = 0 AND queue = ? LIMIT 1", (queue,))
        .fetchone()
        for queue in queues
    )  # fmt: skip
    (due,) = db.execute("SELECT min(due) FROM message WHERE state = 3").fetchone()
    (lease,) = db.execute(
        "SELECT min(lease) FROM message WHERE state = 1 AND session <> ?", (session,)
    ).fetchone()
    return Outlook(is_ready, due, lease)


def promote(db: sqlite3.Connection, now: float) -> None:
    """What was delayed and is due is ready."""
    db.execute("UPDATE message SET state = 0, due = 0 WHERE state = 3 AND due <= ?", (now,))


def claim(
    db: sqlite3.Connection, queue: str, n: int, session: str, first: int, lease: float, now: float
) -> list[Claimed]:
    """At most `n` messages that are ready, the oldest first; their claims are counted from `first`.
    Those that are not worth it any more are dead letters."""
    found: list[Claimed] = []
    while len(found) < n:
        rows = db.execute(
            "SELECT id, deliveries, expires, CAST(body AS BLOB) FROM message"
            " WHERE state = 0 AND queue = ? ORDER BY id LIMIT ?",
            (queue, n - len(found)),
        ).fetchall()
        for id, deliveries, expires, body in rows:
            if expires is not None and expires <= now:
                db.execute("UPDATE message SET state = 2, error = ? WHERE id = ?", (EXPIRED, id))
                continue
            one = Claimed(id, session, first + len(found), deliveries, body)
            db.execute(
                "UPDATE message SET state = 1, deliveries = deliveries + 1, session = ?,"
                " claim = ?, lease = ? WHERE id = ?",
                (session, one.claim, lease, id),
            )
            found.append(one)
        if not rows:
            break
    return found


def settle(db: sqlite3.Connection, outcomes: Iterable[Outcome], now: float) -> None:
    """Carry out what became of deliveries. One that is another's by now stays as it is."""
    for claimed, what, error, delay in outcomes:
        mine = (claimed.id, claimed.session, claimed.claim)
        if what == "done":
            db.execute("DELETE FROM message WHERE id = ? AND session = ? AND claim = ?", mine)
        elif what == "dead":
            _free(db, "state = 2, error = ?", (error,), mine)
        else:
            less = "" if what == "later" else ", deliveries = deliveries - 1"
            _free(db, f"state = 3, due = ?{less}", (now + delay,), mine)


def _free(
    db: sqlite3.Connection, change: str, values: tuple[object, ...], mine: tuple[object, ...]
) -> None:
    db.execute(
        f"UPDATE message SET {change}, session = '', claim = 0, lease = 0"
        " WHERE id = ? AND session = ? AND claim = ?",
        (*values, *mine),
    )


def renew(db: sqlite3.Connection, held: Iterable[Claimed], lease: float) -> None:
    """Keep what is in hand for longer."""
    db.executemany(
        "UPDATE message SET lease = ? WHERE id = ? AND session = ? AND claim = ?",
        [(lease, one.id, one.session, one.claim) for one in held],
    )


def release(db: sqlite3.Connection, limit: int, *, session: str = "", now: float = 0.0) -> None:
    """Take back what a session holds, or whose lease is over: it is ready at once, or, after
    `limit` deliveries, a dead letter."""
    db.execute(
        "UPDATE message SET state = iif(deliveries >= ?, 2, 0),"
        " error = iif(deliveries >= ?, ?, ''), session = '', claim = 0, lease = 0"
        f" WHERE state = 1 AND {'session = ?' if session else 'lease <= ?'}",
        (limit, limit, LOST, session or now),
    )


def sessions(db: sqlite3.Connection) -> set[str]:
    """Everybody who holds a message or takes from a queue."""
    rows = db.execute(
        "SELECT session FROM message WHERE state = 1 UNION SELECT session FROM consumer"
        " UNION SELECT session FROM queue WHERE session <> ''"
    )
    return {session for (session,) in rows}


def bury(db: sqlite3.Connection, session: str, limit: int) -> None:
    """Undo all that a dead session was: what it held goes to others."""
    release(db, limit, session=session)
    db.execute("DELETE FROM consumer WHERE session = ?", (session,))
    _drop(db, "session = ?", (session,))


def _drop(db: sqlite3.Connection, which: str, values: tuple[object, ...]) -> None:
    """Remove queues that belong to a session, with what is in them."""
    rows = db.execute(f"SELECT name FROM queue WHERE session <> '' AND {which}", values)
    for name in rows.fetchall():
        db.execute("DELETE FROM message WHERE queue = ?", name)
        db.execute("DELETE FROM queue WHERE name = ?", name)
