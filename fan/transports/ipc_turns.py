"""Whose turn it is, of the threads of a process that call one server over ipc.

An interpreter runs one of its threads at a time, so many threads with short calls spend most of
their time on putting each other to sleep and waking up. Here they take turns: who has the turn
sends, looks for the answer for the time of a short call (`ipc_spin`), and has it before the next
one comes. All use one connection so, on whose other end one thread does the same.

The others stand in line. To wake one costs as much as a call: so who comes back at once makes a few
calls in a row before the turn is passed on.

A call that takes longer gives its turn away, and goes on asleep, beside others. Where more than a
few are like that, everybody goes without turns for a while, and those in line with them. So it is
where turns take long for want of the interpreter. A turn is a courtesy, and nothing
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
QUICK = 150e-6
#: Who comes back in so many seconds makes so many more calls in a row.
SOON = 50e-6
IN_A_ROW = 4
# Seconds after which who is first in line looks whether the turn was left lying; the second after
# twice as many, and so on.
_LOOK = 400e-6
# Luck is the answers in time, less so many for each that was not; without any, turns are off for so
# many calls. A hiccup of a millisecond is no reason, and calls that are still under way without
# turns when they are on again are none.
_MOST_LUCK, _BAD_LUCK = 256, 16
# Each of so many seconds that a turn took, with being woken for it, is as bad as one more, up to so
# many: beside a thread that computes, each wait for the interpreter takes 5 ms, and those in line
# would have them one after the other instead of side by side.
_HICCUP, _MOST_HICCUPS = 1e-3, 7
# Each time for twice as many, until so many answers in a row were in time.
_PAUSE, _LONGEST_PAUSE = 64, 1024
_GOOD = 64


class Turns:
    """The turns of one address. All but the line belongs to who has the turn."""

    __slots__ = (
        "_calls", "_ended", "_free", "_good", "_is_back", "_last", "_line", "_luck", "_next_pause",
        "_pause", "_since",
    )  # fmt: skip

    def __init__(self) -> None:
        #: Held while somebody has the turn.
        self._free = threading.Lock()
        #: Who waits, each by a lock that is released for who gets the turn.
        self._line: deque[threading.Lock] = deque()
        #: Who had the last turn, and until when.
        self._last, self._ended = 0, 0.0
        #: Since when somebody has the turn.
        self._since = 0.0
        #: Whether who has the turn came for it right behind the last, and the calls since.
        self._is_back, self._calls = False, 0
        self._luck, self._good = _MOST_LUCK, 0
        #: Calls that go without turns.
        self._pause, self._next_pause = 0, _PAUSE

    @property
    def is_wanted(self) -> bool:
        """Whether others are in line."""
        return bool(self._line)

    def take(self, seconds: float) -> bool:
        """Whether this call has the turn, which has to be ended. `seconds` is what it has left."""
        if self._pause > 0:  # threads may meet here
            self._pause -= 1
            return False
        now = time.monotonic()
        is_back = self._last == threading.get_ident() and now - self._ended < SOON
        if self._free.acquire(blocking=False):
            self._since = now
            self._calls = self._calls + 1 if is_back else 0
        elif self._wait(min(PATIENCE, seconds * PART)):
            self._calls = 0
        else:
            return False
        self._is_back = is_back
        return True

    def end(self, *, was_quick: bool) -> None:
        """Let others have their turn."""
        if self._line:
            now = time.monotonic()
            self._judge(was_quick, now - self._since)
            self._last, self._ended = threading.get_ident(), now
            if not self._is_back or self._calls >= IN_A_ROW or self._pause > 0:
                self._since = now
                try:
                    self._line.popleft().release()
                    return
                except IndexError:  # they gave up meanwhile
                    pass
        self._free.release()

    def _wait(self, patience: float) -> bool:
        """Stand in line; whether the turn came."""
        until = time.monotonic() + patience
        mine = threading.Lock()
        mine.acquire()
        try:
            self._line.append(mine)
            look = _LOOK * len(self._line)
            while not mine.acquire(timeout=max(min(look, until - time.monotonic()), 0)):
                if self._free.acquire(blocking=False):  # and nobody passes it on, but who has it
                    self._since = time.monotonic()
                    self._line.remove(mine)
                    return True
                if (now := time.monotonic()) >= until:
                    if now - self._since > PATIENCE:  # whoever has it is at something long, or gone
                        self._pause = _LONGEST_PAUSE
                    return self._leave(mine)
                if self._pause > 0:  # a line that moves slowly is not to be waited out
                    return self._leave(mine)
                look = _LOOK
        except BaseException:  # Ctrl-C
            if self._leave(mine):
                self._free.release()
            raise
        return True

    def _leave(self, mine: threading.Lock) -> bool:
        """Leave the line; whether the turn came before. It is ours from when we were taken out."""
        try:
            self._line.remove(mine)
        except ValueError:
            return True
        return False

    def _judge(self, was_quick: bool, seconds: float) -> None:
        hiccups = min(int(seconds / _HICCUP), _MOST_HICCUPS)
        if was_quick and not hiccups:
            self._luck = min(self._luck + 1, _MOST_LUCK)
            self._good += 1
            if self._good == _GOOD:
                self._next_pause = _PAUSE
            return
        self._good = 0
        self._luck -= _BAD_LUCK * (1 + hiccups)
        if self._luck < 0:
            self._luck = _MOST_LUCK
            self._pause = self._next_pause
            self._next_pause = min(self._next_pause * 2, _LONGEST_PAUSE)
