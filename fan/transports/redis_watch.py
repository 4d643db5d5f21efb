"""Looks after calls that take long: whether who took them still lives, and whether anybody will.

A call that was acknowledged is in no queue any more, so when its worker is killed nobody but the
caller is left to notice. Redis knows at once (`redis_keys`: the channels), and is asked twice a
second about calls that are older than that.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from fan.errors import FanError
from fan.transports.redis_failures import forsaken, unroutable
from fan.transports.redis_keys import Keys, Source
from fan.transports.redis_loop import Loop, Timer
from fan.transports.redis_pipe import Pipe
from fan.transports.redis_resp import Refusal, Reply
from fan.transports.redis_scripts import WHERE, WITHDRAW

if TYPE_CHECKING:
    from fan.transports.redis_calls import Calls
    from fan.transports.redis_pending import Pending

#: Seconds between two looks, and the age of a call that is looked at.
PERIOD = 0.4
#: Calls that one look asks about; with more they take turns.
MOST = 200
#: What a look finds that ends a call when the next one finds it too: a reply may be on its way.
_BAD = frozenset({b"alone", b"dead", b"gone"})


class Watch:
    """The looks at the calls of one process to one Redis."""

    def __init__(self, loop: Loop, pipe: Pipe, keys: Keys, calls: Calls) -> None:
        self._loop = loop
        self._pipe = pipe
        self._keys = keys
        self._calls = calls
        self._lock = threading.Lock()
        #: The next look: there is one as long as there are calls, and never two.
        self._timer: Timer | None = None
        self._is_closed = False
        self._turn = 0

    def begin(self) -> None:
        """There is a call, among those that are pending already."""
        if self._timer is None:
            self._plan()

    def close(self) -> None:
        """Look no more."""
        with self._lock:
            self._is_closed = True
            if self._timer is not None:
                self._timer.cancel()

    def _plan(self) -> None:
        with self._lock:
            if self._timer is None and not self._is_closed:
                self._timer = self._loop.later(PERIOD, self._look)

    # In the loop's thread

    def _look(self) -> None:
        with self._lock:
            self._timer = None
        # Read after that, so that who begins meanwhile is seen here or plans the next look itself.
        pending = list(self._calls.pending.values())
        if not pending:
            return
        self._plan()
        now = time.monotonic()
        for call in pending:
            if call.deadline < now - PERIOD:  # of a task whose event loop hangs, or has ended
                self._calls.expire(call)
        before = now - PERIOD
        old = [call for call in pending if call.began < before and call.entry]
        if not old:
            return
        if len(old) > MOST:
            self._turn = (self._turn + MOST) % len(old)
            old = (old + old)[self._turn : self._turn + MOST]
        by_source: dict[Source, list[Pending]] = {}
        for call in old:
            by_source.setdefault(call.source, []).append(call)
        for source, calls in by_source.items():
            self._ask(source, calls)

    def _ask(self, source: Source, calls: list[Pending]) -> None:
        def judge(result: list[Reply] | FanError) -> None:
            if isinstance(result, list) and isinstance(result[0], list):
                for call, state in zip(calls, result[0], strict=True):
                    self._judge(call, state)
            elif isinstance(result, list) and isinstance(result[0], Refusal):
                for call in calls:  # the key is no stream any more, say
                    self._judge(call, b"gone")

        entries = [call.entry for call in calls]
        args: list[bytes | str] = [source.group, self._keys.up(), source.at, *entries]
        self._pipe.run(WHERE, (source.stream, source.hand), args, judge)

    def _judge(self, call: Pending, state: bytes) -> None:
        if state not in _BAD or not self._calls.can_hear:
            call.suspicion = b""
        elif call.suspicion != state:
            call.suspicion = state
        elif state == b"alone":
            self._withdraw(call)
        else:
            why = forsaken(self._calls.place.url, call.request.service)
            self._calls.finish(call, why)

    def _withdraw(self, call: Pending) -> None:
        def done(result: list[Reply] | FanError) -> None:
            if isinstance(result, list) and result[0] == 1:
                self._calls.finish(call, unroutable(call.request, self._calls.place.url))

        source = call.source
        self._pipe.run(WITHDRAW, (source.stream,), (source.group, call.entry), done)
