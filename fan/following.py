"""Follow the generations of a namespace: each one once, in order, also over restarts.

A watch of the store is a hint to look again and never the data; what happened is read from the log.
Generations are dense and each entry names the op of the one before, so that a gap and a history
that was rewritten behind our back are always seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Literal, Self

import msgspec

from fan.errors import DeadlineExceeded, InvalidArgument, NotFound, Unavailable
from fan.stores.base import HEAD, Diff, Entry, Head, Store, Watch

#: Seconds between two looks that nobody asked for.
IDLE = 30.0
#: Seconds between two tries while the store cannot be read: the first, and the longest.
RETRY, LONGEST_RETRY = 0.2, 5.0

#: Why the generations after a cursor cannot be had: there is no cursor; the history is another one
#: than it was; the oldest of them are not kept any more.
Gap = Literal["start", "reset", "compacted"]


class Cursor(msgspec.Struct, frozen=True):
    """How far somebody has come: everything up to generation `gen` of `epoch`, whose op was `op`
    (empty where it is not known). `str()` is the form that is printed and accepted."""

    epoch: str
    gen: int
    op: str = ""

    def __str__(self) -> str:
        return f"{self.epoch}:{self.gen}:{self.op}" if self.op else f"{self.epoch}:{self.gen}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read `epoch:gen` or `epoch:gen:op`. Raises InvalidArgument (bad_cursor)."""
        epoch, colon, rest = text.strip().partition(":")
        gen, _, op = rest.partition(":")
        if not colon or not (gen.isascii() and gen.isdecimal()) or len(gen) > 18 or ":" in op:
            raise InvalidArgument(
                f"{text!r} is no cursor: it looks like EPOCH:GENERATION or EPOCH:GENERATION:OP",
                reason="bad_cursor",
            )
        return cls(epoch, int(gen), op)

    @classmethod
    def of(cls, head: Head) -> Cursor:
        """The cursor of who has seen everything up to `head`."""
        return cls(head.epoch, head.gen, head.op)

    @property
    def names_op(self) -> bool:
        """Whether it tells the op of its generation; of generation 0 that is none."""
        return bool(self.op) or not self.gen


class Advance(msgspec.Struct, frozen=True):
    """What lies between a cursor and the head: all generations, oldest first, or a gap."""

    head: Head
    entries: tuple[Entry, ...] = ()
    gap: Gap | None = None


def advance(store: Store, cursor: Cursor | None, *, deadline: float) -> Advance:
    """What happened since `cursor`."""
    head = store.head(deadline=deadline)
    if cursor is None:
        return Advance(head, gap="start")
    if is_rewritten(cursor, head):
        return Advance(head, gap="reset")
    if head.gen == cursor.gen:
        return Advance(head)
    entries = store.log(cursor.gen, head.gen, deadline=deadline)
    if [entry.gen for entry in entries] != list(range(cursor.gen + 1, head.gen + 1)):
        # Trimmed, unless the registry was put back or made anew between the two readings.
        again = store.head(deadline=deadline)
        is_other = is_rewritten(cursor, again) or is_rewritten(Cursor.of(head), again)
        return Advance(again, gap="reset" if is_other else "compacted")
    said = cursor.op if cursor.names_op else entries[0].prev
    for entry in entries:
        if entry.prev != said:
            return Advance(head, gap="reset")
        said = entry.op
    return Advance(head, tuple(entries))


def is_rewritten(cursor: Cursor, head: Head) -> bool:
    """Whether the history that ends in `head` cannot be the one that the cursor is of."""
    if cursor.epoch != head.epoch and (cursor.epoch or cursor.gen):
        return True
    if head.gen != cursor.gen:
        return head.gen < cursor.gen
    return cursor.names_op and head.op != cursor.op


class Step(msgspec.Struct, frozen=True):
    """One step of following. `cursor` is how far one has come when it was handled.

    "snapshot": `what` is the state, read anew: the first step without a cursor, and the one after
    "reset" and "compacted", which have no cursor, so that who dies in between is told again.
    "generation": `entry` is the next one, and `what` is what was looked up for it. "disconnected"
    and "connected" speak of the store. "idle": there is no more for now.
    """

    kind: Literal[
        "snapshot", "generation", "reset", "compacted", "disconnected", "connected", "idle"
    ]
    cursor: Cursor | None = None
    entry: Entry | None = None
    what: Any = None


