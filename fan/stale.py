"""The registry as it was read last, for when it cannot be reached: a store in front of the store.

Every reading that works leaves a file of its own, replaced as a whole; one that fails is answered
from the file, marked by `age`. Writes, sessions, watches and the history never are: who changes
something, or follows it, needs the registry. An empty answer is an answer, and is kept like any
other. Whenever a reading is kept for the first time, what is too old, or too much, goes.
"""

from __future__ import annotations

import builtins
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from threading import get_ident
from typing import Any, ClassVar, TypeVar

import msgspec

from fan.errors import DeadlineExceeded, FanError, Unavailable
from fan.stores.base import (
    Committed,
    Cut,
    Entry,
    Head,
    Hint,
    Plan,
    Record,
    Revision,
    Session,
    Store,
    Watch,
)

T = TypeVar("T")

#: Share of the time that is left which a reading may take that could be answered from here.
_SHARE = 0.5
_MOST = 2.0
#: Seconds behind a failure in which the registry is not asked where it can be answered from here.
DOWN = 2.0
#: What names are the remainder of.
_PRIME = 2**61 - 1

#: Readings of one registry that are kept, and for how many seconds, or as long as somebody wants
#: them who keeps one.
_KEPT, _KEPT_FOR = 500, 86_400.0


class _Reading(msgspec.Struct, frozen=True):
    """What a file holds: the reading that it is of, and what was read."""

    of: list[str]
    found: msgspec.Raw


class _Kept(msgspec.Struct, frozen=True):
    """A reading that a file holds, and its age in seconds."""

    path: str
    found: bytes
    age: float


