"""kazoo's client, through which a Ctrl-C gets out: its own wakes the thread that sends inside of a
bare `except`, and takes what a signal raises there for a lost connection."""

from __future__ import annotations

from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import ConnectionClosedError
from kazoo.protocol.states import KeeperState

_OVER = (KeeperState.AUTH_FAILED, KeeperState.CLOSED, KeeperState.EXPIRED_SESSION)


class Client(KazooClient):  # type: ignore[misc]
    """What a `Connection` uses."""

    def _call(self, request: Any, asked: Any) -> Any:
        bell = self._connection._write_sock
        if bell is None or self._state in _OVER:
            return super()._call(request, asked)
        self._queue.append((request, asked))
        try:
            bell.send(b"\0")
        except OSError:  # closed meanwhile
            asked.set_exception(ConnectionClosedError("Connection has been closed"))
        return None
