"""What waits for a thread, each with a deadline at which its caller is told."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable


class Place:
    """The turn of one job: whoever claims it first, the thread that runs it or the clock."""

    __slots__ = ("_tell", "_turn")

    def __init__(self, tell: Callable[[], None]) -> None:
        self._turn = threading.Lock()
        self._tell: Callable[[], None] | None = tell

    def claim(self) -> bool:
        """Whether the turn is the caller's. What was to be told is let go of, with all it holds."""
        if not self._turn.acquire(blocking=False):
            return False
        self._tell = None
        return True

    def expire(self) -> None:
        """The deadline passed: tell, unless the job has begun."""
        tell = self._tell
        if self.claim() and tell is not None:
            tell()


class Waiting:
    """Places by deadline, and a thread that watches them for as long as there are any.

    A fork starts with none."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Place]] = []
        self._count = itertools.count()
        self._thread: threading.Thread | None = None

    def add(self, deadline: float, place: Place) -> None:
        """Expire `place` at `deadline` of time.monotonic."""
        if self._pid != os.getpid():
            self._reset()
        with self._changed:
            heapq.heappush(self._heap, (deadline, next(self._count), place))
            if self._thread is None:
                thread = threading.Thread(target=self._watch, name="fan-http-clock", daemon=True)
                thread.start()
                self._thread = thread
            elif self._heap[0][2] is place:
                self._changed.notify()

    def _watch(self) -> None:
        while True:
            with self._changed:
                if not self._heap:
                    self._thread = None
                    return
                left = self._heap[0][0] - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                place = heapq.heappop(self._heap)[2]
            place.expire()

    def close(self) -> None:
        """Tell everybody now, and end the thread. Twice does no harm."""
        if self._pid != os.getpid():
            self._reset()
        with self._changed:
            places = [place for _, _, place in self._heap]
            self._heap.clear()
            thread = self._thread
            self._changed.notify()
        for place in places:
            place.expire()
        if thread is not None and thread is not threading.current_thread():
            thread.join(1.0)
