"""How a file is opened, recognised and created."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time

from fan.errors import DataLoss, FailedPrecondition
from fan.sqlite.errors import is_busy, translate_os
from fan.sqlite.kind import Kind

#: What tells a file's kind, in one statement: another process may be making its tables right now.
_MARKS = """
SELECT (SELECT user_version FROM pragma_user_version),
       (SELECT application_id FROM pragma_application_id),
       (SELECT count(*) FROM sqlite_master)
"""


def connect(path: str, query: str) -> sqlite3.Connection:
    """Open the file with a URI query (`mode=rw`). Transactions are ours to begin; the connection is
    used by one thread at a time, whichever it is."""
    quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return sqlite3.connect(
        f"file:{quoted}?{query}", uri=True, isolation_level=None, check_same_thread=False, timeout=0
    )


def is_ready(db: sqlite3.Connection, path: str, kind: Kind) -> bool:
    """Whether the file holds our tables; False where it is still empty. Raises FailedPrecondition
    for a newer schema and for the database of somebody else."""
    noun = kind.noun
    version, application, tables = db.execute(_MARKS).fetchone()
    if application == kind.application:
        if version > kind.version:
            raise FailedPrecondition(
                f"the {noun} {path} was written by a newer fan (schema {version}, this one knows "
                f"{kind.version}): upgrade fan here, or use another {noun} file",
                reason="newer_schema",
                details={"path": path, "schema": version, "known": kind.version},
            )
        if version < 1:
            raise DataLoss(
                f"the {noun} {path} is damaged: it has no schema; move it away, or restore it",
                executed="no",
            )
        return True
    if version == 0 and application == 0 and tables == 0:
        return False
    raise FailedPrecondition(
        f"{path} is an SQLite database, but not a {noun} of fan: use another {noun} file",
        reason=f"not_a_{noun.replace(' ', '_')}",
        details={"path": path},
    )


def create(db: sqlite3.Connection, path: str, kind: Kind, deadline: float) -> None:
    """Make an empty file one of that kind; several processes may try at once. Raises
    sqlite3.Error."""
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
        if not is_ready(db, path, kind):
            for statement in kind.tables.split(";"):
                if statement.strip():
                    db.execute(statement)
            db.execute(f"PRAGMA application_id = {kind.application}")
            db.execute(f"PRAGMA user_version = {kind.version}")
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def inode_of(path: str, kind: Kind) -> tuple[int, int] | None:
    """What the path is now, None for nothing: a replaced file is another one. Raises FanError where
    this user may not look, or no file can be."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise translate_os(error, path, kind) from error
    return found.st_dev, found.st_ino
