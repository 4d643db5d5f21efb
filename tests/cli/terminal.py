"""A terminal that somebody types into: a program on a pty, and what it shows."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import struct
import time
from collections.abc import Mapping, Sequence
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ
from typing import Self

#: Seconds after which what does not come is given up: far more than anything takes.
HANG = 30.0

_CONTROL = re.compile(
    r"\x1b\[[0-9;?<>=]*[ -/]*[@-~]|\x1b[()][A-Z0-9]|\x1b[=>78]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"
)


class Terminal:
    """A program with a terminal of its own. Use it as a context manager."""

    def __init__(
        self, command: Sequence[str], vars: Mapping[str, str], *, columns: int = 80,
        cwd: Path | None = None,
    ) -> None:  # fmt: skip
        self.seen = ""
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            ioctl(0, TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            os.chdir(cwd or ".")
            os.execvpe(command[0], list(command), dict(vars))
        self._status: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)

    def type(self, keys: str) -> None:
        """Press keys; `\\r` is Enter."""
        os.write(self._fd, keys.encode())

    def until(self, text: str) -> str:
        """What is shown since the last time, less control sequences, up to and with `text`."""
        while text not in (shown := plain(self.seen)):
            assert select.select([self._fd], [], [], HANG)[0], f"{text!r} is not in {self.seen!r}"
            try:
                data = os.read(self._fd, 65536)
            except OSError:
                data = b""
            assert data, f"it ended, and {text!r} is not in {self.seen!r}"
            self.seen += data.decode(errors="replace")
        end = shown.index(text) + len(text)
        self.seen = shown[end:]
        return shown[:end]

    def wait(self) -> int:
        """Its exit status, once it has ended; what it shows meanwhile is in `seen`."""
        deadline = time.monotonic() + HANG
        while True:
            left = deadline - time.monotonic()
            assert left > 0, f"it does not end: {self.seen!r}"
            if not select.select([self._fd], [], [], left)[0]:
                continue
            try:
                data = os.read(self._fd, 65536)
            except OSError:  # Linux: the last user of the other side is gone
                break
            if not data:
                break
            self.seen += data.decode(errors="replace")
        _, status = os.waitpid(self.pid, 0)
        self._status = os.waitstatus_to_exitcode(status)
        return self._status


def plain(text: str) -> str:
    """Text without what drives a terminal."""
    return _CONTROL.sub("", text)
