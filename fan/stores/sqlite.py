"""The registry in a file: the embedded default, for many processes of one machine.

Beside `registry.db` lie SQLite's own `-wal` and `-shm`, and a folder `registry.db.locks` with one
lock file for each session (`fan.sqlite.locks`). The parts: `fan.sqlite` opens the file, puts up
with forks and says what went wrong, `sqlite_rows` and `sqlite_writes` hold the statements,
`sqlite_lookout` sees what changed and `sqlite_watch` tells; what a commit may do is in
`fan.stores.rules`. Reading creates and writes nothing, and loads nothing of what writes.
"""

from __future__ import annotations

import builtins
import contextlib
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

from fan import forks
from fan.sqlite import locks
from fan.sqlite.channel import MOUNTS, Channel
from fan.sqlite.errors import translate_os
from fan.stores import sqlite_rows as rows
from fan.stores.base import (
    Committed,
    Cut,
    Entry,
    Head,
    Hint,
    Plan,
    Record,
    Revision,
    Session,
    Store,
    Watch,
)
from fan.stores.sqlite_schema import REGISTRY

if TYPE_CHECKING:
    import sqlite3

    from fan.stores.sqlite_session import SqliteSession
    from fan.stores.sqlite_watch import Watcher

#: The stores that a fork has to pass by.
_STORES: weakref.WeakSet[SqliteStore] = weakref.WeakSet()


