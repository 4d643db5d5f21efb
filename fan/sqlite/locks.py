"""Who is alive, said by the kernel: a lock file for each session, held as long as its process
lives.

Linux has locks of an open file description (OFD, `fcntl(2)`): the kernel frees one when the last
descriptor closes, however the process died, and `F_OFD_GETLK` asks without taking. Elsewhere
`flock` does the same, but asking takes the lock for a moment: `hold` tries again then. Neither
works across machines.

Two races are closed here. Whoever cleans up removes a file only while it holds its lock, and
whoever has just locked a file looks whether it still has that name. A forked child inherits the
descriptor, and with it the lock: it has to call `LockFile.abandon`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import sys

#: `struct flock`: type, whence, start, length, pid (0, as OFD locks demand).
_FLOCK = "hhqqi0q"

#: Seconds between two signs of life of a session.
HEARTBEAT = 2.0

_SUFFIX = ".lock"


if sys.platform == "linux":

    def _lock(fd: int, kind: int) -> bool:
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, 0, 0, 0, 0))
        except (BlockingIOError, PermissionError):  # EAGAIN, EACCES: POSIX allows both
            return False
        return True

    def _take(fd: int) -> bool:
        return _lock(fd, fcntl.F_WRLCK)

    def _take_shared(fd: int) -> bool:
        return _lock(fd, fcntl.F_RDLCK)

    def _is_taken(fd: int) -> bool:
        asked = struct.pack(_FLOCK, fcntl.F_RDLCK, 0, 0, 0, 0)
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked)
        return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)

else:

    def _lock(fd: int, kind: int) -> bool:
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _take(fd: int) -> bool:
        return _lock(fd, fcntl.LOCK_EX)

    def _take_shared(fd: int) -> bool:
        return _lock(fd, fcntl.LOCK_SH)

    def _is_taken(fd: int) -> bool:
        if not _lock(fd, fcntl.LOCK_SH):
            return True
        fcntl.flock(fd, fcntl.LOCK_UN)
        return False


def path_of(folder: str, id: str) -> str:
    """The lock file of a session."""
    return f"{folder}/{id}{_SUFFIX}"


def id_of(name: str) -> str:
    """The session of a file name in the folder, empty for another file."""
    return name.removesuffix(_SUFFIX) if name.endswith(_SUFFIX) else ""


class LockFile:
    """One session's lock, held by this process until `release`."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._inode = os.fstat(fd).st_ino

    @classmethod
    def hold(cls, path: str, note: bytes) -> LockFile:
        """Create the file and lock it; `note` is for people who look into it. Raises OSError."""
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                held = cls(path, fd) if _take(fd) else None
                if held is not None and held.is_in_place:
                    os.write(fd, note)
                    return held
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(path)
                os.close(fd)
                raise
            # Somebody cleans up, and took ours for a dead one: it is removed by now, or soon.
            os.close(fd)

    @property
    def is_in_place(self) -> bool:
        """Whether this is held, and what others find under the name."""
        if self._fd < 0:
            return False
        try:
            return os.stat(self.path).st_ino == self._inode
        except OSError:
            return False

    def beat(self) -> None:
        """Show a sign of life: the file's time of change."""
        if self._fd >= 0:
            os.utime(self._fd)

    def release(self) -> None:
        """Remove the file and free the lock. Twice does no harm."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        with contextlib.suppress(OSError):
            if os.stat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        os.close(fd)

    def abandon(self) -> None:
        """Let go of what a forked child inherited: the parent's lock stays the parent's."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def heard_at(folder: str, id: str) -> float | None:
    """When the living owner of a session last gave a sign (seconds of the epoch); None where it is
    dead. A file that may not be opened is taken for alive: nobody dies of a permission."""
    path = path_of(folder, id)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except PermissionError:
        try:
            return os.stat(path).st_mtime
        except FileNotFoundError:  # since
            return None
    try:
        return os.fstat(fd).st_mtime if _is_taken(fd) else None
    finally:
        os.close(fd)


def is_alive(folder: str, id: str) -> bool:
    """Whether the process that opened the session lives."""
    return heard_at(folder, id) is not None


def clean_up(folder: str, id: str) -> bool:
    """Remove the lock file of a dead session. False where it is alive (after all)."""
    path = path_of(folder, id)
    try:
        # Read-only, and a shared lock: watchers listen for the close of a file open for writing.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        if not _take_shared(fd):
            return False
        with contextlib.suppress(OSError):
            if os.stat(path).st_ino == os.fstat(fd).st_ino:
                os.unlink(path)
        return True
    finally:
        os.close(fd)
