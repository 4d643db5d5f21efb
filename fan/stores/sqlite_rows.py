"""The rows of a registry as they are read: each function is a few statements inside the caller's
transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from fan.errors import DataLoss
from fan.stores.base import HEAD, Cut, Diff, Entry, Head, Revision

#: Sorts after every name that begins with the text before it.
LAST = "\U0010ffff"


def head(db: sqlite3.Connection, ns: str) -> Head:
    """Where the namespace stands."""
    row = db.execute("SELECT epoch, gen, op, floor FROM head WHERE ns = ?", (ns,)).fetchone()
    return Head(*row) if row else Head("", 0)


def cut(
    db: sqlite3.Connection, ns: str, objects: Sequence[str], prefix: str | None, gen: int | None
) -> Cut:
    """The pinned revisions of the named objects and of those with the prefix."""
    now = head(db, ns)
    if gen is None or gen == now.gen:
        pins = _pins(db, ns, objects, prefix)
    else:
        from fan.stores import rules  # for writers, but for this: a start would feel them

        rules.check_generation(gen, now)
        pins = _pins_at(db, ns, objects, prefix, gen)
        (op,) = db.execute(
            "SELECT prev FROM log WHERE ns = ? AND gen = ?", (ns, gen + 1)
        ).fetchone()
        now = Head(now.epoch, gen, op, now.floor)
    found: dict[str, Revision] = {}
    deleted: dict[str, int] = {}
    for name in sorted(pins):
        pinned = revision(db, ns, name, pins[name])
        if pinned is None:
            raise DataLoss(f"revision {pins[name]} of {name} is pinned and missing", executed="no")
        if pinned.body is None:
            deleted[name] = pinned.rev
        else:
            found[name] = pinned
    return Cut(now, found, deleted)


def _pins(
    db: sqlite3.Connection, ns: str, objects: Sequence[str], prefix: str | None
) -> dict[str, int]:
    pins: dict[str, int] = {}
    if prefix is not None:
        pins.update(
            db.execute(
                "SELECT object, rev FROM pin WHERE ns = ? AND object >= ? AND object < ?",
                (ns, prefix, prefix + LAST),
            ).fetchall()
        )
    for name in objects:
        if rev := pin(db, ns, name):
            pins[name] = rev
    return pins


def _pins_at(
    db: sqlite3.Connection, ns: str, objects: Sequence[str], prefix: str | None, gen: int
) -> dict[str, int]:
    """Today's pins, with what came after `gen` undone: the earliest later change of an object knows
    what was pinned before it."""
    pins = _pins(db, ns, objects, prefix)
    earliest = db.execute(
        # With min() SQLite takes the other columns from the row of the minimum.
        "SELECT object, before, min(gen) FROM change WHERE ns = ? AND gen > ? GROUP BY object",
        (ns, gen),
    ).fetchall()
    wanted = set(objects)
    for name, before, _ in earliest:
        if name in wanted or (prefix is not None and name.startswith(prefix)):
            pins[name] = before
    return {name: rev for name, rev in pins.items() if rev}


def pin(db: sqlite3.Connection, ns: str, object: str) -> int:
    """The pinned revision of an object, 0 for none."""
    row = db.execute("SELECT rev FROM pin WHERE ns = ? AND object = ?", (ns, object)).fetchone()
    return int(row[0]) if row else 0


def revision(db: sqlite3.Connection, ns: str, object: str, rev: int) -> Revision | None:
    """One revision, or None."""
    row = db.execute(
        "SELECT object, rev, body, parent, who, at, pinned_at FROM revision"
        " WHERE ns = ? AND object = ? AND rev = ?",
        (ns, object, rev),
    ).fetchone()
    return Revision(*row) if row else None


def log(db: sqlite3.Connection, ns: str, after: int, upto: int | None) -> list[Entry]:
    """The entries after one generation up to another, oldest first."""
    last = head(db, ns).gen if upto is None else upto
    span = (ns, after, last)
    diffs: dict[int, list[Diff]] = {}
    for gen, *diff in db.execute(
        "SELECT gen, object, before, after FROM change"
        " WHERE ns = ? AND gen > ? AND gen <= ? ORDER BY gen, seq",
        span,
    ):
        diffs.setdefault(gen, []).append(Diff(*diff))
    columns = "gen, op, prev, verb, undo_of, who, host, reason, at, forced"
    names = columns.split(", ")
    entries = []
    for row in db.execute(
        f"SELECT {columns} FROM log WHERE ns = ? AND gen > ? AND gen <= ? ORDER BY gen", span
    ):
        fields: dict[str, Any] = dict(zip(names, row, strict=True))
        fields["forced"] = bool(fields["forced"])
        entries.append(Entry(diff=tuple(diffs.get(row[0], ())), **fields))
    return entries


def records(
    db: sqlite3.Connection, ns: str, kind: str, prefix: str
) -> list[tuple[str, bytes, str]]:
    """Name, body and session of the records of a kind, by name; the dead's are among them."""
    return db.execute(
        "SELECT name, body, session FROM record"
        " WHERE ns = ? AND kind = ? AND name >= ? AND name < ? ORDER BY name",
        (ns, kind, prefix, prefix + LAST),
    ).fetchall()


def marks(db: sqlite3.Connection, ns: str) -> dict[str, object]:
    """What a watcher compares: one value for the head, and one for each kind of record."""
    found: dict[str, object] = dict(
        db.execute("SELECT kind, n FROM tick WHERE ns = ?", (ns,)).fetchall()
    )
    at = head(db, ns)
    found[HEAD] = (at.epoch, at.gen, at.op)
    return found


def is_session(db: sqlite3.Connection, id: str) -> bool:
    """Whether the file knows a session."""
    return db.execute("SELECT 1 FROM session WHERE id = ?", (id,)).fetchone() is not None


def sessions(db: sqlite3.Connection) -> list[str]:
    """The sessions of the file that hold records, in all namespaces."""
    return [id for (id,) in db.execute("SELECT DISTINCT session FROM record WHERE session > ''")]
