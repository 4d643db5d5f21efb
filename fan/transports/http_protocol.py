"""The connections of the http server: uvicorn's, which are given up where a request does not come.

uvicorn gives up a connection that is unused after an answer. One that never asks, or stops within
a request, is held for ever: some thousands of them take all descriptors.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Seconds that a peer may take for the head of a request, from its connection or its first byte on.
GREETING: Final = 10.0

#: Seconds between two pieces of its body.
PATIENCE: Final = 30.0


class Protocol(HttpToolsProtocol):
    """One connection."""

    #: The same, for a server with another patience.
    greeting: float = GREETING
    patience: float = PATIENCE
    _giving_up: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for a request, but not for ever."""
        super().connection_made(transport)
        self._wait(self.greeting)

    def on_message_begin(self) -> None:
        """Its first byte is there."""
        self._wait(self.greeting)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its head is there."""
        self._wait(self.patience)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of its body is there."""
        self._wait(self.patience)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of it is there."""
        self._stop_waiting()
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._giving_up = self.loop.call_later(seconds, self._give_up, seconds)

    def _stop_waiting(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None

    def _give_up(self, seconds: float) -> None:
        self._giving_up = None
        if self.pipeline or self._is_answering:  # it is the request before that is not over
            self._wait(seconds)
        else:
            self.transport.close()

    @property
    def _is_answering(self) -> bool:
        """Whether a request that is all there has no answer yet."""
        cycle: Any = self.cycle  # None before the first one
        return cycle is not None and not (cycle.response_complete or cycle.more_body)
