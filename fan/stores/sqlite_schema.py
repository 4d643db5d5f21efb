"""The tables of a registry file, and how one is opened, recognised and created.

`user_version` numbers the schema and `application_id` marks the file as ours. A reader ignores
nothing: a file of a newer schema is refused, because this code does not know what it would break.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time

from fan.errors import DataLoss, FailedPrecondition
from fan.stores.sqlite_errors import is_busy, translate_os

#: The schema that this code reads and writes.
VERSION = 1

#: "fan!" in ASCII.
APPLICATION = 0x66616E21

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


def connect(path: str, query: str) -> sqlite3.Connection:
    """Open the file with a URI query (`mode=rw`). Transactions are ours to begin; the connection is
    used by one thread at a time, whichever it is."""
    quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return sqlite3.connect(
        f"file:{quoted}?{query}", uri=True, isolation_level=None, check_same_thread=False, timeout=0
    )


def is_ready(db: sqlite3.Connection, path: str) -> bool:
    """Whether the file holds our tables; False where it is still empty. Raises FailedPrecondition
    for a newer schema and for the database of somebody else."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (application,) = db.execute("PRAGMA application_id").fetchone()
    if application == APPLICATION:
        if version > VERSION:
            raise FailedPrecondition(
                f"the registry {path} was written by a newer fan (schema {version}, this one knows "
                f"{VERSION}): upgrade fan here, or use another registry file",
                reason="newer_schema",
                details={"path": path, "schema": version, "known": VERSION},
            )
        if version < 1:
            raise DataLoss(
                f"the registry {path} is damaged: it has no schema; move it away, or restore it",
                executed="no",
            )
        return True
    if version == 0 and application == 0:
        (count,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if count == 0:
            return False
    raise FailedPrecondition(
        f"{path} is an SQLite database, but not a registry of fan: use another registry file",
        reason="not_a_registry",
        details={"path": path},
    )


def create(db: sqlite3.Connection, path: str, deadline: float) -> None:
    """Make an empty file a registry; several processes may try at once. Raises sqlite3.Error."""
    while True:
        try:
            # SQLite does not wait by itself while another process changes the journal's mode.
            db.execute("PRAGMA journal_mode = WAL").fetchone()
            db.execute("BEGIN IMMEDIATE")
            break
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
    try:
        if not is_ready(db, path):
            for statement in _TABLES.split(";"):
                if statement.strip():
                    db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION}")
            db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def inode_of(path: str) -> tuple[int, int] | None:
    """What the path is now, None for nothing: a replaced file is another registry. Raises FanError
    where this user may not look, or no file can be."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise translate_os(error, path) from error
    return found.st_dev, found.st_ino
