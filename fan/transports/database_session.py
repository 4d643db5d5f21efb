"""Whose the messages in hand are: a lock file that the kernel holds as long as the process lives,
and the others' lock files, which tell who is dead."""

from __future__ import annotations

import os

from fan.sqlite import locks
from fan.sqlite.errors import translate_os
from fan.transports.database_schema import QUEUE_DATABASE


class Session:
    """The present session of one desk, and its view of the others."""

    def __init__(self, folder: str) -> None:
        #: Empty before the first `check_in`; a new one where the lock file was removed.
        self.id = ""
        self.folder = folder
        self._lock: locks.LockFile | None = None
        self._suspects: set[str] = set()

    @property
    def is_in_place(self) -> bool:
        """Whether others see it alive."""
        return self._lock is not None and self._lock.is_in_place

    def check_in(self) -> None:
        """Begin one, where there is none in place. The database has to be there: only its folder
        may hold the folder of lock files. Raises FanError."""
        if self.is_in_place:
            return
        if self._lock is not None:
            self._lock.release()
        id = os.urandom(8).hex()
        path = locks.path_of(self.folder, id)
        note = f"pid {os.getpid()} on {os.uname().nodename}\n"
        try:
            os.makedirs(self.folder, exist_ok=True)
            self._lock = locks.LockFile.hold(path, note.encode())
        except OSError as exc:
            raise translate_os(exc, path, QUEUE_DATABASE) from exc
        self.id = id

    def suspect(self, ids: set[str]) -> None:
        """Sessions that may have died, or be about to."""
        self._suspects |= ids - {self.id}

    def suspect_all(self, known: set[str]) -> None:
        """Those that the database knows, and those that died before it did."""
        files = {locks.id_of(name) for name in os.listdir(self.folder)} - {""}
        self.suspect(known | files)

    def trust(self) -> None:
        """Whoever was suspected and has not died by now lives."""
        self._suspects.clear()

    def dead(self) -> set[str]:
        """The suspects that are dead; the others may be still dying."""
        return {id for id in self._suspects if not locks.is_alive(self.folder, id)}

    def clean_up(self, dead: set[str]) -> None:
        """Remove what the dead left in the folder, once nothing is left of them elsewhere."""
        for id in dead:
            locks.clean_up(self.folder, id)
        self._suspects -= dead

    def close(self) -> None:
        """End it."""
        if self._lock is not None:
            self._lock.release()

    def abandon(self) -> None:
        """Leave it to the parent of this process."""
        if self._lock is not None:
            self._lock.abandon()
