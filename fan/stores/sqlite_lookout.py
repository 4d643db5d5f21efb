"""Looking what changed in a registry file, once for all stores of a process that have the same
namespace of it open: many that look, each for itself, keep each other from work."""

from __future__ import annotations

import threading
import time
from typing import Protocol

import msgspec

from fan import forks
from fan.errors import FanError
from fan.sqlite import locks
from fan.sqlite.channel import Channel
from fan.sqlite.wake import TRAIL, Waker, wait, waker
from fan.stores import sqlite_rows
from fan.stores.base import HEAD
from fan.stores.sqlite_schema import REGISTRY

#: Seconds between two looks that nobody asked for: a net under the kernel's events.
_IDLE = 5.0

#: Seconds between two looks while the registry cannot be read, or its folder is not there.
_RETRY = 0.5

#: Looks in a row that may find changes and none for us before the next one waits: what we write
#: ourselves about a change that we were told of gives one or two. Then the seconds until the next,
#: at first and at most: a hundred who write at once would have each other look ten thousand times.
_FREE, _VAIN, _LONGEST_VAIN = 3, 0.002, 0.032

#: The same at most while the registry cannot be read: to open a damaged one makes a log and removes
#: it, which wakes us.
_LONGEST_LOST = 0.128

#: Seconds that one look may take.
_PATIENCE = 2.0


class Sight(msgspec.Struct, frozen=True):
    """What a look saw: the values to compare, of the head and of each kind of record; how many
    sessions were seen to die; how often the registry was lost, and whether it is so now."""

    marks: dict[str, object]
    deaths: int
    losses: int
    is_lost: bool

    def mark(self, kind: str) -> object:
        """What is another one once there is something new of that kind."""
        return self.marks.get(kind), self.deaths if kind != HEAD else 0


class Viewer(Protocol):
    """Who is shown what was seen."""

    def show(self, sight: Sight) -> bool:
        """Take it over, under the lookout's guard. Returns whether there was something new in
        it."""


