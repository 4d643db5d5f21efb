"""The socket files of ipc listeners: their names, who may have them, and those that nobody removed.

A listener in the runtime folder has a name of its own there, `PID-RANDOM.sock`, and removes it when
it closes. One that was killed cannot: the next to start in that folder does it for it.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from fan.context import new_id
from fan.errors import AlreadyExists, InvalidArgument, Unavailable

#: Bytes that the kernel takes for the path of a unix socket (`sun_path` less its NUL).
LONGEST_PATH = 107
#: Seconds that a start spends on files that others left; what remains is for the next start.
SWEEP = 0.1
_BACKLOG = 1024


def socket_path(bind: str, runtime_dir: str) -> str:
    """The absolute path to listen at. Raises InvalidArgument, Unavailable."""
    given = bind.removeprefix("unix://")
    if given:
        path = os.path.abspath(os.path.expanduser(given))
    else:
        path = os.path.join(os.path.abspath(runtime_dir), f"{os.getpid()}-{new_id()[:8]}.sock")
    size = len(os.fsencode(path))
    if size > LONGEST_PATH or "\0" in path:
        hint = "give a shorter path" if given else "choose a shorter runtime_dir"
        raise InvalidArgument(
            f"the socket path {path} has {size} bytes and the kernel takes {LONGEST_PATH}; {hint}",
            reason="bad_setting",
        )
    if not given:
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        except OSError as exc:
            raise Unavailable(
                f"cannot make the socket folder {os.path.dirname(path)}: {exc.strerror}",
                reason="connect_failed",
            ) from exc
    return path


def claim(sock: socket.socket, path: str, *, is_swept: bool) -> None:
    """Bind and listen, past a socket file that its server left behind, and with `is_swept` remove
    others like it from the folder. Raises AlreadyExists, Unavailable, OSError."""
    folder = os.path.dirname(path)
    with _locked(folder):
        if is_swept:
            _sweep(folder)
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            pass
        else:
            if not stat.S_ISSOCK(mode):
                raise AlreadyExists(f"{path} exists and is no socket; give another path")
            if _is_live(path):
                raise AlreadyExists(f"somebody already listens at {path}; give another path")
            os.unlink(path)
        sock.bind(path)
        os.chmod(path, 0o600)  # nobody connects before listen()
        sock.listen(_BACKLOG)  # under the lock: a socket that does not listen yet looks stale


def _sweep(folder: str) -> None:
    """Remove the files of listeners whose process is gone. The number alone proves nothing, since
    containers that share a folder count for themselves: nobody listens there either."""
    until = time.monotonic() + SWEEP
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if time.monotonic() > until:
                return
            pid, _, rest = entry.name.partition("-")
            if not (pid.isdecimal() and rest.endswith(".sock")) or _runs(int(pid)):
                continue
            with suppress(OSError):  # somebody else's, or just gone
                is_socket = stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)
                if is_socket and not _is_live(entry.path):
                    os.unlink(entry.path)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's; no number of a process
        return True
    return True


def _is_live(path: str) -> bool:
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.setblocking(False)
        probe.connect(path)
    except BlockingIOError:
        return True  # its queue is full
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except PermissionError:
        return True
    finally:
        probe.close()
    return True


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Of two that find a stale file, one must not remove what the other just made: a lock on the
    folder, which leaves no file behind and ends with the process."""
    until = time.monotonic() + 2.0
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise Unavailable(
                        f"somebody keeps the folder {folder} locked", reason="connect_failed"
                    ) from None
                time.sleep(0.01)
        yield
    finally:
        os.close(fd)
