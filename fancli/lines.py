"""Where the payloads of many calls come from: lines of stdin as they come, or the beats of a clock.

Both can be waked by another thread while they wait, and hold no lock that a thread could keep when
the program ends.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

from fancli.params import Usage

if TYPE_CHECKING:
    from fancli.env import Environment

#: Bytes that are read at once.
CHUNK = 1 << 16
#: A line that is longer is none: no transport takes as much.
MAX_LINE = 1 << 26


class Lines:
    """The lines of stdin that hold something, each with its number from 1, as soon as it is
    there."""

    def __init__(self, env: Environment, option: str) -> None:
        """Raises Usage for a stdin that is closed."""
        if env.stdin is None:
            raise Usage(f"{option}: cannot read stdin: stdin is closed")
        self._fd = env.stdin.fileno()
        self._option = option
        self._woken, self._wake = os.pipe()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Raises Usage for what cannot be read."""
        number, rest = 0, b""
        while chunk := self._read():
            *lines, rest = (rest + chunk).split(b"\n") if b"\n" in chunk else (rest + chunk,)
            if len(rest) > MAX_LINE:
                raise Usage(f"{self._option}: line {number + 1} is longer than {MAX_LINE} bytes")
            for line in lines:
                number += 1
                if line.strip():
                    yield number, line
        if rest.strip() and self._wake >= 0:
            yield number + 1, rest

    def _read(self) -> bytes:
        """What has come, empty at the end."""
        if self._wake < 0:
            return b""
        try:
            ready, _, _ = select.select([self._fd, self._woken], [], [])
            return b"" if self._woken in ready else os.read(self._fd, CHUNK)
        except (OSError, ValueError) as exc:
            why = getattr(exc, "strerror", None) or exc
            raise Usage(f"{self._option}: cannot read stdin: {why}") from None

    def wake(self) -> None:
        """Let whoever waits for a line see the end. Twice does no harm."""
        wake, self._wake = self._wake, -1
        if wake >= 0:
            os.close(wake)

    def close(self) -> None:
        """Release the pipe that wakes. Twice does no harm."""
        self.wake()
        woken, self._woken = self._woken, -1
        if woken >= 0:
            os.close(woken)


class Beats:
    """`count` beats, or endless ones, `interval` seconds apart, counted from the first; one that is
    late comes at once, and puts off those behind it."""

    def __init__(self, count: int | None, interval: float) -> None:
        from threading import Event

        self._count = count
        self._interval = interval
        self._stopped = Event()

    def __iter__(self) -> Iterator[int]:
        number, due = 0, time.monotonic()
        while self._count is None or number < self._count:
            wait = due - time.monotonic()
            if self._stopped.wait(wait) if wait > 0 else self._stopped.is_set():
                return
            number += 1
            yield number
            due = max(due + self._interval, time.monotonic() - self._interval)

    def wake(self) -> None:
        """Let it end. Twice does no harm."""
        self._stopped.set()