class Lookout:
    """What is seen of one namespace of a file. It has no thread: one of its viewers' looks for all
    of them, and while that has something else to do another one does, so that a process with one
    store is told by the thread that looks."""

    def __init__(self, path: str, namespace: str, lock_folder: str, mounts: str) -> None:
        self._namespace = namespace
        self._lock_folder = lock_folder
        #: Its own: a reader of any store who takes long keeps nobody from being told.
        self._channel = Channel(path, REGISTRY, mounts)
        #: Held while what follows is replaced, and for nothing that may wait.
        self.guard = threading.Lock()
        #: With what their threads wait.
        self._viewers: dict[Viewer, threading.Condition] = {}
        self._waiting: set[Viewer] = set()
        self._is_closed = False
        #: Whose thread looks.
        self._leader: Viewer | None = None
        self._sight: Sight | None = None
        # From here on it belongs to who looks.
        self._armed = -1
        self._rest = iter(TRAIL)
        self._is_lost = False
        self._losses = 0
        self._marks: dict[str, object] = {}
        #: Which state of which connection `_marks` is of.
        self._version: object = None
        self._deaths = 0
        self._alive: frozenset[str] | None = None
        self._suspects: set[str] = set()
        #: Looks in a row that were in vain, and the seconds before the next one.
        self._vain = 0
        self._pause = 0.0
        self._waker: Waker = waker(path, lock_folder)

    def add(self, viewer: Viewer) -> None:
        """Show a viewer what there is, and what comes."""
        with self.guard:
            self._viewers[viewer] = threading.Condition(self.guard)
            if self._sight is not None:
                viewer.show(self._sight)

    def remove(self, viewer: Viewer) -> bool:
        """Show it nothing any more; another one looks in its place. True where there is none."""
        with self.guard:
            self._viewers.pop(viewer, None)
            self.pass_on(viewer)
            return not self._viewers

    def close(self) -> None:
        """Give back what it holds: nobody looks any more. Twice does no harm."""
        if not self._is_closed:
            self._is_closed = True
            self._waker.close()
            self._channel.close()

    def after_fork_in_child(self) -> None:
        """No thread looks on this side."""
        self.guard = threading.Lock()
        self.close()

    # Who looks; under the guard

    def lead(self, viewer: Viewer) -> bool:
        """Have a viewer's thread look from now on. False where another one does."""
        if self._leader is None:
            self._leader = viewer
        return self._leader is viewer

    def pass_on(self, viewer: Viewer) -> None:
        """A viewer's thread has something else to do: unless another one looks already, wake one
        that may."""
        if self._leader is viewer:
            self._leader = None
        if self._leader is None:
            for each in self._waiting:
                self.rouse(each)
                return

    def wait(self, viewer: Viewer) -> None:
        """Wait until there may be something to do."""
        self._waiting.add(viewer)
        try:
            self._viewers[viewer].wait()
        finally:
            self._waiting.discard(viewer)

    def rouse(self, viewer: Viewer) -> None:
        """Have a viewer's thread see what there is to do."""
        if self._leader is viewer:
            self._waker.interrupt()
        elif viewer in self._viewers:
            self._viewers[viewer].notify()

    # Looking; by who leads

    def step(self) -> None:
        """Look once, when it is worth to."""
        if not self._is_unarmed():
            if self._pause:
                time.sleep(self._pause)
            delay = next(self._rest, None)
            if delay is None:
                self._vain, self._pause = 0, 0.0
                self._suspects.clear()
            if self._wait(delay):
                self._rest = iter(TRAIL)
        if self._is_unarmed():
            # A new connection may have made a new log; what was written to it before it was
            # watched is seen by the look below.
            self._waker.arm()
            self._armed = self._channel.opened
            self._rest = iter(TRAIL)
        self._look()

    def _is_unarmed(self) -> bool:
        """Whether there may be a log that is not watched. Where none stays open, as the file is
        damaged or nobody can write it, each look opens another connection."""
        is_new = self._armed != self._channel.opened and self._channel.is_open
        return is_new or self._armed < 0

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
        try:
            with self._channel.reading(time.monotonic() + _PATIENCE) as db:
                ids = [] if db is None else sqlite_rows.sessions(db)
            alive = frozenset(id for id in ids if locks.is_alive(self._lock_folder, id))
        except (FanError, OSError):
            return
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
        """Compare the registry with what was seen before, and show it."""
        version = self._version
        try:
            self._bury()
            self._read()
        except (FanError, OSError):
            self._losses += not self._is_lost
            self._is_lost = True
            self._show()
            self._tire(_LONGEST_LOST)
            return
        self._is_lost = False
        if version != self._version:
            self._tire(_LONGEST_VAIN)
        if self._show():
            self._vain, self._pause = 0, 0.0

    def _tire(self, longest: float) -> None:
        """Count a look in vain."""
        self._vain += 1
        if self._vain > _FREE:
            self._pause = min(max(2 * self._pause, _VAIN), longest)

    def _read(self) -> None:
        with self._channel.reading(time.monotonic() + _PATIENCE) as db:
            if db is None:
                self._version, self._marks = None, {}
                return
            (version,) = db.execute("PRAGMA data_version").fetchone()
            if (self._channel.opened, version) != self._version:
                marks = sqlite_rows.marks(db, self._namespace)
                # Those of another file may be the same by chance.
                self._marks = {kind: (self._channel.inode, marks[kind]) for kind in marks}
                self._version = (self._channel.opened, version)

    def _show(self) -> bool:
        """Show what was seen. True where anybody found something new in it."""
        sight = Sight(self._marks, self._deaths, self._losses, self._is_lost)
        if sight == self._sight:
            return False
        with self.guard:
            self._sight = sight
            concerned = [viewer for viewer in self._viewers if viewer.show(sight)]
            for viewer in concerned:
                self._viewers[viewer].notify()
        return bool(concerned)


class _Lookouts:
    """Those of this process, by what they look at."""

    def __init__(self) -> None:
        self.start_over()

    def start_over(self) -> None:
        """Know of none."""
        self.guard = threading.Lock()
        self.running: dict[tuple[str, str, str, str], Lookout] = {}


_here = _Lookouts()


def enter(viewer: Viewer, path: str, namespace: str, lock_folder: str, mounts: str) -> Lookout:
    """Have a viewer shown what is seen in a namespace of a file, until it leaves."""
    key = (path, namespace, lock_folder, mounts)
    with _here.guard:
        lookout = _here.running.get(key)
        if lookout is None:
            lookout = _here.running[key] = Lookout(*key)
        lookout.add(viewer)
    return lookout


def leave(viewer: Viewer, lookout: Lookout) -> None:
    """Show it nothing any more; with the last one the lookout ends. For its own thread, which may
    be the one that looks."""
    with _here.guard:
        if not lookout.remove(viewer):
            return
        for key in [key for key, each in _here.running.items() if each is lookout]:
            del _here.running[key]
    lookout.close()


def _forked() -> None:
    lookouts = list(_here.running.values())
    _here.start_over()
    for lookout in lookouts:
        lookout.after_fork_in_child()


forks.in_child("stores", _forked)
