"""The rows of a registry as they are written: each function is a few statements inside the caller's
transaction. What may be written is decided by `fan.stores.rules`."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence

from fan.errors import FanError
from fan.sqlite import locks
from fan.sqlite.channel import Channel
from fan.stores import rules
from fan.stores.base import RETENTION, Committed, Entry, Head, Op, Plan, Revision, Session, new_op
from fan.stores.sqlite_rows import LAST, head, is_session, pin, revision
from fan.stores.sqlite_schema import OUTCOMES


def commit(channel: Channel, ns: str, plan: Plan, op: str, deadline: float) -> Committed:
    """`Store.commit`, in a transaction of its own."""
    rules.check_plan(plan)
    mine, digest = Op.parse(op) if op else None, plan.digest()
    refusal: FanError | None = None
    with channel.writing(deadline, is_durable=True) as db:
        at = begin(db, ns)
        mine = mine or new_op(at)
        before = rules.recall(mine, digest, known(db, ns, mine.id), at)
        if before is not None:
            return Committed(before.gen, str(mine), before.is_changed, True)
        try:
            steps = rules.decide(plan, Ground(db, ns, at))
        except FanError as error:
            if not op or not rules.is_final(error):
                raise
            # Remembered, so that nobody who sends it again succeeds where this was told no.
            refusal, steps = error, []
            what = rules.Known(at.gen, digest, False, rules.keep(error))
        else:
            what = rules.Known(at.gen + bool(steps), digest, bool(steps))
            if steps:
                apply(db, ns, at, rules.entry_of(plan, mine, at, steps), steps)
        # One that made nothing, and that nobody can send again by its name, leaves no trace.
        if op or what.is_changed:
            remember(db, ns, mine.id, what)
    if refusal is not None:
        raise refusal
    return Committed(what.gen, str(mine), what.is_changed)


def begin(db: sqlite3.Connection, ns: str) -> Head:
    """Where the namespace stands, which gets its epoch now if nobody wrote to it before."""
    found = head(db, ns)
    if found.epoch:
        return found
    epoch = os.urandom(16).hex()
    db.execute("INSERT INTO head VALUES (?, ?, 0, '', 0, ?)", (ns, epoch, RETENTION))
    return Head(epoch, 0)


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
            (self._ns, prefix, prefix + LAST),
        ).fetchall()
        return [name for (name,) in rows]


def known(db: sqlite3.Connection, ns: str, id: str) -> rules.Known | None:
    """What is remembered of an op."""
    row = db.execute(
        "SELECT gen, digest, is_changed, refusal FROM op WHERE ns = ? AND id = ?", (ns, id)
    ).fetchone()
    return rules.Known(row[0], row[1], bool(row[2]), row[3]) if row else None


def remember(db: sqlite3.Connection, ns: str, id: str, what: rules.Known) -> None:
    """Remember what an op came to. Of those that made no generation the newest are kept, as many as
    there are generations: no later commit may ever take them along."""
    db.execute(
        "INSERT INTO op VALUES (?, ?, ?, ?, ?, ?)",
        (ns, id, what.gen, what.digest, what.is_changed, what.refusal),
    )
    if what.is_changed:
        return
    db.execute(OUTCOMES)
    (last,) = db.execute("SELECT max(n) FROM outcome WHERE ns = ?", (ns,)).fetchone()
    number = (last or 0) + 1
    db.execute("INSERT INTO outcome VALUES (?, ?, ?)", (ns, number, id))
    (retention,) = db.execute("SELECT retention FROM head WHERE ns = ?", (ns,)).fetchone()
    old = (ns, number - retention)
    db.execute(
        "DELETE FROM op WHERE ns = ?1 AND id IN"
        " (SELECT id FROM outcome WHERE ns = ?1 AND n <= ?2)",
        old,
    )
    db.execute("DELETE FROM outcome WHERE ns = ? AND n <= ?", old)


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


def put(
    db: sqlite3.Connection,
    ns: str,
    folder: str,
    kind: str,
    name: str,
    body: bytes,
    *,
    session: Session | None,
    is_new: bool,
) -> None:
    """Write one record, bound to `session` or persistent; `folder` is that of the sessions' locks.
    Raises AlreadyExists (duplicate_id) and Unavailable (session_lost)."""
    begin(db, ns)
    owner = session.id if session else ""
    if session is not None and not (session.is_alive and is_session(db, owner)):
        raise rules.session_lost(owner)
    rules.check_claim(kind, name, holder(db, ns, folder, kind, name), session=owner, is_new=is_new)
    row = (ns, kind, name, body, owner)
    db.execute("INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?)", row)
    touch(db, ns, kind)


def holder(
    db: sqlite3.Connection, ns: str, folder: str, kind: str, name: str
) -> rules.Holder | None:
    """Who holds a record; None where nobody does who is alive."""
    row = db.execute(
        "SELECT r.session, s.pid, s.host FROM record r LEFT JOIN session s ON s.id = r.session"
        " WHERE r.ns = ? AND r.kind = ? AND r.name = ?",
        (ns, kind, name),
    ).fetchone()
    if row is None or (row[0] and not locks.is_alive(folder, row[0])):
        return None
    return rules.Holder(row[0], row[1] or 0, row[2] or "")
