"""Keeps what a lane has in hand from being thought lost, and takes over what others lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from fan.errors import FanError
from fan.transports.redis_keys import LATER, PRIVATE, Keys, Source
from fan.transports.redis_lane import Lane
from fan.transports.redis_loop import Loop, Timer
from fan.transports.redis_pipe import Pipe
from fan.transports.redis_resp import Reply
from fan.transports.redis_scripts import CLAIM, RENEW, TRIM

#: Seconds between two looks at most; with a short lease they come more often.
TICK = 1.0
#: Seconds between two looks at what a topic can do without.
TRIMMING = 5.0
#: Milliseconds after which a stream of calls that nobody takes from is dropped.
EXPIRY = 120_000


class Keeper:
    """The looks of one lane. All of it happens in the loop's thread."""

    def __init__(
        self, loop: Loop, pipe: Pipe, keys: Keys, lane: Lane, lease: float,
        spare: Callable[[], object],
    ) -> None:  # fmt: skip
        self._loop = loop
        self._pipe = pipe
        self._keys = keys
        self._lane = lane
        self._lease = lease
        #: Called to offer what has no place to others.
        self._spare = spare
        self._tick = min(TICK, lease / 4)
        self._timer: Timer | None = None
        self._renewed_at = time.monotonic()
        self._trimmed_at = 0.0
        #: Whom the last look found dead, by stream: the next one is sure.
        self._dead: dict[str, list[bytes]] = {}
        self._dead_groups: dict[str, list[bytes]] = {}
        self._looking: set[str] = set()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Keeper of {self._lane!r}>"

    def begin(self) -> None:
        """Look from now on."""
        if self._timer is None and not self._is_closed:
            self._timer = self._loop.later(self._tick, self._turn)

    def close(self) -> None:
        """Look no more."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()

    def look(self, source: Source) -> None:
        """Take over what is due again, and what was left."""
        if self._is_closed or source.stream in self._looking or source not in self._lane.sources:
            return
        if not self._lane.expect():
            return
        self._looking.add(source.stream)

        def done(result: list[Reply] | FanError) -> None:
            self._looking.discard(source.stream)
            if isinstance(result, FanError) or not isinstance(result[0], list):
                self._lane.add(source, ())  # the lane sees that its stream is not there
                return
            entries, self._dead[source.stream], wait = result[0]
            self._lane.add(source, entries)
            if 0 <= wait < self._tick * 1000 and self._lane.free > 0:
                self._loop.later(wait / 1000 + 0.002, lambda: self.look(source))

        is_call = source.kind == "call"
        keys = (source.stream, source.later, source.hand if is_call else "")
        args = (
            self._lane.group, self._lane.consumer, int(self._lease * 1000),
            max(0, self._lane.free), EXPIRY if is_call else 0, self._keys.up(), LATER,
            *self._dead.get(source.stream, ()),
        )  # fmt: skip
        self._pipe.run(CLAIM, keys, args, done)

    def _turn(self) -> None:
        self._timer = None
        if self._is_closed:
            return
        self._timer = self._loop.later(self._tick, self._turn)
        if not self._pipe.is_open and not self._lane.is_open:
            return  # the lane sees to it that it comes back
        self._spare()
        now = time.monotonic()
        if now - self._renewed_at >= self._lease / 4:
            self._renewed_at = now
            self._renew()
        for source in self._lane.sources:
            self.look(source)
        if now - self._trimmed_at >= TRIMMING:
            self._trimmed_at = now
            self._trim(self._lane.sources)

    def _renew(self) -> None:
        by_stream: dict[str, list[bytes | int]] = {}
        for (stream, number), message in self._lane.in_hand.items():
            if not message.is_taken and not message.is_given_up:
                by_stream.setdefault(stream, []).extend((number, message.deliveries))
        for stream, pairs in by_stream.items():
            args = (self._lane.group, self._lane.consumer, *pairs)
            self._pipe.run(RENEW, (stream,), args, lambda result: None)

    def _trim(self, sources: Sequence[Source]) -> None:
        for source in sources:
            if source.kind == "event":
                self._trim_one(source.stream)

    def _trim_one(self, stream: str) -> None:
        def done(result: list[Reply] | FanError) -> None:
            if isinstance(result, list) and isinstance(result[0], list):
                self._dead_groups[stream] = result[0]

        args = (self._keys.up(), PRIVATE, *self._dead_groups.get(stream, ()))
        self._pipe.run(TRIM, (stream,), args, done)
