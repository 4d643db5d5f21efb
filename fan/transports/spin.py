"""When a thread looks for what comes before it goes to sleep for it.

Going to sleep and being woken costs more than a short call itself does, most of all where the
processor went to sleep with the thread. So who expects something looks for a moment, as long as
that is not in vain.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")

# After so many vain looks in a row one is made every 64 times.
_MOST_VAIN = 6


class Spin:
    """The looks at one place, which come seldom once they are in vain."""

    __slots__ = ("_pause", "_vain")

    def __init__(self) -> None:
        self._vain = self._pause = 0

    def is_due(self) -> bool:
        """Whether to look this time; to be asked once a time."""
        if self._pause:
            self._pause -= 1
            return False
        return True

    def look(
        self, find: Callable[[], Found], seconds: float, *, is_cut: bool = False
    ) -> Found | None:
        """What `find` finds within so many seconds, as soon as that is true. What is found later
        was found in vain: other threads keep the interpreter, and want no more of them. A look
        that is cut short says nothing of those to come."""
        until = time.monotonic() + seconds
        while not (found := find()) and time.monotonic() < until:
            os.sched_yield()  # whoever answers may want this very processor
        if time.monotonic() < until:
            self.came()
        elif not is_cut:
            self.came_not()
        return found or None

    def sit_out(self) -> None:
        """Do not look the next time, whatever comes of others."""
        self._pause += 1

    def came(self) -> None:
        """The look was not in vain."""
        self._vain = 0

    def came_not(self) -> None:
        """The look was in vain."""
        self._vain = min(self._vain + 1, _MOST_VAIN)
        self._pause = (1 << self._vain) - 1
