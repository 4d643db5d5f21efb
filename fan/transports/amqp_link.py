"""One connection to one broker, and the thread that it lives in.

pika's connections belong to one thread: whoever wants something of one puts it into the link's
inbox (`do`), and one wake-up serves all that is in there. What works over the link is a `Part` with
a channel of its own, so that an error, which closes its channel, harms nobody else.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from fan import forks
from fan.quiet import quieten
from fan.transports.amqp_failures import INTERNAL_ERROR, closed, connecting, lost
from fan.transports.amqp_loop import Connection, Loop, cancel_timer, guarded, report
from fan.transports.amqp_part import DELAY, MAX_DELAY, REST, Part
from fan.transports.amqp_place import Place

#: Seconds that a broker gets to take leave.
FAREWELL = 1.0


class Link:
    """A connection that is made when it is needed, and again when it was lost. `parts`, `state` and
    `connection` belong to the link's thread."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.url = place.address.url
        self.pid = os.getpid()
        self.parts: list[Part] = []
        #: "down", "connecting", "up" or "closed".
        self.state = "down"
        self.connection: Any = None
        #: Whether the broker wants nothing published: it is out of memory or disk.
        self.is_blocked = False
        self._inbox: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._is_rung = False
        self._lock = threading.Lock()
        self._loop: Loop | None = None
        self._thread: threading.Thread | None = None
        self._is_over = False
        self._delay = 0.0
        self._retry: Any = None
        self._rests_until = 0.0
        #: Whether it was told that the connection is gone.
        self._is_told = False
        _LINKS.add(self)

    def __repr__(self) -> str:
        return f"<Link {self.url} {self.state}>"

    def do(self, job: Callable[..., object], *args: Any) -> None:
        """Have it run in the link's thread, soon and in order; from any thread. Once the link is
        closed it runs here and now, and finds that out by `state`."""
        self._inbox.append((job, args))
        if self._is_rung:
            return
        self._is_rung = True
        loop = self._loop
        if loop is None:
            loop = self._begin()
        if loop is not None:
            loop.add_callback_threadsafe(self._empty)
        if self._is_over:
            self._empty()

    def later(self, seconds: float, job: Callable[[], object]) -> Any:
        """Have it run in the link's thread after a while, from that thread; a timer for `forget`,
        None once the link is closed."""
        if self._loop is None or self.state == "closed":
            return None
        return self._loop.call_later(max(0.0, seconds), guarded(job))

    def forget(self, timer: Any) -> None:
        """Take a timer back."""
        if self._loop is not None and not self._is_over:
            cancel_timer(self._loop, timer)

    def at_end(self, job: Callable[[], None]) -> None:
        """Have it run before what this turn of the loop has to say is sent; from the link's
        thread."""
        if self._loop is not None:
            self._loop.at_end(job, is_first=True)

    def end_turn(self) -> None:
        """Have that run now, before a channel is closed over which it is to go; from the link's
        thread."""
        if self._loop is not None and not self._is_over:
            self._loop.end_turn()

    def want(self) -> None:
        """Connect, unless that is under way; in the link's thread."""
        if self.state != "down":
            return
        rest = self._rests_until - time.monotonic()
        if rest <= 0:
            self._connect()
        elif self._retry is None:
            self._retry = self.later(rest, self._wake)

    def _wake(self) -> None:
        self._retry = None
        self.want()

    def add(self, part: Part) -> None:
        """Let a part work over the link, from the link's thread."""
        self.parts.append(part)
        if self.state == "up":
            part.start()
        elif self.state == "closed":
            part.refused(closed())
        else:
            self.want()

    def remove(self, part: Part) -> None:
        """Let it work no longer, and close its channel."""
        if part in self.parts:
            self.parts.remove(part)
        part.leave()

    def close(self) -> None:
        """Fail what waits, take leave of the broker, end the thread. Twice does no harm."""
        if self.pid != os.getpid():
            return
        with self._lock:
            thread = self._thread
            if thread is None:
                self.state, self._is_over = "closed", True
        if thread is None:
            self._empty()
            return
        self.do(self._shut)
        if thread is not threading.current_thread():
            thread.join(2 * FAREWELL)

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's."""
        if self._loop is not None:
            self._loop.abandon()
            _INHERITED.append(self)

    def _begin(self) -> Loop | None:
        with self._lock:
            if self._loop is None and not self._is_over:
                self._loop = Loop()
                self._thread = threading.Thread(target=self._run, name="fan-amqp-io", daemon=True)
                self._thread.start()
            return self._loop

    def _run(self) -> None:
        assert self._loop is not None
        if not logging.getLogger("pika").level:  # else somebody asked for it
            quieten(*_PIKA)
        try:
            self._loop.run()
        finally:
            self.state = "closed"
            self._is_over = True
            self._empty()
            with suppress(Exception):
                self._loop.close()

    def _empty(self) -> None:
        self._is_rung = False  # first: what is put in from here on rings again
        inbox = self._inbox
        while inbox:
            try:
                job, args = inbox.popleft()
            except IndexError:  # another thread took it, when the link is over
                return
            try:
                job(*args)
            except Exception:
                report()

    def _connect(self) -> None:
        self._forget_retry()
        self.state = "connecting"
        try:
            assert self._loop is not None
            self.connection = Connection(
                self._loop,
                self.place.parameters(),
                on_open_callback=guarded(self._opened),
                on_open_error_callback=guarded(self._failed),
                on_close_callback=guarded(self._closed),
            )
        except Exception as exc:
            self._failed(None, exc)

    def _opened(self, connection: Any) -> None:
        if connection is not self.connection or self.state != "connecting":
            connection.close()
            return
        self.state, self._delay, self.is_blocked = "up", 0.0, False
        if self._is_told:
            self._is_told = False
            logging.getLogger("fan").warning("%s is there again", self.url)
        connection.add_on_connection_blocked_callback(guarded(self._blocked))
        connection.add_on_connection_unblocked_callback(guarded(self._unblocked))
        for part in list(self.parts):
            part.start()

    def _failed(self, connection: Any, exc: BaseException) -> None:
        if connection is not self.connection and connection is not None:
            return
        self.connection = None
        if self.state == "closed":
            self._stop()
            return
        self.state = "down"
        failure = connecting(self.url, self.place.user, exc)
        for part in list(self.parts):
            part.refused(failure)
        self._reconnect(failure.message)

    def _closed(self, connection: Any, exc: BaseException) -> None:
        if connection is not self.connection:
            return
        self.connection = None
        if self.state == "closed":
            self._stop()
            return
        self.state, self.is_blocked = "down", False
        if getattr(exc, "reply_code", 0) == INTERNAL_ERROR:  # so end those who use a deleted queue
            self._rests_until = time.monotonic() + REST
        for part in list(self.parts):
            part.lost(lost(self.url, exc))
        self._reconnect(f"the connection to {self.url} was lost: {exc}", is_news=True)

    def _reconnect(self, why: str, *, is_news: bool = False) -> None:
        if self.state != "down" or not any(part.is_lasting for part in self.parts):
            return
        # Once: a log is no place for a loop. Who cannot connect at all is told by an error.
        if is_news and not self._is_told:
            self._is_told = True
            logging.getLogger("fan").warning("%s; trying again", why)
        self._forget_retry()
        self._retry = self.later(self._delay, self._wake)
        self._delay = min(MAX_DELAY, 2 * self._delay or DELAY)

    def _forget_retry(self) -> None:
        timer, self._retry = self._retry, None
        self.forget(timer)

    def _blocked(self, connection: Any, method: Any) -> None:
        self.is_blocked = True

    def _unblocked(self, connection: Any, method: Any) -> None:
        self.is_blocked = False
        for part in list(self.parts):
            part.flush()

    def _shut(self) -> None:
        if self.state == "closed":
            return
        was, self.state = self.state, "closed"
        self._forget_retry()
        for part in sorted(self.parts, key=lambda part: part.speaks_for_others):
            (part.lost if was == "up" else part.refused)(closed())
        self.end_turn()  # what is done with is told of before its channel closes
        connection = self.connection
        if connection is None or self._loop is None:
            self._stop()
            return
        self._loop.call_later(FAREWELL, guarded(connection.drop))
        self._loop.call_later(1.5 * FAREWELL, guarded(self._stop))
        with suppress(Exception):  # it may be on its way down already
            connection.close()

    def _stop(self) -> None:
        if self._loop is not None:
            self._loop.stop()


#: Who of pika tells errors, in a dozen lines each; what matters of them is told by ours.
_PIKA = tuple(
    f"pika.{name}"
    for name in (
        "adapters.base_connection", "adapters.select_connection",
        "adapters.utils.connection_workflow", "adapters.utils.io_services_utils",
        "adapters.utils.selector_ioloop_adapter", "callback", "channel", "connection",
        "credentials", "diagnostic_utils", "heartbeat",
    )
)  # fmt: skip
_LINKS: weakref.WeakSet[Link] = weakref.WeakSet()
#: Links of a parent: kept, because nobody may close their sockets any more.
_INHERITED: list[Link] = []


def _forked() -> None:
    for link in tuple(_LINKS):
        link.abandon()


forks.in_child("transports", _forked)
