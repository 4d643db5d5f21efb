"""The busy wait of the ipc transport: a look for what comes before a thread goes to sleep for it.

Going to sleep and being woken costs more than a short call itself does.
"""

from __future__ import annotations

import _socket
import os
import threading
import time
from typing import Literal

from fan import forks

#: Seconds of one look: what a short call takes when its peer has to be woken.
LOOK = 200e-6
# After so many vain looks in a row one is made every 64 times.
_MOST_VAIN = 6
# One thread of a process looks at a time for an answer, and one for a request, so that they do not
# take the processors from each other.
_looking = {"answer": threading.Lock(), "request": threading.Lock()}


def _forked() -> None:
    for what in _looking:
        _looking[what] = threading.Lock()


forks.in_child("values", _forked)


class Spin:
    """The looks at one connection, which come seldom once they are in vain."""

    __slots__ = ("_pause", "_vain", "_what")

    def __init__(self, what: Literal["answer", "request"]) -> None:
        self._what = what
        self._vain = self._pause = 0

    def is_due(self) -> bool:
        """Whether to look this time; to be asked once a time."""
        if self._pause:
            self._pause -= 1
            return False
        return True

    def receive(self, sock: _socket.socket, into: memoryview, seconds: float = LOOK) -> int:
        """The bytes that came, 0 where the peer closed, -1 where nothing came. A look that is cut
        short says nothing of those to come. Raises OSError."""
        looking = _looking[self._what]
        if not looking.acquire(blocking=False):
            return -1
        try:
            receive, now, until = sock.recv_into, time.monotonic, time.monotonic() + seconds
            while True:
                try:
                    count = receive(into, 0, _socket.MSG_DONTWAIT)
                except BlockingIOError:
                    if now() > until:
                        if seconds >= LOOK:
                            self._vain = min(self._vain + 1, _MOST_VAIN)
                            self._pause = (1 << self._vain) - 1
                        return -1
                    os.sched_yield()  # whoever answers may want this very processor
                else:
                    self._vain = 0
                    return count
        finally:
            looking.release()
