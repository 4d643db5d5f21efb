"""What a listener over Redis is made of: lanes that read, and the order in which they begin and
end."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from fan.context import new_id
from fan.errors import FanError
from fan.model import Address
from fan.transports.base import Handler, Listener
from fan.transports.redis_desk import Desk, Names
from fan.transports.redis_hub import Hub
from fan.transports.redis_keeper import Keeper
from fan.transports.redis_keys import Source
from fan.transports.redis_lane import Lane
from fan.transports.redis_message import Message
from fan.transports.redis_resp import Reply
from fan.transports.redis_scripts import LEAVE, QUIT
from fan.transports.redis_settle import Settler

#: Seconds for Redis to do what a listener needs to begin, or to end.
PATIENCE = 5.0
FAREWELL = 2.0


class Limits(Protocol):
    """What a listener reads of the settings."""

    @property
    def workers(self) -> int:
        """Messages of one lane that are handled at once."""

    @property
    def deliveries(self) -> int:
        """How often a push or event is given to a worker."""

    @property
    def lease(self) -> float:
        """Seconds that a message stays with a worker that shows no sign of life."""

    @property
    def max_body(self) -> int:
        """Bytes of arguments or result that are accepted."""


def new_consumer() -> str:
    """A name that tells an operator who it is, and is nobody else's."""
    host = "".join(c if c.isalnum() or c in "-_" else "-" for c in platform.node())
    return f"{host or 'host'}.{os.getpid()}.{new_id()[:8]}"


class Post:
    """One lane with all that belongs to it."""

    def __init__(
        self, hub: Hub, handler: Handler, names: Names, limits: Limits, group: str, consumer: str
    ) -> None:
        self.settler = Settler(hub.loop, hub.pipe, self._due)
        self.desk = Desk(
            handler, names, hub.loop, hub.outbox, self.settler,
            workers=limits.workers, deliveries=limits.deliveries, max_body=limits.max_body,
        )  # fmt: skip
        self.lane = Lane(hub.loop, hub.pipe, self.desk, group, consumer, limits.workers)
        self.desk.lane = self.lane
        self.keeper = Keeper(
            hub.loop, hub.pipe, hub.keys, self.lane, limits.lease, self.desk.give_back_spare
        )

    def _due(self, lane: Lane, message: Message) -> None:
        self.keeper.look(message.source)


