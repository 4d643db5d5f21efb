"""A session of the registry file: a lock file that the kernel holds for this process, and a
beat."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable

from fan.errors import FanError
from fan.sqlite import locks
from fan.sqlite.channel import Channel
from fan.sqlite.schema import inode_of
from fan.stores import sqlite_rows, sqlite_writes
from fan.stores.sqlite_schema import REGISTRY

#: Seconds that an ending session waits for the registry: its lock tells its death anyhow.
_PATIENCE = 1.0


class SqliteSession:
    """What `SqliteStore.open_session` gives. It is lost when somebody removes its lock file or
    replaces the registry: nobody would find its records then."""

    def __init__(
        self,
        id: str,
        lock: locks.LockFile,
        channel: Channel,
        on_lost: Callable[[], None] | None,
    ) -> None:
        self.id = id
        self._lock = lock
        self._channel = channel
        self._on_lost = on_lost
        self._registry = inode_of(channel.path, REGISTRY)
        self._pid = os.getpid()
        self._is_over = threading.Event()
        self._thread = threading.Thread(
            target=self._beat, name=f"fan-session-{id[:8]}", daemon=True
        )
        self._thread.start()

    def __repr__(self) -> str:
        return f"<SqliteSession {self.id} of process {self._pid}>"

    @property
    def is_alive(self) -> bool:
        return (
            not self._is_over.is_set()
            and self._lock.is_in_place
            and inode_of(self._channel.path, REGISTRY) == self._registry
        )

    def close(self) -> None:
        """End it: its records go at once."""
        was_alive = self.is_alive
        self._is_over.set()
        if was_alive:
            with (
                contextlib.suppress(FanError),
                self._channel.writing(time.monotonic() + _PATIENCE, is_durable=False) as db,
            ):
                sqlite_writes.forget_session(db, self.id)
        self._lock.release()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def after_fork_in_child(self) -> None:
        """Leave the session to the parent."""
        self._lock.abandon()
        self._is_over = threading.Event()
        self._is_over.set()
        self._thread = threading.current_thread()

    def _is_known(self) -> bool:
        """Whether the registry has it: a new file may have the inode of the one before."""
        with self._channel.reading(time.monotonic() + _PATIENCE) as db:
            return db is not None and sqlite_rows.is_session(db, self.id)

    def _beat(self) -> None:
        while not self._is_over.wait(locks.HEARTBEAT):
            try:
                is_alive = self.is_alive and self._is_known()
            except FanError:  # that nobody may look there now says nothing of the session
                continue
            if is_alive:
                with contextlib.suppress(OSError):
                    self._lock.beat()
                continue
            if self._is_over.is_set():
                return
            self._is_over.set()
            self._lock.release()
            if self._on_lost is not None:
                try:
                    self._on_lost()
                except Exception:
                    logging.getLogger("fan.stores").exception("a session's on_lost failed")
            return
