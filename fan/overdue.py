"""Notices handlers that do not come back in the time of their delivery, and wakes what waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import count

#: Seconds without anything to watch after which the thread ends.
IDLE = 10.0


class Watch:
    """Calls back for what is not done at its time, from a thread that is there while anything is
    watched. What is called must not wait: all others wait for it."""

    #: Seconds beyond its time after which a handler counts as one that does not come back.
    grace = 1.0

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watched: dict[int, tuple[float, Callable[[], object]]] = {}
        self._numbers = count()
        self._thread: threading.Thread | None = None
        self._wakes_at = 0.0
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Watch of {len(self._watched)}>"

    def add(self, deadline: float, then: Callable[[], object]) -> int:
        """Call `then` at that point of `time.monotonic()`, unless the number that this gives is
        dropped before."""
        with self._changed:
            number = next(self._numbers)
            self._watched[number] = deadline, then
            if self._thread is None and not self._is_closed:
                thread = threading.Thread(target=self._run, name="fan-overdue", daemon=True)
                thread.start()
                self._thread, self._wakes_at = thread, 0.0
            elif deadline < self._wakes_at:
                self._changed.notify()
            return number

    def drop(self, number: int) -> None:
        """It is done. Once this returns nothing is called for it any more."""
        with self._changed:
            self._watched.pop(number, None)

    def close(self) -> None:
        """End the thread. Twice does no harm."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        idle_since = time.monotonic()
        with self._changed:
            while not self._is_closed:
                now = time.monotonic()
                self._call(now)
                if self._watched:
                    idle_since = now
                    self._wakes_at = min(when for when, _ in self._watched.values())
                elif now >= idle_since + IDLE:
                    self._thread = None
                    return
                else:
                    self._wakes_at = idle_since + IDLE
                self._changed.wait(max(0.0, self._wakes_at - now))

    def _call(self, now: float) -> None:
        for number in [n for n, (when, _) in self._watched.items() if when <= now]:
            _, then = self._watched.pop(number)
            try:
                then()
            except Exception:
                import logging

                logging.getLogger("fan").exception("an overdue handler could not be told of")
