"""Files that are replaced as a whole: a reader sees the old one or the new one."""

from __future__ import annotations

import os
from contextlib import suppress


def replace_file(path: str, data: bytes) -> None:
    """Write `data` to `path` by way of a file beside it; an old file's mode and owner stay. Raises
    FailedPrecondition (bad_file)."""
    from tempfile import mkstemp

    from fan import FailedPrecondition

    path = os.path.realpath(path)  # a link stays one
    temporary = ""
    try:
        old = os.stat(path) if os.path.exists(path) else None
        folder, name = os.path.split(path)
        fd, temporary = mkstemp(prefix=f".{name[:100]}.", dir=folder)
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            _dress(fd, old)
            os.fsync(fd)
        os.replace(temporary, path)
    except OSError as exc:
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)
        raise FailedPrecondition(
            f"{path} cannot be written: {exc.strerror}", reason="bad_file"
        ) from exc


def _dress(fd: int, old: os.stat_result | None) -> None:
    """Give a new file what the old one had, or what a new one gets."""
    if old is None:
        mask = os.umask(0)
        os.umask(mask)
        os.fchmod(fd, 0o666 & ~mask)
        return
    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        with suppress(PermissionError):  # only root may give it away
            os.fchown(fd, old.st_uid, old.st_gid)
    os.fchmod(fd, old.st_mode & 0o7777)


def content_of(path: str) -> bytes | None:
    """What a file holds, None where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None
