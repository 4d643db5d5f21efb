"""The list of replies to one process, read by one connection, many replies at a time."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

from fan.errors import FanError
from fan.transports.redis_failures import failure_of
from fan.transports.redis_line import Line
from fan.transports.redis_loop import Loop
from fan.transports.redis_news import News
from fan.transports.redis_place import Place
from fan.transports.redis_resp import Refusal, Reply, pack

#: Seconds that Redis waits for a reply before it says that there is none: a sign of life.
BLOCK = 10
#: Replies taken at once.
COUNT = 1000
#: Seconds before a connection that was lost is tried again: at first, and at most.
FIRST_PAUSE, LAST_PAUSE = 0.02, 1.0


class Backoff:
    """Growing pauses with jitter, so that all clients of a Redis that comes back do not come at
    once."""

    def __init__(self) -> None:
        self._pause = FIRST_PAUSE

    def next(self) -> float:
        """Seconds to wait now."""
        pause, self._pause = self._pause, min(LAST_PAUSE, 2 * self._pause)
        return pause * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """It went well."""
        self._pause = FIRST_PAUSE


class Replies:
    """Hands what comes on the list to `got`. The connection is opened by `want`, and kept."""

    def __init__(
        self, loop: Loop, place: Place, key: str, news: News, got: Callable[[list[bytes]], object]
    ) -> None:
        self.is_wanted = False
        self._loop = loop
        self._line = Line(loop, place, self)
        self._place = place
        self._ask = pack("BLMPOP", BLOCK, 1, key, "LEFT", "COUNT", COUNT)
        self._got = got
        self._news = news
        #: What Redis said last, where it does not let us read.
        self._refusal = ""
        self._backoff = Backoff()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Replies {self._line!r}>"

    @property
    def is_open(self) -> bool:
        """Whether replies can come now."""
        return self._line.is_open

    def want(self) -> None:
        """Open the connection, and keep it."""
        self.is_wanted = True
        self._loop.soon(self._line.open)

    def close(self) -> None:
        """Close it for good. In the loop's thread, or after it."""
        self._is_closed = True
        self._line.close()

    def abandon(self) -> None:
        """In a forked child: leave the connection to the parent."""
        self._line.abandon()

    def wait_closed(self, timeout: float) -> None:
        """Wait for what the connection left running."""
        self._line.wait_closed(timeout)

    # In the loop's thread

    def line_opened(self) -> None:
        self._news.back()
        self._line.write(self._ask)

    def line_got(self, replies: list[Reply]) -> None:
        for reply in replies:
            if isinstance(reply, Refusal):
                self._refused(reply)
                return
            self._backoff.reset()
            self._refusal = ""
            self._line.write(self._ask)  # first, so that Redis has it while we are at these
            if reply is not None:
                self._got(reply[1])

    def line_failed(self, why: FanError) -> None:
        self._again()

    def line_lost(self, why: str) -> None:
        if not self._refusal:
            self._news.lost(why)
        self._again()

    def _refused(self, refusal: Refusal) -> None:
        why = str(failure_of(refusal, self._place.url))
        if why != self._refusal:  # a log is no place for a loop
            logging.getLogger("fan").warning("no replies can be read: %s", why)
        self._refusal = why
        self._line.drop(why)

    def _again(self) -> None:
        if not self._is_closed:
            self._loop.later(self._backoff.next(), self._line.open)
