"""The rows of a registry: each function is a few statements inside the caller's transaction."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from fan.errors import DataLoss
from fan.stores import rules
from fan.stores.base import HEAD, RETENTION, Cut, Diff, Entry, Head, Revision

#: Sorts after every name that begins with the text before it.
_LAST = "\U0010ffff"


def head(db: sqlite3.Connection, ns: str) -> Head:
    """Where the namespace stands."""
    row = db.execute("SELECT epoch, gen, op, floor FROM head WHERE ns = ?", (ns,)).fetchone()
    return Head(*row) if row else Head("", 0)


def begin(db: sqlite3.Connection, ns: str) -> Head:
    """Where the namespace stands, which gets its epoch now if nobody wrote to it before."""
    found = head(db, ns)
    if found.epoch:
        return found
    epoch = os.urandom(16).hex()
    db.execute("INSERT INTO head VALUES (?, ?, 0, '', 0, ?)", (ns, epoch, RETENTION))
    return Head(epoch, 0)


def cut(
    db: sqlite3.Connection, ns: str, objects: Sequence[str], prefix: str | None, gen: int | None
) -> Cut:
    """The pinned revisions of the named objects and of those with the prefix."""
    now = head(db, ns)
    if gen is None or gen == now.gen:
        pins = _pins(db, ns, objects, prefix)
    else:
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
                (ns, prefix, prefix + _LAST),
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


class Ground:
    """What the rules may look at: the state inside the transaction that will change it."""

    def __init__(self, db: sqlite3.Connection, ns: str, at: Head) -> None:
        self.head = at
        self._db = db
        self._ns = ns

    def pin(self, object: str) -> int:
        return pin(self._db, self._ns, object)

    def find(self, object: str, rev: int) -> Revision | None:
        return revision(self._db, self._ns, object, rev)

    def mover(self, object: str) -> int:
        (gen,) = self._db.execute(
            "SELECT max(gen) FROM change WHERE ns = ? AND object = ?", (self._ns, object)
        ).fetchone()
        return gen or 0

    def names(self, prefix: str) -> Iterable[str]:
        rows = self._db.execute(
            "SELECT p.object FROM pin p JOIN revision r"
            " ON r.ns = p.ns AND r.object = p.object AND r.rev = p.rev"
            " WHERE p.ns = ? AND p.object >= ? AND p.object < ? AND r.body IS NOT NULL",
            (self._ns, prefix, prefix + _LAST),
        ).fetchall()
        return [name for (name,) in rows]


def known(db: sqlite3.Connection, ns: str, id: str) -> rules.Known | None:
    """What is remembered of an op."""
    row = db.execute(
        "SELECT gen, digest, is_changed, refusal FROM op WHERE ns = ? AND id = ?", (ns, id)
    ).fetchone()
    return rules.Known(row[0], row[1], bool(row[2]), row[3]) if row else None


def remember(db: sqlite3.Connection, ns: str, id: str, what: rules.Known) -> None:
    """Remember what an op came to."""
    db.execute(
        "INSERT INTO op VALUES (?, ?, ?, ?, ?, ?)",
        (ns, id, what.gen, what.digest, what.is_changed, what.refusal),
    )


def apply(
    db: sqlite3.Connection, ns: str, at: Head, entry: Entry, steps: Sequence[rules.Step]
) -> None:
    """Make the generation of `entry` after the head `at`, and trim what it pushes out."""
    for made in rules.revisions_of(entry, steps):
        db.execute(
            "INSERT INTO revision VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (ns, made.object, made.rev, made.body, made.parent, made.who, made.at, made.pinned_at),
        )
    for step in steps:
        if not step.after:
            db.execute("DELETE FROM pin WHERE ns = ? AND object = ?", (ns, step.object))
            continue
        db.execute("INSERT OR REPLACE INTO pin VALUES (?, ?, ?)", (ns, step.object, step.after))
        if not step.is_new:
            db.execute(
                "UPDATE revision SET pinned_at = ? WHERE ns = ? AND object = ? AND rev = ?",
                (entry.gen, ns, step.object, step.after),
            )
    what = (entry.gen, entry.op, entry.prev, entry.verb, entry.undo_of)
    why = (entry.who, entry.host, entry.reason, entry.at, entry.forced)
    db.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (ns, *what, *why))
    db.executemany(
        "INSERT INTO change VALUES (?, ?, ?, ?, ?, ?)",
        [(ns, entry.gen, i, d.object, d.before, d.after) for i, d in enumerate(entry.diff)],
    )
    (retention,) = db.execute("SELECT retention FROM head WHERE ns = ?", (ns,)).fetchone()
    floor = max(at.floor, entry.gen - retention)
    for gen in range(at.floor + 1, floor + 1):
        _trim(db, ns, gen)
    if floor > at.floor:
        db.execute("DELETE FROM op WHERE ns = ? AND gen < ?", (ns, floor))
    db.execute(
        "UPDATE head SET gen = ?, op = ?, floor = ? WHERE ns = ? AND gen = ?",
        (entry.gen, entry.op, floor, ns, at.gen),
    )


def _trim(db: sqlite3.Connection, ns: str, gen: int) -> None:
    """Forget a generation, and the revisions that it superseded, unless a later one pinned them."""
    db.execute(
        "DELETE FROM revision WHERE ns = ?1 AND pinned_at < ?2 AND (object, rev) IN"
        " (SELECT object, before FROM change WHERE ns = ?1 AND gen = ?2 AND before > 0)",
        (ns, gen),
    )
    db.execute("DELETE FROM log WHERE ns = ? AND gen = ?", (ns, gen))
    db.execute("DELETE FROM change WHERE ns = ? AND gen = ?", (ns, gen))


def touch(db: sqlite3.Connection, ns: str, kind: str) -> None:
    """Count a change of the records of a kind, for the watchers."""
    db.execute(
        "INSERT INTO tick VALUES (?, ?, 1) ON CONFLICT (ns, kind) DO UPDATE SET n = n + 1",
        (ns, kind),
    )


def forget_session(db: sqlite3.Connection, id: str) -> None:
    """Remove a session and its records."""
    kinds = db.execute("SELECT DISTINCT ns, kind FROM record WHERE session = ?", (id,)).fetchall()
    for ns, kind in kinds:
        touch(db, ns, kind)
    db.execute("DELETE FROM record WHERE session = ?", (id,))
    db.execute("DELETE FROM session WHERE id = ?", (id,))


def records(
    db: sqlite3.Connection, ns: str, kind: str, prefix: str
) -> list[tuple[str, bytes, str]]:
    """Name, body and session of the records of a kind, by name; the dead's are among them."""
    return db.execute(
        "SELECT name, body, session FROM record"
        " WHERE ns = ? AND kind = ? AND name >= ? AND name < ? ORDER BY name",
        (ns, kind, prefix, prefix + _LAST),
    ).fetchall()


def marks(db: sqlite3.Connection, ns: str) -> dict[str, object]:
    """What a watcher compares: one value for the head, and one for each kind of record."""
    found: dict[str, object] = dict(
        db.execute("SELECT kind, n FROM tick WHERE ns = ?", (ns,)).fetchall()
    )
    at = head(db, ns)
    found[HEAD] = (at.epoch, at.gen, at.op)
    return found


def sessions(db: sqlite3.Connection) -> list[str]:
    """The sessions of the file that hold records, in all namespaces."""
    return [id for (id,) in db.execute("SELECT DISTINCT session FROM record WHERE session > ''")]