class Follower:
    """An endless iterator of steps, to be used by one thread; `close()` may come from any.

    `read` gives a consistent state and its head; `look` what is wanted of one generation, None to
    be told nothing of it. Both get the store and a deadline. With `latest` the generations that are
    waiting count as one, with what they came to. It raises what `read` raises at the first look,
    and later on only what waiting does not mend.
    """

    def __init__(
        self,
        store: Store,
        *,
        read: Callable[[Store, float], tuple[Head, Any]],
        look: Callable[[Store, Entry, float], Any],
        cursor: Cursor | None = None,
        latest: bool = False,
        timeout: float = 5.0,
    ) -> None:
        self.cursor = cursor
        self._store = store
        self._read = read
        self._look = look
        self._is_latest = latest
        self._timeout = timeout
        self._hints: SimpleQueue[str] = SimpleQueue()
        self._is_new = True
        self._is_connected = True
        self._is_closed = False
        # Armed before the first reading: what is written after it wakes us.
        self._watch: Watch = store.watch(HEAD, self._hints.put)

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "open" if self._is_connected else "disconnected"
        return f"<Follower {state} at {self.cursor}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End it; a thread that waits in it is released. Twice does no harm."""
        self._is_closed = True
        self._watch.close()
        self._hints.put("closed")

    def __iter__(self) -> Iterator[Step]:
        retry = RETRY
        while not self._is_closed:
            wait = IDLE
            try:
                yield from self._advance()
                self._is_new, retry = False, RETRY
                yield Step("idle", self.cursor)
            except (Unavailable, DeadlineExceeded):
                if self._is_new:
                    raise
                if self._is_connected:
                    self._is_connected = False
                    yield Step("disconnected")
                wait, retry = retry, min(2 * retry, LONGEST_RETRY)
            if "lost" in self._wait(wait) and self._is_connected:
                self._is_connected = False
                yield Step("disconnected")

    def _wait(self, seconds: float) -> list[str]:
        """The hints that came, after at most `seconds`."""
        hints = []
        try:
            hints.append(self._hints.get(timeout=seconds))
            while True:
                hints.append(self._hints.get_nowait())
        except Empty:
            return hints

    def _deadline(self) -> float:
        return time.monotonic() + self._timeout

    def _advance(self) -> Iterator[Step]:
        found = advance(self._store, self.cursor, deadline=self._deadline())
        if not self._is_connected:
            self._is_connected = True
            yield Step("connected")
        if found.gap is not None:
            yield from self._start_over(found.gap)
            return
        if self.cursor is not None and found.head.gen == self.cursor.gen:
            # The first write gives the namespace its epoch; an op that was not known is by now.
            self.cursor = Cursor.of(found.head)
        entries = found.entries
        if self._is_latest and len(entries) > 1:
            entries = (coalesce(entries),)
        for entry in entries:
            try:
                what = self._look(self._store, entry, self._deadline())
            except NotFound:  # trimmed since the log was read
                yield from self._start_over("compacted")
                return
            self.cursor = Cursor(found.head.epoch, entry.gen, entry.op)
            if what is not None:
                yield Step("generation", self.cursor, entry, what)

    def _start_over(self, gap: Gap) -> Iterator[Step]:
        head, what = self._read(self._store, self._deadline())
        if gap != "start":
            yield Step(gap, what=head)
        self.cursor = Cursor.of(head)
        yield Step("snapshot", self.cursor, None, what)


def coalesce(entries: Sequence[Entry]) -> Entry:
    """Consecutive generations as one: the last of them, with what all of them did together."""
    merged: dict[str, Diff] = {}
    for entry in entries:
        for diff in entry.diff:
            first = merged.pop(diff.object, diff)
            merged[diff.object] = Diff(diff.object, first.before, diff.after)
    left = tuple(diff for diff in merged.values() if diff.before != diff.after)
    return msgspec.structs.replace(entries[-1], diff=left)

