"""Whose turn it is, of the threads of a process that call one server over ipc.

An interpreter runs one of its threads at a time, so many threads with short calls spend most of
their time on putting each other to sleep and waking up. Here they take turns: who has the turn
sends, looks for the answer for the time of a short call (`ipc_spin`), and has it before the next
one comes. All use one connection so, on whose other end one thread does the same.

The others stand in line. To wake one costs as much as a call: so who comes back at once makes a few
calls in a row before the turn is passed on.

A call that takes longer gives its turn away, and goes on asleep, beside others. Where more than a
few are like that, everybody goes without turns for a while. A turn is a courtesy, and nothing
depends on it: who cannot have one soon goes without, and so do all where one was not given back.
"""

from __future__ import annotations

import threading
import time
from collections import deque

#: Seconds in line at most, and the part of its time that a call waits there at most.
PATIENCE = 0.1
PART = 0.1
#: Seconds that a turn waits for the answer while others are in line.
QUICK = 100e-6
#: Who comes back in so many seconds makes so many calls in a row.
SOON = 50e-6
IN_A_ROW = 8
# Seconds until who is first in line looks whether the turn was left lying.
_LOOK = 300e-6
# Luck is the answers in time, less so many for each that was not; without any, turns are off for
# so many calls, the next time for twice as many.
_MOST_LUCK, _BAD_LUCK = 64, 16
_PAUSE, _LONGEST_PAUSE = 64, 1024


class Turns:
    """The turns of one address. What is not about the line belongs to who has the turn."""

    __slots__ = (
        "_calls", "_door", "_ended", "_free", "_is_back", "_last", "_line", "_luck", "_next_pause",
        "_passed", "_pause",
    )  # fmt: skip

    def __init__(self) -> None:
        #: Free to take; or passed to who is first in line; or neither, while somebody has it.
        self._free = threading.Lock()
        self._passed = _locked()
        #: Who waits, by a lock that is released for who comes to be the first. The door is held
        #: while that changes.
        self._line: deque[threading.Lock] = deque()
        self._door = threading.Lock()
        #: Who had the last turn, and until when.
        self._last, self._ended = 0, 0.0
        #: Whether who has the turn came for it right behind the last, and the calls since.
        self._is_back, self._calls = False, 0
        self._luck = _MOST_LUCK // 2
        #: Calls that go without turns.
        self._pause, self._next_pause = 0, _PAUSE

    @property
    def is_wanted(self) -> bool:
        """Whether others are in line."""
        return bool(self._line)

    def take(self, seconds: float) -> bool:
        """Whether this call has the turn, which has to be ended. `seconds` is what it has left."""
        if self._pause:
            self._pause -= 1
            return False
        is_back = self._last == threading.get_ident() and time.monotonic() - self._ended < SOON
        if self._free.acquire(blocking=False):
            self._calls = self._calls + 1 if is_back else 0
        elif self._wait(min(PATIENCE, seconds * PART)):
            self._calls = 0
        else:
            return False
        self._is_back = is_back
        return True

    def end(self, *, was_quick: bool) -> None:
        """Let others have their turn."""
        if not self._line:
            self._free.release()
            return
        self._judge(was_quick)
        self._last, self._ended = threading.get_ident(), time.monotonic()
        if self._is_back and self._calls < IN_A_ROW:
            self._free.release()
        else:
            self._passed.release()

    def _wait(self, patience: float) -> bool:
        """Stand in line; whether the turn came."""
        until = time.monotonic() + patience
        mine = _locked()
        with self._door:
            is_first = not self._line
            self._line.append(mine)
        try:
            if not is_first and not mine.acquire(timeout=patience):
                return False
            while not self._pause:
                if self._passed.acquire(timeout=_LOOK) or self._free.acquire(blocking=False):
                    return True
                if time.monotonic() > until:  # whoever has it is at something long, or gone
                    self._pause = _LONGEST_PAUSE
            return False
        finally:
            with self._door:
                was_first = self._line[0] is mine
                self._line.remove(mine)
                if was_first and self._line:
                    self._line[0].release()

    def _judge(self, was_quick: bool) -> None:
        if was_quick:
            self._luck += 1
            if self._luck > _MOST_LUCK:
                self._luck, self._next_pause = _MOST_LUCK, _PAUSE
            return
        self._luck -= _BAD_LUCK
        if self._luck < 0:
            self._luck = _BAD_LUCK
            self._pause = self._next_pause
            self._next_pause = min(self._next_pause * 2, _LONGEST_PAUSE)


def _locked() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock
