"""What one process has at one Redis, each part made when it is first needed."""

from __future__ import annotations

import threading

from fan.context import new_id
from fan.errors import Unavailable
from fan.transports.redis_calls import Calls
from fan.transports.redis_keys import Keys
from fan.transports.redis_loop import Loop
from fan.transports.redis_outbox import Outbox
from fan.transports.redis_pipe import Pipe
from fan.transports.redis_place import Place
from fan.transports.redis_presence import Presence

#: Seconds that a close waits for threads which connect.
FAREWELL = 1.0


class Hub:
    """The connections of a process to one Redis: one for commands; one for replies, if it calls;
    one that shows that it lives, if it serves. Those that read streams belong to their
    listeners."""

    def __init__(self, loop: Loop, place: Place, keys: Keys, max_body: int) -> None:
        self.loop = loop
        self.place = place
        self.keys = keys
        self.pipe = Pipe(loop, place)
        self.presence = Presence(loop, place, self.pipe.news)
        self.outbox = Outbox(loop, self.pipe, keys)
        self._max_body = max_body
        self._calls: Calls | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Hub {self.place.url} {'closed' if self._is_closed else 'open'}>"

    @property
    def calls(self) -> Calls:
        """The calling side."""
        calls = self._calls
        return calls if calls is not None else self._make_calls()

    def _make_calls(self) -> Calls:
        with self._lock:
            if self._is_closed:
                raise Unavailable("this transport is closed", reason="connect_failed")
            if self._calls is None:
                self._calls = Calls(
                    self.loop, self.place, self.pipe, self.keys, new_id()[:16], self._max_body
                )
            return self._calls

    def close(self) -> None:
        """Fail what is under way and release every connection. In the loop's thread."""
        with self._lock:
            self._is_closed = True
        if self._calls is not None:
            self._calls.close()
        self.presence.close()
        self.pipe.close()

    def wait_closed(self) -> None:
        """Wait for the threads that were connecting."""
        for part in (self._calls, self.presence, self.pipe):
            if part is not None:
                part.wait_closed(FAREWELL)

    def abandon(self) -> None:
        """In a forked child: leave the connections to the parent."""
        for part in (self._calls, self.presence, self.pipe):
            if part is not None:
                part.abandon()
