"""What an App uses of the registry, kept at hand as of one generation.

Routes, policies and configs come from one mirror, so that what a call reads here belongs together.
A reader takes `state`, which is replaced in one assignment and never changed. A change that does
not fit what is built on it (a typed config) is refused as a whole: the last good state stays.

One reading at a time is under way, and who waits for it does so until its deadline. What hears of a
new state inside of it only takes that over; whatever may wait for something (brokers, a program's
own functions, the acknowledgement) is done behind it, by threads of its own (`chores`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from fan.chores import FAREWELL, RETRY, Chore, held
from fan.errors import NO, DeadlineExceeded, FanError, NotFound, Unavailable
from fan.stores.base import HEAD, Cut, Entry, Hint, Revision, Store, Watch

#: Names that were looked at in passing and are kept; at twice as many the older half goes.
MOST_PASSING = 1000


class State(msgspec.Struct, frozen=True):
    """All that is used, as of one generation. `names` are objects, and prefixes that end in `/`; an
    object that is not there has no entry. A revision's `pinned_at` is the generation since which it
    is in force."""

    #: A `following.Cursor`.
    cursor: Any = None
    names: frozenset[str] = frozenset()
    objects: Mapping[str, Revision] = {}

    @property
    def gen(self) -> int:
        """The generation, 0 where nothing was read."""
        return self.cursor.gen if self.cursor is not None else 0

    def wants(self, object: str) -> bool:
        """Whether an object belongs to a name in use."""
        return object in self.names or any(
            name.endswith("/") and object.startswith(name) for name in self.names
        )

    def body(self, object: str) -> bytes | None:
        """What an object holds, None for nothing."""
        found = self.objects.get(object)
        return found.body if found is not None else None


class Witness(Protocol):
    """Who tells the registry what this mirror has in force (`consumer.Registration`)."""

    def extend(self, names: Iterable[str], deadline: float) -> None:
        """Called before `names` are read for the first time."""

    def narrow(self, names: Iterable[str]) -> None:
        """Only `names` are in use any more. Returns at once."""

    def applied(self, state: State, entries: Iterable[Entry] | None) -> None:
        """A state is in force; `entries` are the generations since the one before, None where they
        are not known. Returns at once."""

    def refused(self, gen: int, error: FanError) -> None:
        """The state of generation `gen` does not fit; the one before stays in force. Returns at
        once."""


class Mirror:
    """What was asked for once is watched from then on."""

    def __init__(
        self, open: Callable[[], Store], timeout: float = 5.0, *, on_loss: str = "stale"
    ) -> None:
        """`on_loss` decides what happens where the registry gave us up and what it has now is
        refused: "stale" goes on with the last good state, "fail" fails what uses it."""
        self.state = State()
        #: The generation of the state, for those who ask at every call.
        self.gen = 0
        self.witness: Witness | None = None
        self._open = open
        self._timeout = timeout
        #: Held by who reads: see `held`.
        self._lock = threading.RLock()
        #: Reads again where the reading behind a hint failed: no other hint may come.
        self._catching_up = Chore("fan-mirror", "read the registry again", self._catch_up)
        #: Names that nothing is built on, the oldest first.
        self._passing: dict[str, None] = {}
        self._watch: Watch | None = None
        self._checks: list[Callable[[State], None]] = []
        self._listeners: list[Callable[[State], None]] = []
        #: What was wrong with the state that was refused last, as it was told.
        self._refusal = ""
        self._is_closed = False
        self._on_loss = on_loss
        #: Whether the state may be behind what others were told of us: it must not be used.
        self.is_dropped = False

    def __repr__(self) -> str:
        return f"<Mirror of {len(self.state.names)} names at {self.state.cursor}>"

    def use(self, *names: str, deadline: float | None = None, is_passing: bool = False) -> State:
        """A state that has these objects and prefixes in it. Those that are only ever looked at in
        passing, with nothing built on them, are let go once many others came after them. Raises
        what the store raises."""
        state = self.state
        is_kept = is_passing or self._passing.keys().isdisjoint(names)
        if is_kept and not self.is_dropped and state.names.issuperset(names):
            return state
        deadline = self._deadline(deadline)
        with held(self._lock, deadline):
            store = self._open()
            if self._watch is None and not self._is_closed:
                # Before the first reading; a call that comes at once waits for us.
                self._watch = store.watch(HEAD, self._on_hint)
            before = self.state
            new = frozenset(names) - before.names
            if self.witness is not None and new:
                self.witness.extend(names, deadline)
            if self.is_dropped or not before.gen:
                found = self._read(store, before.names | new, deadline)
                self._settle(self._take(found, before, deadline))
            elif new:
                self._add(store, new, deadline)
            self._note_passing(names if not is_passing else (), new if is_passing else ())
            return self.state

    def _add(self, store: Store, new: frozenset[str], deadline: float) -> None:
        """Have new names in the state, which is brought to the head with them. The others are not
        read again: there may be many."""
        from fan.following import Cursor

        before = self.state
        cut = read_names(store, new, deadline)
        if Cursor.of(cut.head) != before.cursor:
            self._settle(self._advance(before, deadline))
            before = self.state  # of the head, or as before where that is refused
            try:
                cut = read_names(store, new, deadline, gen=before.gen)
            except NotFound:  # not kept any more, or there is none
                found = self._read(store, before.names | new, deadline)
                self._settle(self._take(found, before, deadline))
                return
        # Nothing changed that somebody goes by: nobody is told.
        self.state = State(before.cursor, before.names | new, {**before.objects, **cut.objects})

    def _note_passing(self, kept: Iterable[str], passing: Iterable[str]) -> None:
        for name in kept:
            self._passing.pop(name, None)
        self._passing.update(dict.fromkeys(passing))
        if len(self._passing) <= 2 * MOST_PASSING:
            return
        old = list(self._passing)[:-MOST_PASSING]
        for name in old:
            del self._passing[name]
        state = self.state
        names = state.names.difference(old)
        prefixes = tuple(name for name in names if name.endswith("/"))
        self.state = State(
            state.cursor,
            names,
            {n: r for n, r in state.objects.items() if n in names or n.startswith(prefixes)},
        )
        if self.witness is not None:
            self.witness.narrow(names)

    def refresh(self, deadline: float | None = None) -> State:
        """Catch up with the registry. Raises what the store raises."""
        deadline = self._deadline(deadline)
        with held(self._lock, deadline):
            before = self.state
            if before.names and not self._is_closed:
                self._settle(self._advance(before, deadline))
            return self.state

    def _settle(self, is_taken: bool) -> None:
        """Decide whether what is in force may be used. Raises Unavailable, executed no."""
        if is_taken or not self.is_dropped or self._on_loss == "stale":
            self.is_dropped = False
            return
        raise Unavailable(
            "the registry gave this App up, and what it has now is refused here",
            reason="stale_cut",
            executed=NO,
        )

    def drop(self) -> None:
        """Have the next use read everything anew: others may believe that we are gone."""
        self.is_dropped = True

    def _read(self, store: Store, names: frozenset[str], deadline: float) -> State:
        from fan.following import Cursor

        cut = read_names(store, names, deadline)
        return State(Cursor.of(cut.head), names, dict(cut.objects))

    def _advance(self, before: State, deadline: float) -> bool:
        from fan.following import Cursor, advance

        store = self._open()
        found = advance(store, before.cursor, deadline=deadline)
        if found.gap is not None:
            return self._take(self._read(store, before.names, deadline), before, deadline)
        objects = dict(before.objects)
        moved = {
            diff.object: (diff.after, entry.gen)
            for entry in found.entries
            for diff in entry.diff
            if before.wants(diff.object)
        }
        try:
            for object, (rev, gen) in moved.items():
                revision = store.revision(object, rev, deadline=deadline) if rev else None
                if revision is None or revision.body is None:
                    objects.pop(object, None)
                else:
                    objects[object] = msgspec.structs.replace(revision, pinned_at=gen)
        except NotFound:  # trimmed since the log was read
            return self._take(self._read(store, before.names, deadline), before, deadline)
        after = State(Cursor.of(found.head), before.names, objects if moved else before.objects)
        return self._take(after, before, deadline, found.entries)

    def _take(
        self,
        after: State,
        before: State,
        deadline: float,
        entries: tuple[Entry, ...] | None = None,
    ) -> bool:
        """Put a state in force; or refuse it, keep the one before with what is new in it, and
        return False."""
        try:
            self.check(after)
        except FanError as exc:
            if self._refusal != str(exc):  # once, not for each generation and hint until it is good
                self._refusal = str(exc)
                _log().warning("generation %d is refused: %s", after.gen, exc)
            if after.names != before.names:
                self.state = self._as_of(before, after, deadline)
            if self.witness is not None:
                self.witness.refused(after.gen, exc)
            return False
        self.state, self.gen, self._refusal = after, after.gen, ""
        if after.objects != before.objects:
            for listener in list(self._listeners):
                try:
                    listener(after)
                except Exception:  # the others are told all the same
                    _log().exception("generation %d was not taken over by all", after.gen)
        if self.witness is not None:
            self.witness.applied(after, entries)
        return True

    def _as_of(self, before: State, after: State, deadline: float) -> State:
        """What was in force, with the new names as they were then."""
        if before.cursor is None or not before.gen:
            return State(before.cursor, after.names, before.objects)
        cut = read_names(self._open(), after.names, deadline, gen=before.gen)
        return State(before.cursor, after.names, dict(cut.objects))

    def check(self, state: State) -> None:
        """Raise FanError where a state would not fit what is built on this mirror."""
        for check in list(self._checks):
            check(state)

    def validate(self, check: Callable[[State], None]) -> Callable[[], None]:
        """Have `check` asked before a state is put in force: it raises FanError to refuse it.
        Returns what ends that."""
        return _entered(self._checks, check)

    def listen(self, listener: Callable[[State], None]) -> Callable[[], None]:
        """Have `listener` called with each state whose objects differ from the one before, before
        that is acknowledged: it takes over what calls go by, and waits for nobody (who reads
        meanwhile waits for it). Returns what ends that."""
        return _entered(self._listeners, listener)

    def _on_hint(self, hint: Hint) -> None:
        if hint == "lost":
            return  # what is at hand is the best there is until the store is back
        try:
            self._catch_up()
        except FanError as exc:
            _log().warning("the registry could not be read again: %s", exc)
            self._catching_up.ask(RETRY)

    def _catch_up(self) -> None:
        try:
            self.refresh()
        except Unavailable as exc:
            if exc.reason != "stale_cut":  # that is for who uses it; reading it again mends nothing
                raise

    def close(self) -> None:
        """End the watch. Twice does no harm."""
        self._is_closed = True
        self._catching_up.close()
        with suppress(DeadlineExceeded), held(self._lock, time.monotonic() + FAREWELL):
            self._listeners.clear()
            self._checks.clear()
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    def _deadline(self, deadline: float | None) -> float:
        return time.monotonic() + self._timeout if deadline is None else deadline


def read_names(
    store: Store, names: Iterable[str], deadline: float, *, gen: int | None = None
) -> Cut:
    """The objects of these names, and all below those that end in `/`, in one consistent
    reading."""
    names = sorted(names)
    for _ in range(3):
        try:
            return _read_once(store, names, deadline, gen)
        except NotFound:
            if gen is not None:
                raise
            continue  # the generation went away between the first prefix and the last
    return _read_once(store, names, deadline, gen)


def _read_once(store: Store, names: list[str], deadline: float, gen: int | None) -> Cut:
    prefixes = [name for name in names if name.endswith("/")]
    plain = [name for name in names if not name.endswith("/")]
    cut = store.read(plain, gen=gen, deadline=deadline)
    objects, deleted = dict(cut.objects), dict(cut.deleted)
    for prefix in prefixes:
        # Of the same generation as the first: what changes in between is not in it.
        at = gen if gen is not None else cut.head.gen or None
        below = store.read(prefix=prefix, gen=at, deadline=deadline)
        objects.update(below.objects)
        deleted.update(below.deleted)
    return Cut(cut.head, objects, deleted)


def _entered(entries: list[Callable[[State], None]], entry: Callable[[State], None]) -> Callable[
    [], None
]:  # fmt: skip
    entries.append(entry)

    def end() -> None:
        if entry in entries:
            entries.remove(entry)

    return end


def _log() -> Any:
    import logging  # a one-shot command has nothing to log

    return logging.getLogger("fan")
