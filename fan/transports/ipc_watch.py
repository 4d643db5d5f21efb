"""Sees to it that a slow handler does not keep the thread that reads a shared ipc connection."""

from __future__ import annotations

import threading
import time
from typing import Protocol

#: Seconds between two looks, and how many a handler may be seen at before it counts as stalled:
#: counted, so that a machine that is too busy for anybody's turn makes no handler slow.
TICK = 0.004
LOOKS = 2
# Looks in a row that find nothing served before it sleeps.
_LULL = 50


class Reader(Protocol):
    """A thread that reads a connection and runs the handlers itself."""

    #: How often it was looked at since its present handler began.
    looks: int

    def relieve(self) -> None:
        """Have another thread read on, unless the handler has come back meanwhile."""


class Watch:
    """One thread per listener, begun at the first use. While nothing is served it sleeps."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._readers: set[Reader] = set()
        self._was_busy = False
        #: Whether nothing was served of late.
        self.is_asleep = True
        self._bell = threading.Event()
        self._is_closed = False

    def enter(self, reader: Reader) -> None:
        """It begins to run handlers."""
        self._readers.add(reader)
        self._was_busy = True
        if self.is_asleep:
            self._wake()

    def leave(self, reader: Reader) -> None:
        """It has come back from the last one."""
        self._readers.discard(reader)

    def close(self) -> None:
        """End the thread. Twice does no harm."""
        with self._lock:
            self._is_closed = True
            thread = self._thread
        self._bell.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _wake(self) -> None:
        with self._lock:
            if self._thread is None and not self._is_closed:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                thread.start()
                self._thread = thread
        self._bell.set()

    def _run(self) -> None:
        while not self._is_closed:
            self.is_asleep = False
            self._bell.clear()
            quiet = 0
            while quiet < _LULL and not self._is_closed:
                time.sleep(TICK)
                quiet = 0 if self._was_busy else quiet + 1
                self._was_busy = bool(self._readers)
                self._look()
            self.is_asleep = True
            if not (self._was_busy or self._readers):  # who came before the line above rang not
                self._bell.wait()

    def _look(self) -> None:
        for reader in tuple(self._readers):
            reader.looks += 1
            if reader.looks > LOOKS:
                reader.relieve()