class SqliteStore(Store):
    """One namespace of a registry file. `mounts` is the table of mounted file systems, which tells
    a network file system from a local one. A missing file reads as an empty registry; the first
    write makes it, and with `makes_folder` its folder."""

    scheme: ClassVar[str] = "sqlite"

    def __init__(
        self,
        path: str,
        namespace: str = "default",
        *,
        mounts: str = MOUNTS,
        makes_folder: bool = False,
    ) -> None:
        self.path = os.path.abspath(os.path.expanduser(path))
        self.namespace = namespace
        self.locks = f"{self.path}.locks"
        self._mounts = mounts
        # Two connections, so that a writer who waits for the lock keeps no reader waiting.
        self._reader = Channel(self.path, REGISTRY, mounts, makes_folder=makes_folder)
        self._writer = Channel(self.path, REGISTRY, mounts, makes_folder=makes_folder)
        self._sessions: weakref.WeakSet[SqliteSession] = weakref.WeakSet()
        self._watcher: Watcher | None = None
        self._watch_guard = threading.Lock()
        _STORES.add(self)

    def __repr__(self) -> str:
        return f"<SqliteStore {self.path} {self.namespace}, {len(self._sessions)} sessions>"

    def __del__(self) -> None:
        if hasattr(self, "_writer") and (self._reader.is_open or self._writer.is_open):
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=1)

    def head(self, *, deadline: float) -> Head:
        with self._reader.reading(deadline) as db:
            return rows.head(db, self.namespace) if db else Head("", 0)

    def read(
        self,
        objects: Sequence[str] = (),
        *,
        prefix: str | None = None,
        gen: int | None = None,
        deadline: float,
    ) -> Cut:
        with self._reader.reading(deadline) as db:
            if db is not None:
                return rows.cut(db, self.namespace, objects, prefix, gen)
        if gen:
            from fan.stores import rules

            rules.check_generation(gen, Head("", 0))
        return Cut(Head("", 0), {})

    def revision(self, object: str, rev: int, *, deadline: float) -> Revision:
        with self._reader.reading(deadline) as db:
            found = rows.revision(db, self.namespace, object, rev) if db else None
            if found is None:
                from fan.stores import rules

                head = rows.head(db, self.namespace) if db else Head("", 0)
                raise rules.missing_revision(object, rev, head)
            return found

    def log(self, after: int, upto: int | None = None, *, deadline: float) -> builtins.list[Entry]:
        with self._reader.reading(deadline) as db:
            return rows.log(db, self.namespace, after, upto) if db else []

    def commit(self, plan: Plan, *, op: str = "", deadline: float) -> Committed:
        from fan.stores import sqlite_writes as writes

        return writes.commit(self._writer, self.namespace, plan, op, deadline)

    def watch(self, kind: str, callback: Callable[[Hint], None]) -> Watch:
        from fan.stores.sqlite_watch import Watcher

        with self._watch_guard:
            if self._watcher is None or not self._watcher.is_running:
                self._watcher = Watcher(self.path, self.namespace, self.locks, self._mounts)
            return self._watcher.add(kind, callback)

    def open_session(
        self, *, on_lost: Callable[[], None] | None = None, deadline: float
    ) -> SqliteSession:
        from fan.stores import rules
        from fan.stores import sqlite_writes as writes
        from fan.stores.sqlite_session import SqliteSession

        id = os.urandom(8).hex()
        pid, host = os.getpid(), os.uname().nodename
        with contextlib.ExitStack() as undo:
            with self._writer.writing(deadline, is_durable=False) as db:
                lock = self._hold(id, f"pid {pid} on {host}\n")
                undo.callback(lock.release)
                writes.begin(db, self.namespace)
                dead = self._sweep(db)
                db.execute(
                    "INSERT INTO session VALUES (?, ?, ?, ?, ?)",
                    (id, self.namespace, pid, host, rules.now()),
                )
            undo.pop_all()
        for gone in dead:
            locks.clean_up(self.locks, gone)
        session = SqliteSession(id, lock, self._writer, on_lost)
        self._sessions.add(session)
        return session

    def _hold(self, id: str, note: str) -> locks.LockFile:
        path = locks.path_of(self.locks, id)
        try:
            os.makedirs(self.locks, exist_ok=True)
            return locks.LockFile.hold(path, note.encode())
        except OSError as error:
            raise translate_os(error, path, REGISTRY) from error

    def _sweep(self, db: sqlite3.Connection) -> builtins.list[str]:
        """Remove the dead sessions' rows, of all namespaces. Returns whose lock files may go."""
        from fan.stores import sqlite_writes as writes

        named = {id for (id,) in db.execute("SELECT id FROM session").fetchall()}
        dead = [id for id in named if not locks.is_alive(self.locks, id)]
        for id in dead:
            writes.forget_session(db, id)
        # A file without a row is of somebody who died while opening a session.
        files = {locks.id_of(name) for name in os.listdir(self.locks)} - {""}
        return dead + [id for id in files - named if not locks.is_alive(self.locks, id)]

    def put(
        self,
        kind: str,
        name: str,
        body: bytes,
        *,
        session: Session | None = None,
        is_new: bool = False,
        deadline: float,
    ) -> None:
        from fan.stores import rules
        from fan.stores import sqlite_writes as writes

        rules.check_size(f"{kind} {name}", len(body) + len(name.encode()))
        # What a session holds is gone after a power cut anyhow: no need to wait for the disk.
        with self._writer.writing(deadline, is_durable=session is None) as db:
            writes.put(
                db, self.namespace, self.locks, kind, name, body, session=session, is_new=is_new
            )

    def delete(
        self, kind: str, name: str, *, session: Session | None = None, deadline: float
    ) -> bool:
        from fan.stores import sqlite_writes as writes

        with self._writer.writing(deadline, is_durable=session is None) as db:
            holder = writes.holder(db, self.namespace, self.locks, kind, name)
            if holder is not None and session is not None and holder.session != session.id:
                return False
            # Also where the holder is dead: what is left of it goes, and counts as absent.
            gone = db.execute(
                "DELETE FROM record WHERE ns = ? AND kind = ? AND name = ?",
                (self.namespace, kind, name),
            ).rowcount
            if gone:
                writes.touch(db, self.namespace, kind)
            return holder is not None

    def list(self, kind: str, prefix: str = "", *, deadline: float) -> builtins.list[Record]:
        with self._reader.reading(deadline) as db:
            found = [] if db is None else rows.records(db, self.namespace, kind, prefix)
        # Asked after the rows were read: who dies in between is not listed.
        heard = {id: locks.heard_at(self.locks, id) for id in {row[2] for row in found} if id}
        return [
            Record(kind=kind, name=name, body=body, session=id, heard_at=heard.get(id))
            for name, body, id in found
            if not id or heard[id] is not None
        ]

    def close(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.close()
        while self._sessions:
            self._sessions.pop().close()
        self._reader.close()
        self._writer.close()

    def _after_fork_in_child(self) -> None:
        for session in self._sessions:
            session.after_fork_in_child()
        self._sessions = weakref.WeakSet()
        self._watch_guard = threading.Lock()
        if self._watcher is not None:
            self._watcher.after_fork_in_child()
            self._watcher = None


def _forked() -> None:
    for store in tuple(_STORES):
        store._after_fork_in_child()


forks.in_child("stores", _forked)
