"""A program that ends with us, however we end: see `fancli.guard`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

from fancli import guard

#: Seconds beyond the grace that the guard itself may take.
_SLACK = 10.0


class Guarded:
    """A running program, in a process group of its own unless it `shares` ours: one that reads our
    terminal has to, and gets its Ctrl-C from there."""

    def __init__(
        self, command: Sequence[str], vars: Mapping[str, str], *, grace: float, shares: bool
    ) -> None:
        self._grace = grace
        self.shares = shares
        lifeline, self._lifeline = os.pipe()
        self._news, news = os.pipe()
        given = [str(lifeline), str(news), str(grace), "0" if shares else "1", *command]
        try:
            # The news pipe closes with the guard, which hands it to nobody.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", os.path.abspath(guard.__file__), *given],
                env=dict(vars),
                pass_fds=(lifeline, news),
                process_group=None if shares else 0,
            )
        except BaseException:
            os.close(self._lifeline)
            os.close(self._news)
            raise
        finally:
            os.close(lifeline)
            os.close(news)

    def __repr__(self) -> str:
        return f"<Guarded guard={self._process.pid} status={self._process.poll()}>"

    def fileno(self) -> int:
        """Readable when it has ended, for `select`."""
        return self._news

    def send(self, number: int) -> None:
        """Pass a signal on."""
        with suppress(OSError):
            os.write(self._lifeline, bytes([number]))

    def stop(self) -> int:
        """Have it end: SIGTERM, and SIGKILL after the grace. Its exit status."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        return self._wait(self._grace + _SLACK)

    def _wait(self, timeout: float) -> int:
        """Its exit status: 128 and the number of the signal that ended it, as of a shell. A guard
        that does not come back, which only a stuck kernel can bring about, is given up."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            self._close()

    def _close(self) -> None:
        for fd in (self._lifeline, self._news):
            if fd >= 0:
                with suppress(OSError):
                    os.close(fd)
        self._lifeline = self._news = -1
