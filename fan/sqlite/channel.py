"""A connection to a file: opened when first used, and again when it has to be.

SQLite must not cross a fork (https://www.sqlite.org/howtocorrupt.html, 2.6): the child would take
its parent's locks for its own. So a connection is closed before a fork and opened again, by whoever
needs it, on either side. A file that was replaced (`mv`, `rm`) is another one: the path's
inode is looked at before each use.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator

from fan import forks
from fan.errors import DeadlineExceeded, Executed, FailedPrecondition, FanError, PermissionDenied
from fan.sqlite import schema
from fan.sqlite.errors import is_busy, primary, refuse_network, translate, translate_os
from fan.sqlite.kind import Kind

#: The table of mounted file systems, which tells a network file system from a local one.
MOUNTS = "/proc/self/mountinfo"

#: Seconds that a fork waits for a thread that is using the connection.
_FORK_PATIENCE = 1.0

#: Seconds before a writer asks for the lock again, at least; at most five times that.
_AGAIN = 0.002

#: Connections that a child could not close before it was forked. Closing them there could remove
#: what the parent still writes, so they stay open and unused until the child ends.
_STRANDED: list[sqlite3.Connection] = []

#: The channels that a fork has to pass by.
_CHANNELS: weakref.WeakSet[Channel] = weakref.WeakSet()


class Channel:
    """One connection, used by one thread at a time.

    `mounts` is the mount table. With `makes_folder` the first write makes the file's folder, else
    the folder has to be there: a path with a typing error is no new file. `opened` counts how
    often the connection was opened: what somebody compared with its state (`PRAGMA data_version`)
    holds for one opening.
    """

    def __init__(
        self, path: str, kind: Kind, mounts: str = MOUNTS, *, makes_folder: bool = False
    ) -> None:
        self.path = path
        self._kind = kind
        self._noun = kind.noun
        self._makes_folder = makes_folder
        self.opened = 0
        self._mounts = mounts
        # Whoever wants the lock waits for it at the gate, one at a time: a fork gets its turn.
        self._gate = threading.Lock()
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._is_frozen = False
        self._is_closed = False
        self._is_stopped_for_fork = False
        _CHANNELS.add(self)

    @property
    def is_open(self) -> bool:
        return self._db is not None

    @property
    def inode(self) -> tuple[int, int] | None:
        """The file that the connection is to, or the last one was."""
        return self._inode

    @contextlib.contextmanager
    def reading(self, deadline: float) -> Iterator[sqlite3.Connection | None]:
        """A transaction that sees one state; None where there is no file yet. Raises
        FanError."""
        with self._locked(deadline):
            try:
                db = self._ready(deadline, creates=False)
                if db is None:
                    yield None
                    return
                db.execute("BEGIN")
                yield db
                db.execute("COMMIT")
            except sqlite3.Error as error:
                self._fail(error)
                raise translate(error, self.path, self._kind, is_write=False) from error
            finally:
                self._settle()

    @contextlib.contextmanager
    def writing(self, deadline: float, *, is_durable: bool) -> Iterator[sqlite3.Connection]:
        """A transaction that writes, alone; it is committed at the end of the block, and undone
        where that raises. With `is_durable` it survives a power cut. Raises FanError."""
        executed: Executed = "no"
        with self._locked(deadline):
            try:
                db = self._ready(deadline, creates=True)
                assert db is not None
                db.execute(f"PRAGMA synchronous = {'FULL' if is_durable else 'NORMAL'}")
                _begin(db, deadline)
                yield db
                # A failed sync leaves it open whether the log holds the commit after a crash.
                executed = "maybe"
                db.execute("COMMIT")
            except sqlite3.Error as error:
                self._fail(error)
                if primary(error) != sqlite3.SQLITE_IOERR:
                    executed = "no"
                raise translate(
                    error, self.path, self._kind, is_write=True, executed=executed
                ) from error
            finally:
                self._settle()

    def close(self) -> None:
        """Close for good. Twice does no harm."""
        with self._lock:
            self._is_closed = True
            self._drop()

    def _before_fork(self) -> None:
        """Close the connection and keep every thread from using it until the fork is over."""
        self._is_stopped_for_fork = self._enter(time.monotonic() + _FORK_PATIENCE)
        if self._is_stopped_for_fork and self._db is not None and not self._db.in_transaction:
            self._drop()

    def _after_fork_in_parent(self) -> None:
        if self._is_stopped_for_fork:
            self._is_stopped_for_fork = False
            self._lock.release()

    def _after_fork_in_child(self) -> None:
        if self._db is not None:
            _STRANDED.append(self._db)
            self._db = None
        self._gate = threading.Lock()
        self._lock = threading.RLock()
        self._is_stopped_for_fork = False

    def _enter(self, deadline: float) -> bool:
        """Take the lock; False where the deadline came first."""
        if not self._gate.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return False
        try:
            return self._lock.acquire(timeout=max(0.0, deadline - time.monotonic()))
        finally:
            self._gate.release()

    @contextlib.contextmanager
    def _locked(self, deadline: float) -> Iterator[None]:
        if not self._enter(deadline):
            raise self._too_late()
        try:
            if time.monotonic() >= deadline:
                raise self._too_late()
            yield
        finally:
            self._lock.release()

    def _too_late(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"no time was left to use the {self._noun} {self.path}", executed="no"
        )

    def _ready(self, deadline: float, *, creates: bool) -> sqlite3.Connection | None:
        if self._is_closed:
            raise FailedPrecondition(f"the {self._noun} {self.path} was closed by this process")
        inode = schema.inode_of(self.path, self._kind)
        if self._db is not None and inode != self._inode:
            self._drop()
        if self._db is None:
            if inode is None and not creates:
                return None
            self._check_place(creates=creates)
            while not self._open(deadline, creates=creates):
                if time.monotonic() >= deadline:
                    raise self._too_late()
        if self._db is not None:
            wait = int(max(1.0, (deadline - time.monotonic()) * 1000))
            self._db.execute(f"PRAGMA busy_timeout = {wait}")
        return self._db

    def _check_place(self, *, creates: bool) -> None:
        """Raise where there can be no file of ours at the path; make its folder."""
        folder = os.path.dirname(self.path)
        if creates and not os.path.isdir(folder):
            if not self._makes_folder:
                raise _no_folder(self.path, folder, self._noun)
            try:
                os.makedirs(folder, mode=0o700, exist_ok=True)
            except OSError as error:
                raise translate_os(error, folder, self._kind) from error
        if os.path.isdir(self.path):
            raise translate_os(
                IsADirectoryError(errno.EISDIR, "it is a folder"), self.path, self._kind
            )
        refuse_network(self.path if os.path.exists(self.path) else folder, self._mounts, self._kind)

    def _open(self, deadline: float, *, creates: bool) -> bool:
        """Connect, unless there is nothing to read yet. False where the file came or was replaced
        meanwhile: nobody can tell which one the connection is to then, and one to the old file,
        taken for one to the new, would see nothing new for ever."""
        inode = schema.inode_of(self.path, self._kind)
        if inode is None and not creates:
            return True
        db = None
        try:
            db, is_frozen = self._connect(deadline, creates=creates)
            is_ready = schema.is_ready(db, self.path, self._kind)
            if self._is_moved(inode):
                db.close()
                return False
            if not is_ready and not creates:
                db.close()
                return True
            if not is_ready:
                schema.create(db, self.path, self._kind, deadline)
        except BaseException as error:
            if db is not None:
                db.close()
            # The old file with the log of the new one may look damaged.
            if isinstance(error, (sqlite3.Error, FanError)) and self._is_moved(inode):
                return False
            raise
        self._db, self._is_frozen, self._inode = db, is_frozen, inode
        self.opened += 1
        return True

    def _is_moved(self, inode: tuple[int, int] | None) -> bool:
        """Whether the path names another file than it did."""
        return schema.inode_of(self.path, self._kind) != inode

    def _connect(self, deadline: float, *, creates: bool) -> tuple[sqlite3.Connection, bool]:
        """A connection that answers, and whether it is frozen: a file that nobody can be writing,
        as its folder is read-only and there is no log, is read as it is."""
        db = None
        try:
            db = schema.connect(self.path, "mode=rwc" if creates else "mode=rw")
            db.execute(f"PRAGMA busy_timeout = {int(max(1, (deadline - time.monotonic()) * 1000))}")
            db.execute("PRAGMA user_version").fetchone()
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return db, False
        except sqlite3.Error as error:
            if db is not None:
                db.close()
            if primary(error) not in (
                sqlite3.SQLITE_CANTOPEN,
                sqlite3.SQLITE_READONLY,
            ):
                raise
            self._check_permissions(creates=creates)
            if creates or _has_log(self.path):
                raise
            return schema.connect(self.path, "mode=ro&immutable=1"), True

    def _check_permissions(self, *, creates: bool) -> None:
        """Say what SQLite does not: which permission is missing."""
        folder = os.path.dirname(self.path)
        needs = os.R_OK | (os.W_OK if creates else 0)
        if os.path.exists(self.path) and not os.access(self.path, needs):
            lacking = self.path
        elif creates and not os.access(folder, os.W_OK | os.X_OK):
            lacking = folder
        else:
            return
        raise PermissionDenied(
            f"the {self._noun} {self.path} may not be {'written' if creates else 'read'}: this "
            f"user has no permission for {lacking}; give it, or use another {self._noun}",
            reason="read_only",
            details={"path": lacking},
        )

    def _fail(self, error: sqlite3.Error) -> None:
        if not is_busy(error):
            self._drop()

    def _settle(self) -> None:
        """Leave no transaction behind, whatever happened in the block."""
        if self._db is None:
            return
        if self._db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
        if self._is_frozen:
            self._drop()  # its cache would never notice a change

    def _drop(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()


def _begin(db: sqlite3.Connection, deadline: float) -> None:
    """Take the lock to write, trying again until the deadline. SQLite's own waiting sleeps longer
    and longer, up to 100 ms: a hundred who write at once leave the lock free for most of a
    second."""
    db.execute("PRAGMA busy_timeout = 0")
    while True:
        try:
            db.execute("BEGIN IMMEDIATE")
            break
        except sqlite3.Error as error:
            left = deadline - time.monotonic()
            if not is_busy(error) or left <= 0:
                raise
        # Not all at the same moment; `random` is an import that a start would feel.
        time.sleep(min(left, _AGAIN * (1 + os.urandom(1)[0] / 64)))
    wait = int(max(1.0, (deadline - time.monotonic()) * 1000))
    db.execute(f"PRAGMA busy_timeout = {wait}")


def _no_folder(path: str, folder: str, noun: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"the {noun} {path} cannot be made: there is no folder {folder}; make it (mkdir -p), or "
        f"use another {noun}",
        reason="no_folder",
        details={"path": folder},
    )


def _has_log(path: str) -> bool:
    try:
        return os.stat(path + "-wal").st_size > 0
    except OSError:
        return False


def _each(act: Callable[[Channel], None]) -> Callable[[], None]:
    def run() -> None:
        for channel in tuple(_CHANNELS):
            act(channel)

    return run


os.register_at_fork(
    before=_each(Channel._before_fork),
    after_in_parent=_each(Channel._after_fork_in_parent),
)
forks.in_child("files", _each(Channel._after_fork_in_child))