class StaleStore(Store):
    """`store`, which is called `name`, with its readings kept below `folder`, and answered from
    there while they are younger than `max_stale` seconds. `on_stale` is told, each time, the age
    of the oldest of those that were."""

    scheme: ClassVar[str] = "stale"

    def __init__(
        self,
        store: Store,
        name: str,
        folder: str,
        max_stale: float,
        on_stale: Callable[[float], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        #: Seconds since the oldest of the readings that were answered from here since the registry
        #: answered last; None for none.
        self.age: float | None = None
        self._clock = clock
        self._store = store
        self._name = name
        self._folder = os.path.join(folder, _name(name))
        self._max_stale = max_stale
        self._on_stale = on_stale
        #: When it is asked again, of `clock`; None while it answers.
        self._down_until: float | None = None

    def __repr__(self) -> str:
        state = "fresh" if self.age is None else f"{self.age:.0f} s old"
        return f"<StaleStore {state} of {self._store!r}>"

    # What may be old

    def read(
        self,
        objects: Sequence[str] = (),
        *,
        prefix: str | None = None,
        gen: int | None = None,
        deadline: float,
    ) -> Cut:
        def ask(deadline: float) -> Cut:
            return self._store.read(objects, prefix=prefix, gen=gen, deadline=deadline)

        if gen is not None:
            return ask(deadline)
        key = ["read", *sorted(objects), "" if prefix is None else f"{prefix}*"]
        return self._reading(ask, Cut, [key], deadline)

    def list(self, kind: str, prefix: str = "", *, deadline: float) -> builtins.list[Record]:
        def ask(deadline: float) -> builtins.list[Record]:
            return self._store.list(kind, prefix, deadline=deadline)

        keys = [["list", kind, prefix]]
        if prefix:
            keys.append(["list", kind, ""])
        found = self._reading(ask, builtins.list[Record], keys, deadline)
        return [record for record in found if record.name.startswith(prefix)]

    def _reading(
        self,
        ask: Callable[[float], T],
        type: Any,
        keys: Sequence[Sequence[str]],
        deadline: float,
    ) -> T:
        """What the store answers, else what the first of these readings was."""
        kept = self._kept(keys)
        failure: FanError | None = None
        if kept is None or self._down_until is None or self._clock() >= self._down_until:
            left = deadline - time.monotonic()
            patience = left if kept is None else min(left * _SHARE, _MOST)
            try:
                found = ask(time.monotonic() + patience)
            except (Unavailable, DeadlineExceeded) as exc:
                failure = exc
                self._down_until = self._clock() + DOWN
            else:
                self._down_until = self.age = None
                self._keep(keys[0], found, kept)
                return found
        if kept is not None:
            with contextlib.suppress(msgspec.MsgspecError):
                value: T = msgspec.json.decode(kept.found, type=type)
                self.age = max(kept.age, self.age or 0.0)
                self._on_stale(self.age)
                return value
        if failure is None:  # what was kept is damaged
            return ask(deadline)
        raise failure

    def _kept(self, keys: Sequence[Sequence[str]]) -> _Kept | None:
        """The first of these readings that is there and young enough."""
        for key in keys:
            path = self._path(key)
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                with open(path, "rb") as file:
                    age = max(0.0, time.time() - os.fstat(file.fileno()).st_mtime)
                    if age > self._max_stale:
                        continue
                    reading = msgspec.json.decode(file.read(), type=_Reading)
                if reading.of == [self._name, *key]:
                    return _Kept(path, bytes(reading.found), age)
        return None

    def _keep(self, key: Sequence[str], value: Any, kept: _Kept | None) -> None:
        """Whoever cannot write here goes without. What is `kept` already only becomes younger: a
        command would wait for the disk to replace a file."""
        path = self._path(key)
        found = msgspec.json.encode(value)
        with contextlib.suppress(OSError):
            if kept is not None and kept.path == path and kept.found == found:
                os.utime(path)
                return
            temporary = f"{path}.{os.getpid()}-{get_ident()}"
            body = _Reading([self._name, *key], msgspec.Raw(found))
            is_new_registry = not os.path.isdir(self._folder)
            os.makedirs(self._folder, 0o700, exist_ok=True)
            is_new = not os.path.exists(path)
            with open(temporary, "wb", opener=_private) as file:
                file.write(msgspec.json.encode(body))
            os.replace(temporary, path)
            if is_new_registry:
                for other in os.scandir(os.path.dirname(self._folder)):
                    if _is_name(other.name):
                        self._prune(other.path)
            elif is_new:
                self._prune(self._folder)

    def _prune(self, folder: str) -> None:
        """Remove the readings of one registry that are too old or too many, and their folder with
        the last one. Somebody else may be doing the same."""
        found = []
        for entry in os.scandir(folder):
            if _is_name(entry.name.partition(".")[0]):
                with contextlib.suppress(OSError):
                    found.append((entry.stat().st_mtime, entry.path))
        found.sort(reverse=True)
        oldest = time.time() - max(self._max_stale, _KEPT_FOR)
        for number, (at, path) in enumerate(found):
            if number >= _KEPT or at < oldest:
                with contextlib.suppress(OSError):
                    os.unlink(path)
        with contextlib.suppress(OSError):  # not empty, most often
            os.rmdir(folder)

    def _path(self, key: Sequence[str]) -> str:
        return os.path.join(self._folder, f"{_name(chr(0).join(key))}.json")

    # What may not

    def head(self, *, deadline: float) -> Head:
        return self._store.head(deadline=deadline)

    def revision(self, object: str, rev: int, *, deadline: float) -> Revision:
        return self._store.revision(object, rev, deadline=deadline)

    def commit(self, plan: Plan, *, op: str = "", deadline: float) -> Committed:
        return self._store.commit(plan, op=op, deadline=deadline)

    def log(self, after: int, upto: int | None = None, *, deadline: float) -> builtins.list[Entry]:
        return self._store.log(after, upto, deadline=deadline)

    def watch(self, kind: str, callback: Callable[[Hint], None]) -> Watch:
        return self._store.watch(kind, callback)

    def open_session(
        self, *, on_lost: Callable[[], None] | None = None, deadline: float
    ) -> Session:
        return self._store.open_session(on_lost=on_lost, deadline=deadline)

    def put(
        self,
        kind: str,
        name: str,
        body: bytes,
        *,
        session: Session | None = None,
        is_new: bool = False,
        deadline: float,
    ) -> None:
        self._store.put(kind, name, body, session=session, is_new=is_new, deadline=deadline)

    def delete(
        self, kind: str, name: str, *, session: Session | None = None, deadline: float
    ) -> bool:
        return self._store.delete(kind, name, session=session, deadline=deadline)

    def problems(self, *, deadline: float) -> Sequence[str]:
        return self._store.problems(deadline=deadline)

    def close(self) -> None:
        self._store.close()


def _name(text: str) -> str:
    """A short name for a text. What is found under it says itself whose it is, so that this need
    not be the name of nothing else: a hash of that kind costs a command 5 ms to import."""
    return f"{int.from_bytes(text.encode(), 'big') % _PRIME:016x}"


def _is_name(text: str) -> bool:
    """Whether it can be one of those, and what has it be ours."""
    return len(text) == 16 and set(text) <= set("0123456789abcdef")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
