"""A program that is run to be shown: on a terminal of its own, as its user would see it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence


def run_staged(
    command: Sequence[str], vars: Mapping[str, str], *, cwd: str, columns: int
) -> tuple[int, bytes]:
    """Run `command` to its end. Its exit status, and what it showed on a terminal of `columns`:
    both its streams, in the order in which it wrote them."""
    ours, theirs = _terminal(columns)
    try:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=dict(vars),
                cwd=cwd,
            )  # fmt: skip
        finally:
            os.close(theirs)
        with process:
            shown = _read_all(ours)
            return process.wait(), shown
    finally:
        os.close(ours)


def _terminal(columns: int) -> tuple[int, int]:
    """Our end and the program's; those of a pipe where there are no terminals to be had, as in a
    container without any."""
    import termios

    try:
        ours, theirs = os.openpty()
    except OSError:
        return os.pipe()
    termios.tcsetwinsize(theirs, (24, columns))
    how = termios.tcgetattr(theirs)
    how[1] &= ~termios.OPOST  # lines end in a mere line feed, as it wrote them
    termios.tcsetattr(theirs, termios.TCSANOW, how)
    return ours, theirs


def _read_all(fd: int) -> bytes:
    """Everything until the program has closed its end."""
    data = b""
    while True:
        try:
            chunk = os.read(fd, 65536)
        except OSError:  # EIO: what Linux says at the end of a terminal
            return data
        if not chunk:
            return data
        data += chunk
