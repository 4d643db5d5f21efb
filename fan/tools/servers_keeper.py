"""The parent of a server's program: it ends the program when the server's owner is gone.

`servers_process` runs this file as a script, `python -I -S FILE LIFELINE NEWS FOLDER COMMAND...`,
so it imports nothing but what Python brings, and little of that. LIFELINE is the read end of a pipe
whose write end only the owner has: its end of file is the owner's death, however that came. Then
the program is killed and FOLDER, unless that is empty, removed. The process id of the program goes
out on NEWS. With LIFELINE -1 the program has no owner: it is started in a session of its own, and
left alone.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from types import FrameType

#: Numbers of prctl(2).
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

#: Seconds for a program's own helpers to end after it.
_HELPERS_GRACE = 5.0


def main(args: list[str]) -> int:
    """Keep the program until it or its owner ends. Its exit status, 128 and the signal."""
    lifeline, news, folder, command = int(args[0]), int(args[1]), args[2], args[3:]
    for fd in (lifeline, news):
        if fd >= 0:
            os.set_inheritable(fd, False)
    woken = _wake_on_child()
    is_free = lifeline < 0
    if not is_free:
        # What the program leaves behind (Erlang's helpers) becomes ours, and ends before we do.
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    pid = _spawn(command, is_free)
    os.write(news, b"%d\n" % pid)
    return 0 if is_free else _keep(pid, lifeline, woken, folder)


def _wake_on_child() -> int:
    """A descriptor that is readable once a child has ended."""

    def ignore(number: int, frame: FrameType | None) -> None:
        pass

    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, ignore)
    return woken


def _spawn(command: list[str], is_free: bool) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if is_free:
            os.setsid()
        else:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before the line above
                os._exit(1)
        os.execvp(command[0], command)
    except OSError as exc:
        os.write(2, f"{command[0]}: {exc.strerror}\n".encode())
    finally:
        os._exit(127)


def _keep(pid: int, lifeline: int, woken: int, folder: str) -> int:
    while True:
        ready, _, _ = select.select([lifeline, woken], [], [])
        if lifeline in ready and not os.read(lifeline, 64):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            _reap_helpers()
            _remove(folder)
            return 1
        if woken in ready:
            os.read(woken, 512)
            if (status := _status_of(pid)) is not None:
                _reap_helpers()
                return status


def _status_of(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    if not found:
        return None
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _reap_helpers() -> None:
    """Until the last orphan of the program has ended, or the grace is over."""
    deadline = time.monotonic() + _HELPERS_GRACE
    try:
        while time.monotonic() < deadline:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(0.005)
    except ChildProcessError:
        pass


def _remove(folder: str) -> None:
    if folder:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


def _prctl(option: int, value: int) -> None:
    """prctl(2), where there is one. Elsewhere the lifeline has to do."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
