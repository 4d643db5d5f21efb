"""The watches of a store of a registry file, and the thread that calls them back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from fan.stores import sqlite_lookout
from fan.stores.base import Hint
from fan.stores.sqlite_lookout import Sight

#: Seconds that the end of a store waits for its thread.
_FAREWELL = 2.0


class SqliteWatch:
    """One watch. See `Store.watch`."""

    def __init__(self, watcher: Watcher, kind: str, callback: Callable[[Hint], None]) -> None:
        self.kind = kind
        self.callback = callback
        self.is_closed = False
        #: Whether it was ever called.
        self.is_begun = False
        #: The state that it was last told of; None at first, which no state equals.
        self.seen: object = None
        self._watcher = watcher

    def close(self) -> None:
        """End it."""
        self.is_closed = True
        self._watcher.remove(self)


class Watcher:
    """The watches of one store, and their thread, which runs until `close`: what one of its
    callbacks waits for holds up no other store. It looks for all where nobody else does."""

    def __init__(self, path: str, namespace: str, lock_folder: str, mounts: str) -> None:
        self._watches: list[SqliteWatch] = []
        #: What was seen last, and whether some watch may not have been told of it.
        self._sight: Sight | None = None
        self._is_news = False
        self._is_ending = False
        #: The last loss that was told, and whether it is over.
        self._losses = -1
        self._is_lost = False
        self._lookout = sqlite_lookout.enter(self, path, namespace, lock_folder, mounts)
        self._thread = threading.Thread(target=self._run, name="fan-registry-watch", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            sqlite_lookout.leave(self, self._lookout)
            raise

    @property
    def is_running(self) -> bool:
        return not self._is_ending

    def add(self, kind: str, callback: Callable[[Hint], None]) -> SqliteWatch:
        """Begin a watch; its first call comes at once."""
        watch = SqliteWatch(self, kind, callback)
        with self._lookout.guard:
            self._watches.append(watch)
            self._is_news = True
            self._lookout.rouse(self)
        return watch

    def remove(self, watch: SqliteWatch) -> None:
        """Forget a watch."""
        if watch not in self._watches:
            return
        with self._lookout.guard:
            if watch in self._watches:
                self._watches.remove(watch)

    def close(self) -> None:
        """End all watches and the thread."""
        with self._lookout.guard:
            for watch in self._watches:
                watch.is_closed = True
            self._watches.clear()
            if not self._is_ending:
                self._is_ending = True
                self._lookout.rouse(self)
        if self._thread is not threading.current_thread():
            self._thread.join(_FAREWELL)  # it may be in a callback, which takes as long as it likes

    def after_fork_in_child(self) -> None:
        """There is no thread on this side."""
        self._is_ending = True
        self._thread = threading.current_thread()
        for watch in self._watches:
            watch.is_closed = True
        self._watches = []

    def show(self, sight: Sight) -> bool:
        """Take over what was seen, under the lookout's guard. Returns whether a watch is to be told
        of it."""
        before, self._sight = self._sight, sight
        is_news = (
            before is None
            or (before.losses, before.is_lost) != (sight.losses, sight.is_lost)
            or any(before.mark(w.kind) != sight.mark(w.kind) for w in self._watches)
        )
        self._is_news = self._is_news or is_news
        return is_news

    # The thread

    def _run(self) -> None:
        try:
            while not self._is_ending:
                sight = self._next()
                if sight is not None:
                    self._tell_of(sight)
                else:
                    self._look()
        finally:
            self._is_ending = True
            sqlite_lookout.leave(self, self._lookout)

    def _next(self) -> Sight | None:
        """What is to be told of; None where this thread is to look, or to end."""
        with self._lookout.guard:
            while not self._is_ending:
                if self._has_news():
                    self._is_news = False
                    self._lookout.pass_on(self)
                    return self._sight
                if self._lookout.lead(self):
                    return None
                self._lookout.wait(self)
        return None

    def _has_news(self) -> bool:
        return self._is_news and self._sight is not None

    def _look(self) -> None:
        """Look until there is something for us."""
        while not (self._is_ending or self._has_news()):
            self._lookout.step()

    def _tell_of(self, sight: Sight) -> None:
        """Compare what was seen with what each watch was told, and tell."""
        if self._losses < 0:
            self._losses = sight.losses - sight.is_lost  # what was before us is nothing to us
        if self._losses != sight.losses:
            self._losses = sight.losses
            self._is_lost = True
            self._tell_all("lost")
        if sight.is_lost:
            for watch in self._present():
                if not watch.is_begun:
                    self._tell(watch, "lost")  # it began after the loss
            return
        if self._is_lost:
            self._is_lost = False
            self._tell_all("regained")
        for watch in self._present():
            mark = sight.mark(watch.kind)
            if mark != watch.seen:
                watch.seen = mark
                self._tell(watch, "changed")

    def _present(self) -> list[SqliteWatch]:
        with self._lookout.guard:
            return list(self._watches)

    def _tell_all(self, hint: Hint) -> None:
        for watch in self._present():
            self._tell(watch, hint)

    def _tell(self, watch: SqliteWatch, hint: Hint) -> None:
        if watch.is_closed:
            return
        watch.is_begun = True
        try:
            watch.callback(hint)
        except Exception:
            logging.getLogger("fan.stores").exception("a watch of %s failed", watch.kind)
