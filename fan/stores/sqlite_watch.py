"""The thread that tells watchers of a registry file what may have changed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from fan.errors import FanError
from fan.sqlite import locks
from fan.sqlite.channel import Channel
from fan.sqlite.wake import TRAIL, Waker, wait, waker
from fan.stores import sqlite_rows
from fan.stores.base import HEAD, Hint

#: Seconds between two looks that nobody asked for: a net under the kernel's events.
_IDLE = 5.0

#: Seconds between two looks while the registry cannot be read, or its folder is not there.
_RETRY = 0.5

#: Looks in a row that may find changes and none for us before the next one waits: what we write
#: ourselves about a change that we were told of gives one or two. Then the seconds until the next,
#: at first and at most: a hundred who write at once would have each other look ten thousand times.
_FREE, _VAIN, _LONGEST_VAIN = 3, 0.002, 0.032

#: Seconds that the end of a store waits for its thread.
_FAREWELL = 2.0

#: Seconds that one look may take.
_PATIENCE = 2.0


class SqliteWatch:
    """One watch. See `Store.watch`."""

    def __init__(self, watcher: Watcher, kind: str, callback: Callable[[Hint], None]) -> None:
        self.kind = kind
        self.callback = callback
        self.is_closed = False
        #: The state that it was last told of; None at first, which no state equals.
        self.seen: object = None
        self._watcher = watcher

    def close(self) -> None:
        """End it."""
        self.is_closed = True
        self._watcher.remove(self)


class Watcher:
    """The watches of one store, and their thread, which runs until `close`."""

    def __init__(self, channel: Channel, namespace: str, lock_folder: str) -> None:
        self._channel = channel
        self._namespace = namespace
        self._lock_folder = lock_folder
        self._guard = threading.Lock()
        self._watches: list[SqliteWatch] = []
        self._is_ending = False
        self._is_lost = False
        self._marks: dict[str, object] = {}
        #: Which state of which connection `_marks` is of.
        self._version: object = None
        self._deaths = 0
        self._alive: frozenset[str] | None = None
        self._suspects: set[str] = set()
        #: Looks in a row that were in vain, and the seconds before the next one.
        self._vain = 0
        self._pause = 0.0
        self._waker: Waker = waker(channel.path, lock_folder)
        self._thread = threading.Thread(target=self._run, name="fan-registry-watch", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return not self._is_ending

    def add(self, kind: str, callback: Callable[[Hint], None]) -> SqliteWatch:
        """Begin a watch; its first call comes at once."""
        watch = SqliteWatch(self, kind, callback)
        with self._guard:
            self._watches.append(watch)
            self._waker.interrupt()
        return watch

    def remove(self, watch: SqliteWatch) -> None:
        """Forget a watch."""
        with self._guard:
            if watch in self._watches:
                self._watches.remove(watch)

    def close(self) -> None:
        """End all watches and the thread."""
        with self._guard:
            for watch in self._watches:
                watch.is_closed = True
            self._watches.clear()
            if not self._is_ending:
                self._is_ending = True
                self._waker.interrupt()
        if self._thread is not threading.current_thread():
            self._thread.join(_FAREWELL)  # it may be in a callback, which takes as long as it likes

    def after_fork_in_child(self) -> None:
        """There is no thread on this side: close what it held."""
        self._is_ending = True
        self._guard = threading.Lock()
        self._thread = threading.current_thread()
        for watch in self._watches:
            watch.is_closed = True
        self._watches = []
        self._waker.close()

    def _run(self) -> None:
        try:
            armed = -1
            rest = iter(TRAIL)
            while not self._is_ending:
                if armed != self._channel.opened:
                    # A new connection may have made a new log; what was written to it before it
                    # was watched is seen by the look below.
                    self._waker.arm()
                    armed = self._channel.opened
                    rest = iter(TRAIL)
                self._look()
                if armed != self._channel.opened:
                    continue
                if self._pause:
                    time.sleep(self._pause)
                delay = next(rest, None)
                if delay is None:
                    self._vain, self._pause = 0, 0.0
                    self._suspects.clear()
                if self._wait(delay):
                    rest = iter(TRAIL)
        finally:
            with self._guard:
                self._is_ending = True
                self._waker.close()

    def _wait(self, delay: float | None) -> bool:
        """Wait for news, at most `delay` seconds, idly with None. True where there were some."""
        is_idle = delay is None
        if delay is None:
            delay = _IDLE if self._channel.is_open and not self._is_lost else _RETRY
        news = wait(self._waker, delay)
        self._suspects |= news.suspects
        if news.is_moved:
            self._waker.arm()
        if news.is_unsure or (is_idle and not news.is_any):
            self._count_living()
        return news.is_any

    def _count_living(self) -> None:
        """Look for dead sessions among all."""
        with self._guard:
            if not self._watches:
                return
        try:
            with self._channel.reading(time.monotonic() + _PATIENCE) as db:
                ids = [] if db is None else sqlite_rows.sessions(db)
        except FanError:
            return
        alive = frozenset(id for id in ids if locks.is_alive(self._lock_folder, id))
        if self._alive is not None and self._alive - alive:
            self._deaths += 1
        self._alive = alive

    def _bury(self) -> None:
        """Count those suspects that are dead; the others may be still dying."""
        dead = {id for id in self._suspects if not locks.is_alive(self._lock_folder, id)}
        if dead:
            self._suspects -= dead
            self._deaths += 1

    def _look(self) -> None:
        """Compare the registry with what each watch was told, and tell."""
        version = self._version
        try:
            self._bury()
            self._read()
        except (FanError, OSError):
            if not self._is_lost:
                self._is_lost = True
                self._tell_all("lost")
            return
        if self._is_lost:
            self._is_lost = False
            self._tell_all("regained")
        if version != self._version:
            self._vain += 1
            if self._vain > _FREE:
                self._pause = min(max(2 * self._pause, _VAIN), _LONGEST_VAIN)
        for watch in self._present():
            mark = (self._marks.get(watch.kind), self._marks_of_deaths(watch.kind))
            if mark != watch.seen:
                watch.seen = mark
                self._vain, self._pause = 0, 0.0
                self._tell(watch, "changed")

    def _marks_of_deaths(self, kind: str) -> int:
        return self._deaths if kind != HEAD else 0

    def _read(self) -> None:
        with self._channel.reading(time.monotonic() + _PATIENCE) as db:
            if db is None:
                self._version, self._marks = None, {}
                return
            (version,) = db.execute("PRAGMA data_version").fetchone()
            if (self._channel.opened, version) != self._version:
                self._marks = sqlite_rows.marks(db, self._namespace)
                self._version = (self._channel.opened, version)

    def _present(self) -> list[SqliteWatch]:
        with self._guard:
            return list(self._watches)

    def _tell_all(self, hint: Hint) -> None:
        for watch in self._present():
            self._tell(watch, hint)

    def _tell(self, watch: SqliteWatch, hint: Hint) -> None:
        if watch.is_closed:
            return
        try:
            watch.callback(hint)
        except Exception:
            logging.getLogger("fan.stores").exception("a watch of %s failed", watch.kind)
