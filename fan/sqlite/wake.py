"""Being woken when a file may have changed.

On Linux by inotify: on the write-ahead log, which every commit writes; on the folder, for a log or
a file that appears or is replaced; on the folder of lock files, whose descriptors the kernel
closes when a process dies. Elsewhere by looking every 50 ms (about 4 ms of CPU per second).

A wake-up comes early: the log is written before the commit can be seen, and a dead process' file is
closed before its lock is free. Whoever is woken looks several times (`TRAIL`).
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
from typing import Protocol

from fan.sqlite import locks

#: Seconds after a wake-up at which to look again: a commit can be seen only after it reached the
#: disk, and a lock is free only after its file was closed. Whatever takes longer than all of them
#: waits for the next look that nobody asked for.
TRAIL = (0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.004, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)

#: Seconds between two looks where nobody wakes us.
_POLL = 0.05


class News:
    """What a wait brought. `is_any` is False where only time passed; `suspects` are sessions that
    may have died; with `is_unsure` any may have; with `is_moved` files came or went."""

    def __init__(self) -> None:
        self.is_any = False
        self.is_unsure = False
        self.is_moved = False
        self.suspects: set[str] = set()


class Waker(Protocol):
    """Waits for hints. `arm` is called at the start and whenever files came or went."""

    def arm(self) -> None: ...

    def wait(self, timeout: float) -> News: ...

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


def wait(waker: Waker, delay: float) -> News:
    """Wait for news, at most `delay` seconds."""
    if delay < 0.001:
        # Finer than poll can wait; nobody minds to be interrupted that much later.
        time.sleep(delay)
        delay = 0.0
    return waker.wait(delay)


def waker(path: str, lock_folder: str) -> Waker:
    """The best one that this machine has."""
    if sys.platform == "linux":
        # OSError: the user's inotify instances are used up (fs.inotify.max_user_instances).
        with contextlib.suppress(ImportError, OSError):
            return InotifyWaker(path, lock_folder)
    return PollWaker()


class PollWaker:
    """Looks again and again."""

    def __init__(self) -> None:
        self._interrupted = threading.Event()

    def arm(self) -> None:
        """Nothing to prepare."""

    def wait(self, timeout: float) -> News:
        """After a while anything may have changed."""
        self._interrupted.wait(min(timeout, _POLL))
        self._interrupted.clear()
        news = News()
        news.is_unsure = True
        return news

    def interrupt(self) -> None:
        """End the present wait."""
        self._interrupted.set()

    def close(self) -> None:
        """Nothing to release."""


class InotifyWaker:
    """Woken by the kernel."""

    def __init__(self, path: str, lock_folder: str) -> None:
        from inotify_simple import INotify, flags

        self._path = path
        self._log = path + "-wal"
        self._lock_folder = lock_folder
        self._names = {os.path.basename(p) for p in (path, self._log, lock_folder)}
        self._inotify = INotify(nonblocking=True)
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._inotify.fd, select.POLLIN)
        self._poll.register(self._event, select.POLLIN)
        self._overflow = int(flags.Q_OVERFLOW)
        come_and_go = flags.CREATE | flags.MOVED_TO | flags.MOVED_FROM | flags.DELETE
        self._masks = {
            os.path.dirname(path): int(come_and_go),
            self._log: int(flags.MODIFY),
            lock_folder: int(flags.CLOSE_WRITE | flags.DELETE | flags.MOVED_FROM),
        }
        #: What each descriptor watches. A file that was removed and made again gets a new one.
        self._watched: dict[int, str] = {}

    def arm(self) -> None:
        """Watch what is there; for the rest the folder tells when it comes."""
        for path, mask in self._masks.items():
            with contextlib.suppress(OSError):
                self._watched[self._inotify.add_watch(path, mask)] = path

    def wait(self, timeout: float) -> News:
        """Wait for an event (`timeout` seconds, with the precision of a millisecond)."""
        news = News()
        self._poll.poll(timeout * 1000)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)
        for event in self._inotify.read(timeout=0):
            self._note(news, event.wd, event.mask, event.name)
        return news

    def _note(self, news: News, wd: int, mask: int, name: str) -> None:
        watched = self._watched.get(wd)
        if watched == self._lock_folder and name:
            news.suspects.add(locks.id_of(name))
        elif watched == self._log:
            pass
        elif watched is not None and name in self._names:
            news.is_moved = True
        elif mask & self._overflow:
            news.is_unsure = news.is_moved = True
        else:
            return
        news.is_any = True

    def interrupt(self) -> None:
        """End the present wait, or the next one."""
        os.eventfd_write(self._event, 1)

    def close(self) -> None:
        """Give the descriptors back."""
        self._inotify.close()
        os.close(self._event)
