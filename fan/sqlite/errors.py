"""What SQLite and the file system say, as errors of fan: a sentence with the path and what to
do."""

from __future__ import annotations

import errno
import os
import sqlite3

from fan.errors import (
    DataLoss,
    DeadlineExceeded,
    Executed,
    FailedPrecondition,
    FanError,
    Internal,
    InvalidArgument,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from fan.sqlite.kind import Kind

#: File systems of other machines, as the mount table names them: their locks are no locks, and
#: SQLite's shared memory does not reach across machines. https://www.sqlite.org/wal.html
NETWORK = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda", "ceph", "lustre"),
        *("beegfs", "gfs2", "ocfs2", "orangefs", "pvfs2", "glusterfs", "davfs", "fuse.sshfs"),
        *("fuse.rclone", "fuse.glusterfs", "fuse.ceph-fuse", "fuse.s3fs", "fuse.davfs2"),
    }
)

_LOCKED = (
    "{path} is locked by another process, and stayed so until the deadline; nothing was {did}. "
)
_FIND = "See who has it open (fuser -v {path}), end that process, and try again"


def is_busy(error: sqlite3.Error) -> bool:
    """Whether somebody else has the lock."""
    return primary(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def primary(error: sqlite3.Error) -> int:
    """SQLite's result code without its details."""
    # The low byte is the primary code. Errors of the Python module itself carry none.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def translate(
    error: sqlite3.Error, path: str, what: Kind, *, is_write: bool, executed: Executed = "no"
) -> FanError:
    """The error of fan for one of SQLite. `executed` is what is known of the write."""
    kind, sentence, reason = _TABLE.get(primary(error), _OTHER)
    did = "changed" if is_write else "read"
    message = sentence.format(path=path, did=did, error=error, noun=what.noun, loss=what.loss)
    return kind(
        f"the {what.noun} {message}",
        reason=reason,
        executed=executed,
        details={"path": path, "sqlite": getattr(error, "sqlite_errorname", "")},
    )


_DAMAGED = (
    DataLoss,
    ("{path} is damaged ({error}): move it away, or restore it from a backup; {loss}"),
    "corrupt",
)
_READ_ONLY = (
    PermissionDenied,
    (
        "{path} is read-only for this user: give the user write permission to the file and its "
        "folder, or use another {noun}"
    ),
    "read_only",
)
_OTHER: tuple[type[FanError], str, str] = (
    Internal,
    "{path} could not be used: {error}",
    "",
)
_TABLE: dict[int, tuple[type[FanError], str, str]] = {
    sqlite3.SQLITE_BUSY: (DeadlineExceeded, _LOCKED + _FIND, "locked"),
    sqlite3.SQLITE_LOCKED: (DeadlineExceeded, _LOCKED + _FIND, "locked"),
    sqlite3.SQLITE_PROTOCOL: (Unavailable, _LOCKED + _FIND, "locked"),
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_PERM: _READ_ONLY,
    sqlite3.SQLITE_AUTH: _READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: (
        Unavailable,
        (
            "{path} cannot be opened: see that its folder exists and that this user may read and "
            "write there, or use another {noun}"
        ),
        "cannot_open",
    ),
    sqlite3.SQLITE_FULL: (
        ResourceExhausted,
        "{path} cannot grow, its disk is full: nothing was changed; free some space, and try again",
        "disk_full",
    ),
    sqlite3.SQLITE_IOERR: (
        Unavailable,
        (
            "{path} cannot be used, its disk failed ({error}): see that the disk has space and is "
            "healthy, and try again"
        ),
        "disk_failed",
    ),
    sqlite3.SQLITE_NOMEM: (ResourceExhausted, "{path} needs more memory than there is", "memory"),
    sqlite3.SQLITE_TOOBIG: (InvalidArgument, "{path} does not take so much", "payload_too_large"),
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    # "no such table", in a file that is marked as ours.
    sqlite3.SQLITE_ERROR: _DAMAGED,
}


def translate_os(error: OSError, path: str, what: Kind) -> FanError:
    """The error of fan for one of the file system, nothing having been changed."""
    details = {"path": path, "errno": errno.errorcode.get(error.errno or 0, "")}
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PermissionDenied(
            f"the {what.noun} may not use {path} ({error.strerror}): give this user permission to "
            f"read and write there, or use another {what.noun}",
            reason="read_only",
            details=details,
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted(
            f"the {what.noun} cannot write {path}, its disk is full: free some space, and try "
            "again",
            reason="disk_full",
            details=details,
        )
    return Unavailable(
        f"the {what.noun} cannot use {path} ({error.strerror}): see that its folder is there and "
        f"usable, or use another {what.noun}",
        reason="cannot_open",
        details=details,
    )


def refuse_network(path: str, mounts: str, what: Kind) -> None:
    """Raise FailedPrecondition where `path` lies on a file system of another machine. `mounts` is
    the table to look it up in (/proc/self/mountinfo); without one, nothing is known and nothing
    refused."""
    try:
        found = os.stat(path)
        with open(mounts, encoding="utf-8", errors="replace") as table:
            rows = table.readlines()
    except OSError:
        return
    device = f"{os.major(found.st_dev)}:{os.minor(found.st_dev)}"
    for row in rows:
        # 36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/root rw
        fields, _, kind = row.partition(" - ")
        if fields.split(" ", 3)[2] == device:
            name = kind.split(" ", 1)[0]
            if name in NETWORK:
                raise FailedPrecondition(
                    f"the {what.noun} {path} lies on a network file system ({name}), where file "
                    "locks do not hold: use a file on a local disk",
                    reason="network_file_system",
                    details={"path": path, "file_system": name},
                )
            return
