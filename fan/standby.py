"""Services that lost their place: since the registry gave the session of this process up another
instance has their id, or is the one of a `unique` service. They rest until the place is their own
again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fan.hosting import Hosted
from fan.model import Instance

if TYPE_CHECKING:
    from fan.app import App

#: Seconds between two looks whether what such a service still handles has ended.
_LOOK = 0.02


class Standby:
    """Who of one App rests. `hold` has a service take nothing more, `end` stops one that nothing is
    in flight of any more, and `begin` brings one up again."""

    def __init__(
        self,
        app: App,
        hold: Callable[[Hosted], None],
        end: Callable[[Hosted], None],
        begin: Callable[[Hosted], None],
    ) -> None:
        self._app = app
        self._hold = hold
        self._end = end
        self._begin = begin
        #: Held while one goes or comes.
        self._turn = threading.Lock()
        self._is_closed = threading.Event()
        self._is_closed.set()

    def __repr__(self) -> str:
        return f"<Standby resting={[one.name for one in self.resting]}>"

    @property
    def resting(self) -> list[Hosted]:
        """The services that rest."""
        return [one for one in self._app.services if one.is_ousted]

    def open(self) -> None:
        """Listen to the registry from now on."""
        self._is_closed.clear()
        self._app.discovery.on_place = self._told

    def close(self, timeout: float) -> None:
        """Have nobody go or come any more; waits at most `timeout` seconds for who is about to."""
        self._is_closed.set()
        if self._turn.acquire(timeout=timeout):
            self._turn.release()

    def _told(self, instance: Instance, has_place: bool) -> None:
        one = next((h for h in self._app.services if h.instance_id == instance.id), None)
        if one is None:
            return
        with self._turn:
            if self._is_closed.is_set() or one.is_ousted is not has_place:
                return
            if has_place:
                one.is_ousted = False
                self._begin(one)
            else:
                one.is_ousted = True
                self._hold(one)
                self._wait_idle(one)
                self._end(one)

    def _wait_idle(self, one: Hosted) -> None:
        until = time.monotonic() + self._app.settings.drain_timeout
        while one.flying and time.monotonic() < until and not self._is_closed.wait(_LOOK):
            pass
        if one.flying and not self._is_closed.is_set():
            _log().error("%s goes on with what it has begun, without its place", one.name)


def _log() -> Any:
    import logging

    return logging.getLogger("fan")
