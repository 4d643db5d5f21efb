"""The configs that an App uses, kept at hand and kept fresh."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from fan.config_values import CONFIG, MISSING, decode
from fan.config_watch import read_names
from fan.errors import FanError, NotFound
from fan.following import Cursor, advance, touched
from fan.stores.base import HEAD, Hint, Store, Watch


class State(msgspec.Struct, frozen=True):
    """All that is used, as of one generation: an object that is not there has no entry."""

    cursor: Cursor | None = None
    names: frozenset[str] = frozenset()
    values: dict[str, Any] = {}

    def wants(self, object: str) -> bool:
        """Whether an object belongs to a name in use: a key, or a prefix that ends in `/`."""
        key = object.removeprefix(CONFIG)
        if not object.startswith(CONFIG):
            return False
        return key in self.names or any(
            name.endswith("/") and key.startswith(name) for name in self.names
        )


class Live:
    """What was asked for once is watched from then on. A reader takes `state`, which is replaced in
    one assignment and never changed, so that whatever it reads there belongs together."""

    def __init__(self, open: Callable[[], Store], timeout: float) -> None:
        self.state = State()
        self._open = open
        self._timeout = timeout
        self._lock = threading.Lock()
        self._watch: Watch | None = None
        self._listeners: list[Callable[[], None]] = []
        self._is_closed = False

    def use(self, *names: str, deadline: float | None = None) -> State:
        """A state that has these keys and prefixes in it."""
        state = self.state
        if state.names.issuperset(names):
            return state
        if deadline is None:
            deadline = time.monotonic() + self._timeout
        with self._lock:
            store = self._open()
            if self._watch is None and not self._is_closed:
                # Before the first reading; a call that comes at once waits for us.
                self._watch = store.watch(HEAD, self._on_hint)
            before = self.state
            self.state = state = self._read(store, before.names.union(names), deadline)
        if any(state.values.get(k, MISSING) != value for k, value in before.values.items()) or any(
            k not in before.values and before.wants(CONFIG + k) for k in state.values
        ):
            self._tell()  # the reading brought a change of what was in use before
        return state

    def _read(self, store: Store, names: frozenset[str], deadline: float) -> State:
        cut = read_names(store, sorted(names), deadline)
        found = {o.removeprefix(CONFIG): _value(o, r.body) for o, r in cut.objects.items()}
        return State(Cursor.of(cut.head), names, _there(found))

    def refresh(self, deadline: float | None = None) -> None:
        """Catch up with the registry."""
        if deadline is None:
            deadline = time.monotonic() + self._timeout
        with self._lock:
            before = self.state
            if before.names and not self._is_closed:
                self.state = self._advanced(before, deadline)
            is_changed = self.state.values != before.values
        if is_changed:
            self._tell()

    def _tell(self) -> None:
        for listener in list(self._listeners):
            listener()

    def _advanced(self, state: State, deadline: float) -> State:
        store = self._open()
        found = advance(store, state.cursor, deadline=deadline)
        if found.gap is not None:
            return self._read(store, state.names, deadline)
        values = dict(state.values)
        try:
            for object, rev in touched(found.entries, state.wants).items():
                body = store.revision(object, rev, deadline=deadline).body if rev else None
                values[object.removeprefix(CONFIG)] = _value(object, body)
        except NotFound:  # trimmed since the log was read
            return self._read(store, state.names, deadline)
        return State(Cursor.of(found.head), state.names, _there(values))

    def _on_hint(self, hint: Hint) -> None:
        if hint == "lost":
            return  # what is at hand is the best there is until the store is back
        try:
            self.refresh()
        except FanError as exc:
            # It stays as it was; the next hint reads it again.
            logging.getLogger("fan.config").warning("configs could not be read again: %s", exc)

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have `listener` called after each change of what is used. Returns what ends it."""
        self._listeners.append(listener)

        def end() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return end

    def close(self) -> None:
        """End the watch. Twice does no harm."""
        with self._lock:
            self._is_closed = True
            watch, self._watch = self._watch, None
            self._listeners.clear()
        if watch is not None:
            watch.close()


def _value(object: str, body: bytes | None) -> Any:
    """What a body holds; `MISSING` for none, and for one that somebody damaged: it must not keep
    the others from being read."""
    try:
        return MISSING if body is None else decode(object, body)
    except FanError as exc:
        logging.getLogger("fan.config").warning("%s", exc)
        return MISSING


def _there(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not MISSING}
