"""Shows that this process lives and what it takes: channels that it subscribes to, and Redis
forgets with its connection. Nothing is ever published there."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection

from fan.errors import FanError
from fan.transports.redis_failures import too_slow
from fan.transports.redis_line import Line
from fan.transports.redis_loop import Loop
from fan.transports.redis_news import News
from fan.transports.redis_place import Place
from fan.transports.redis_replies import Backoff
from fan.transports.redis_resp import Refusal, Reply, pack_all


class Presence:
    """The channels of one process at one Redis; each may be joined several times."""

    def __init__(self, loop: Loop, place: Place, news: News) -> None:
        self._loop = loop
        self._place = place
        self._news = news
        self._line = Line(loop, place, self)
        self._lock = threading.RLock()  # a line that is dropped says so while we hold it
        self._changed = threading.Condition(self._lock)
        self._wanted: Counter[str] = Counter()
        #: Channels that Redis confirmed.
        self._shown: set[str] = set()
        self._failure: FanError | None = None
        self._backoff = Backoff()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Presence {self._line!r} {len(self._shown)} channels>"

    def join(self, channels: Collection[str], deadline: float) -> None:
        """Show them; returns once they are. Raises what keeps the connection from being made, and
        DeadlineExceeded; they are shown as soon as it can be all the same."""
        with self._lock:
            fresh = [name for name in channels if not self._wanted[name]]
            self._wanted.update(channels)
            self._failure = None
        self._say("SUBSCRIBE", fresh)
        self._wait(lambda: self._shown.issuperset(channels), deadline)

    def leave(self, channels: Collection[str]) -> None:
        """Show them no more, unless somebody else joined them. Returns at once."""
        with self._lock:
            self._wanted.subtract(channels)
            self._wanted = +self._wanted
            gone = [name for name in channels if not self._wanted[name]]
        self._say("UNSUBSCRIBE", gone)

    def is_shown(self, channel: str) -> bool:
        """Whether Redis knows."""
        return channel in self._shown

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

    def _wait(self, is_so: Callable[[], bool], deadline: float) -> None:
        with self._changed:
            while not is_so():
                if self._failure is not None:
                    raise self._failure
                if not self._changed.wait(deadline - time.monotonic()):
                    raise too_slow(self._place.url, was_sent=False)

    def _say(self, command: str, channels: list[str]) -> None:
        def say() -> None:
            if self._line.is_open:
                if channels:
                    self._line.write(pack_all((command, *channels)))
            elif self._wanted:
                self._line.open()

        self._loop.soon(say)

    # In the loop's thread

    def line_opened(self) -> None:
        self._backoff.reset()
        self._news.back()
        with self._lock:
            wanted = [*self._wanted]
        if wanted:
            self._line.write(pack_all(("SUBSCRIBE", *wanted)))

    def line_got(self, replies: list[Reply]) -> None:
        with self._changed:
            for reply in replies:
                if isinstance(reply, Refusal):
                    self._line.drop(str(reply))
                    return
                if isinstance(reply, list) and len(reply) == 3 and reply[1] is not None:
                    kind, channel = reply[0], reply[1].decode()
                    if kind == b"subscribe":
                        self._shown.add(channel)
                    elif kind == b"unsubscribe" and not self._wanted[channel]:
                        self._shown.discard(channel)
            self._changed.notify_all()

    def line_failed(self, why: FanError) -> None:
        with self._changed:
            self._failure = why
            self._changed.notify_all()
        self._again()

    def line_lost(self, why: str) -> None:
        with self._changed:
            self._shown.clear()
            self._changed.notify_all()
            is_wanted = bool(self._wanted)
        if is_wanted:
            self._news.lost(why)
        self._again()

    def _again(self) -> None:
        if not self._is_closed and self._wanted:
            self._loop.later(self._backoff.next(), self._line.open)
