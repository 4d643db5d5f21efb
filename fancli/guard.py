"""The process between `fan run` and the program that it runs: what makes both end together.

It is started as a script, with nothing but the standard library, and has no threads, so that it may
fork. A byte on the lifeline is a signal to pass on; its end, however `fan` ended, ends the program:
SIGTERM, and SIGKILL when that takes longer than the grace. Its exit status is the program's.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress

#: Exit statuses of a program that cannot be started, as of every shell.
NOT_FOUND, NOT_RUN = 127, 126


def main(args: list[str]) -> int:
    """`LIFELINE NEWS GRACE OWN COMMAND...`: two descriptors, seconds, and 1 where the program gets
    a process group of its own."""
    lifeline, news, command = int(args[0]), int(args[1]), args[4:]
    grace, is_own = float(args[2]), args[3] == "1"
    for fd in (lifeline, news):
        os.set_inheritable(fd, False)  # what the program leaves behind must not hold them
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    wake_up, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken)
    pid = os.fork()
    if pid == 0:
        become(command, is_own)
    if is_own:
        with suppress(OSError):  # the child does the same: whoever comes first
            os.setpgid(pid, pid)
    target = -pid if is_own else pid
    kill_at: float | None = None
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            if is_own and lifeline < 0:
                send(target, signal.SIGKILL)  # what it left behind
            return os.waitstatus_to_exitcode(status)
        if kill_at is not None and time.monotonic() >= kill_at:
            send(target, signal.SIGKILL)
        wait = None if kill_at is None else max(0.05, kill_at - time.monotonic())
        watched = [wake_up] if lifeline < 0 else [wake_up, lifeline]
        found, _, _ = select.select(watched, [], [], wait)
        if wake_up in found:
            os.read(wake_up, 64)
        if lifeline in found:
            said = os.read(lifeline, 1)
            send(target, said[0] if said else signal.SIGTERM)
            if not said:
                lifeline, kill_at = -1, time.monotonic() + grace


def send(target: int, number: int) -> None:
    """Send a signal to a process, or to a group."""
    with suppress(ProcessLookupError, PermissionError):  # the latter of a group of zombies
        os.kill(target, number)


def become(command: list[str], is_own: bool) -> None:
    """Turn this child into the program; never returns."""
    status = NOT_RUN
    try:
        if is_own:
            os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        for number in (
            signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD,
            signal.SIGPIPE,
        ):  # fmt: skip
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], command)
    except OSError as exc:
        os.write(2, f"fan: {command[0]}: {exc.strerror}\n".encode())
        status = NOT_FOUND if isinstance(exc, FileNotFoundError) else NOT_RUN
    finally:
        os._exit(status)


if __name__ == "__main__":
    outcome = main(sys.argv[1:])
    os._exit(outcome if outcome >= 0 else 128 - outcome)