class RedisListener(Listener):
    """A listener with lanes. Its threads are those of its handlers; the rest is the loop's."""

    def __init__(self, hub: Hub, consumer: str) -> None:
        self.address = Address(hub.place.url)
        self.consumer = consumer
        self.posts: list[Post] = []
        self._hub = hub
        self._up = hub.keys.up(consumer)
        self._lock = threading.RLock()
        self._sources: dict[Post, tuple[Source, ...]] = {}
        #: The channels that are shown for us, or will be.
        self._joined: set[str] = set()
        self._is_draining = False
        self._is_closed = False
        self._stopped = threading.Event()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "draining" if self._is_draining else "open"
        return f"<{type(self).__name__} {self.address.url} {state}>"

    def take(self, wanted: dict[Post, Sequence[Source]], deadline: float) -> None:
        """Read these streams from now on, and no others; returns once that is so. Raises what keeps
        Redis from being reached: the same again goes on where it failed."""
        with self._lock:
            if self._is_draining:
                return
            self._sources = {post: tuple(sources) for post, sources in wanted.items()}
            after = self._channels() | {self._up}
            before, self._joined = self._joined, self._joined | after
        self._hub.presence.join(sorted(after - before), deadline)
        changed = []
        for post, sources in wanted.items():
            if set(sources) != set(post.lane.sources):
                self._make(sources, deadline)
                changed.append((post, sources))
        bells = [self._set(post, sources) for post, sources in changed]
        for bell in bells:
            bell.wait(max(0.0, deadline - time.monotonic()))
        self._hub.presence.leave(sorted(before - after))
        with self._lock:
            self._joined -= before - after

    def drain(self) -> None:
        with self._lock:
            if self._is_draining:
                return
            self._is_draining = True
        self._hub.loop.soon(self._stop)

    def close(self, timeout: float = 5.0) -> None:
        deadline = time.monotonic() + timeout
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        if self._hub.loop.pid != os.getpid():  # a forked child's: it is the parent's
            return
        self.drain()
        self._stopped.wait(FAREWELL)
        self._wait_idle(deadline)
        self._on_loop(self._give_up)
        self._wait_idle(time.monotonic() + FAREWELL)
        with suppress(FanError):
            self._quit(time.monotonic() + FAREWELL)
        self._on_loop(self._close)
        for post in self.posts:
            post.desk.crew.close()
            post.lane.wait_closed(FAREWELL)

    def abandon(self) -> None:
        self._is_closed = True
        for post in self.posts:
            post.lane.abandon()

    def _channels(self) -> set[str]:
        return {source.at for sources in self._sources.values() for source in sources}

    def _make(self, sources: Sequence[Source], deadline: float) -> None:
        """Make the streams that are not there, each with its group."""
        for source in sources:
            if source.kind != "event":
                self._make_one(source, "0", deadline)

    def _make_one(self, source: Source, since: str, deadline: float) -> None:
        command = ("XGROUP", "CREATE", source.stream, source.group, since, "MKSTREAM")
        self._hub.pipe.ask(command, deadline=deadline, allowed=("BUSYGROUP", "WRONGTYPE"))

    def _set(self, post: Post, sources: Sequence[Source]) -> threading.Event:
        bell = threading.Event()

        def begin() -> None:
            post.keeper.begin()
            post.lane.set(sources, bell.set)

        self._hub.loop.soon(begin)
        return bell

    def _on_loop(self, step: Any) -> None:
        """Have a step done in the loop's thread, and wait for it."""
        bell = threading.Event()

        def run() -> None:
            try:
                step()
            finally:
                bell.set()

        self._hub.loop.soon(run)
        bell.wait(FAREWELL)

    def _wait_idle(self, deadline: float) -> None:
        """Wait for what is in hand, and for the answers to be with Redis."""
        while any(post.lane.in_hand for post in self.posts) or not self._hub.outbox.is_empty:
            if time.monotonic() >= deadline:
                return
            time.sleep(0.002)

    def _quit(self, deadline: float) -> None:
        """Leave nothing behind under our name."""
        self._hub.presence.leave([self._up])
        for post, sources in self._sources.items():
            for source in sources:
                args = (source.group, post.lane.consumer)
                self._hub.pipe.ask_script(QUIT, (source.stream,), args, deadline=deadline)

    # In the loop's thread

    def _stop(self) -> None:
        with self._lock:
            shown = self._joined - {self._up}
            self._joined -= shown
        self._hub.presence.leave(sorted(shown))
        left = len(self.posts)

        def stopped() -> None:
            nonlocal left
            left -= 1
            if not left:
                self._stopped.set()
                self._leave_all()

        if not left:
            self._stopped.set()
        for post in self.posts:
            post.desk.is_closing = True
            post.desk.give_back()
            post.lane.stop(stopped)

    def _leave_all(self) -> None:
        for post, sources in self._sources.items():
            post.desk.give_back()
            for source in sources:
                if source.kind == "call":
                    self._leave(post, source)

    def _leave(self, post: Post, source: Source, tries: int = 50) -> None:
        """Where nobody else takes the calls of a stream: answer those that wait, and end it, so
        that a caller is told at once that nobody is there."""
        is_returning = any(message.is_given_up for message in post.lane.in_hand.values())
        if tries and (is_returning or self._hub.presence.is_shown(source.at)):
            self._hub.loop.later(0.01, partial(self._leave, post, source, tries - 1))
            return

        def done(result: list[Reply] | FanError) -> None:
            waiting = result[0] if isinstance(result, list) else None
            if isinstance(waiting, list) and waiting:
                post.desk.refuse(source, waiting)
                self._leave(post, source)

        keys = (source.stream, source.later)
        self._hub.pipe.run(LEAVE, keys, (source.group, source.at), done)

    def _give_up(self) -> None:
        for post in self.posts:
            post.desk.give_up()

    def _close(self) -> None:
        for post in self.posts:
            post.keeper.close()
            post.settler.is_closed = True
            post.lane.close()
