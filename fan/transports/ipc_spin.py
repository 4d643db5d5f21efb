"""The busy wait of the ipc transport, for the answer or the next request of a connection that
carries one call at a time."""

from __future__ import annotations

import _socket
import os
import threading
import time
from typing import Literal

from fan import forks
from fan.transports.spin import Spin

#: Seconds of one look: what a short call takes when its peer has to be woken.
LOOK = 200e-6
# One thread of a process looks at a time for an answer, and one for a request, so that they do not
# take the processors from each other.
_looking = {"answer": threading.Lock(), "request": threading.Lock()}


def _forked() -> None:
    for what in _looking:
        _looking[what] = threading.Lock()


forks.in_child("values", _forked)


class Receiver(Spin):
    """The looks at one connection."""

    __slots__ = ("_what",)

    def __init__(self, what: Literal["answer", "request"]) -> None:
        super().__init__()
        self._what = what

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
                            self.came_not()
                        return -1
                    os.sched_yield()  # whoever answers may want this very processor
                else:
                    self.came()
                    return count
        finally:
            looking.release()
