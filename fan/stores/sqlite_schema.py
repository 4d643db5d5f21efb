"""The tables of a registry file."""

from __future__ import annotations

from fan.sqlite.kind import Kind

_TABLES = """
CREATE TABLE head (
    ns TEXT PRIMARY KEY, epoch TEXT NOT NULL, gen INTEGER NOT NULL, op TEXT NOT NULL,
    floor INTEGER NOT NULL, retention INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE revision (
    ns TEXT NOT NULL, object TEXT NOT NULL, rev INTEGER NOT NULL, body BLOB,
    parent INTEGER NOT NULL, who TEXT NOT NULL, at TEXT NOT NULL, pinned_at INTEGER NOT NULL,
    PRIMARY KEY (ns, object, rev)
);
CREATE TABLE pin (
    ns TEXT NOT NULL, object TEXT NOT NULL, rev INTEGER NOT NULL, PRIMARY KEY (ns, object)
) WITHOUT ROWID;
CREATE TABLE log (
    ns TEXT NOT NULL, gen INTEGER NOT NULL, op TEXT NOT NULL, prev TEXT NOT NULL,
    verb TEXT NOT NULL, undo_of INTEGER NOT NULL, who TEXT NOT NULL, host TEXT NOT NULL,
    reason TEXT NOT NULL, at TEXT NOT NULL, forced INTEGER NOT NULL, PRIMARY KEY (ns, gen)
) WITHOUT ROWID;
CREATE TABLE change (
    ns TEXT NOT NULL, gen INTEGER NOT NULL, seq INTEGER NOT NULL, object TEXT NOT NULL,
    before INTEGER NOT NULL, after INTEGER NOT NULL, PRIMARY KEY (ns, gen, seq)
) WITHOUT ROWID;
CREATE INDEX change_by_object ON change (ns, object, gen);
CREATE TABLE op (
    ns TEXT NOT NULL, id TEXT NOT NULL, gen INTEGER NOT NULL, digest TEXT NOT NULL,
    is_changed INTEGER NOT NULL, refusal TEXT NOT NULL, PRIMARY KEY (ns, id)
) WITHOUT ROWID;
CREATE INDEX op_by_gen ON op (ns, gen);
CREATE TABLE record (
    ns TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL,
    session TEXT NOT NULL, PRIMARY KEY (ns, kind, name)
);
CREATE INDEX record_by_session ON record (session);
CREATE TABLE session (
    id TEXT PRIMARY KEY, ns TEXT NOT NULL, pid INTEGER NOT NULL, host TEXT NOT NULL,
    started_at TEXT NOT NULL
) WITHOUT ROWID;
-- How often the records of a kind changed: what a watcher compares.
CREATE TABLE tick (
    ns TEXT NOT NULL, kind TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (ns, kind)
) WITHOUT ROWID;
"""

#: The ops that made no generation, in their order; made by the first of them, since files of the
#: same version may be without it.
OUTCOMES = """
CREATE TABLE IF NOT EXISTS outcome (
    ns TEXT NOT NULL, n INTEGER NOT NULL, id TEXT NOT NULL, PRIMARY KEY (ns, n)
) WITHOUT ROWID;
"""

REGISTRY = Kind(
    noun="registry",
    application=0x66616E21,  # "fan!" in ASCII
    version=1,
    tables=_TABLES,
    loss="services register again by themselves",
)
