"""Who has a generation in force, and waiting until they have.

An acknowledgement counts only where its op is the one that the history has for its generation, and
only after the head was read: a history that was rewritten behind our back is seen, and nobody is
taken for confirmed on another one of the same number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from math import ceil
from queue import Empty, SimpleQueue

import msgspec

from fan.consumer import SUBSCRIBERS, registered, users_of
from fan.errors import MAYBE, YES, Aborted, DeadlineExceeded, FanError, Unavailable
from fan.following import RETRY, Cursor, advance
from fan.model import Consumer
from fan.stores.base import HEAD, Entry, Store

#: Seconds between two looks that nobody asked for.
IDLE = 5.0
#: Seconds in which hints are gathered: a hundred acknowledgements come as one.
GATHER = 0.004


class Tally(msgspec.Struct, frozen=True):
    """How the consumers of a generation stand. `lost` are those that were there and are gone
    without having applied it: they may still be calling as before."""

    applied: tuple[Consumer, ...] = ()
    pending: tuple[Consumer, ...] = ()
    nacked: tuple[Consumer, ...] = ()
    lost: tuple[Consumer, ...] = ()

    @property
    def total(self) -> int:
        """How many are there to apply it."""
        return len(self.applied) + len(self.pending) + len(self.nacked)

    @property
    def laggards(self) -> tuple[Consumer, ...]:
        """Those that are there and have not applied it."""
        return (*self.pending, *self.nacked)

    def is_enough(self, need: float) -> bool:
        """Whether that share of them has applied it."""
        return len(self.applied) >= ceil(self.total * need - 1e-9)

    def is_hopeless(self, need: float) -> bool:
        """Whether so many refused it that waiting is no use."""
        return self.total - len(self.nacked) < ceil(self.total * need - 1e-9)


class Confirm(msgspec.Struct, frozen=True, kw_only=True):
    """How a new generation is to be confirmed: by which share of its consumers (`need`, 0: nobody
    is waited for), within how many seconds, and whether it is taken back where it is not. With
    `prepare` all of them say before whether they can take it, or nothing is changed. `on_commit` is
    called with the new generation, and the one that it undoes, before it is confirmed;
    `on_progress` with each change of the tally."""

    need: float = 1.0
    timeout: float = 30.0
    auto_rollback: bool = False
    prepare: bool = False
    on_commit: Callable[[int, Entry | None], None] | None = None
    on_progress: Callable[[Tally], None] | None = None


def consumers(store: Store, services: Iterable[str], deadline: float) -> dict[str, Consumer]:
    """The consumers of any of these services, by id."""
    wanted = frozenset(services)
    found = map(registered, store.list(SUBSCRIBERS, deadline=deadline))
    return {c.id: c for c in found if c is not None and not wanted.isdisjoint(c.uses)}


def services_of(objects: Iterable[str]) -> frozenset[str]:
    """The services whose consumers a change of these objects concerns."""
    return frozenset(owner for object in objects if (owner := users_of(object)))


class Roll:
    """The consumers of one generation, and whether they have it in force. `seen` are those that
    were there before it: who of them is gone is lost. With `objects` only what it did to those
    counts."""

    def __init__(
        self,
        store: Store,
        epoch: str,
        entry: Entry,
        *,
        seen: Iterable[Consumer] = (),
        objects: Iterable[str] | None = None,
        leave_out: Iterable[str] = (),
    ) -> None:
        self.entry = entry
        self._store = store
        self._epoch = epoch
        wanted = None if objects is None else frozenset(objects)
        self._before = {
            d.object: d.before for d in entry.diff if wanted is None or d.object in wanted
        }
        self._services = services_of(self._before)
        self._left_out = frozenset(leave_out)
        self._seen = {consumer.id: consumer for consumer in seen}
        self._applied: dict[str, Consumer] = {}
        self._cursor = Cursor(epoch, entry.gen, entry.op)
        #: Generation -> its op, from ours on.
        self._ops = {entry.gen: entry.op}
        #: What was done to our objects since.
        self._later: list[Entry] = []

    def __repr__(self) -> str:
        return f"<Roll of generation {self.entry.gen}, {len(self._applied)} applied>"

    def look(self, deadline: float) -> Tally:
        """How they stand now. Raises Aborted (undone_by, superseded_by), Unavailable (reset) where
        the generation is not in the history any more, and what the store raises."""
        self._follow(deadline)
        self._check_in_force()
        found = consumers(self._store, self._services, deadline)
        if any(c.applied.gen > self._cursor.gen for c in found.values()):
            self._follow(deadline)
        for consumer in found.values():
            if self._has_applied(consumer):
                self._applied[consumer.id] = consumer
            else:
                self._applied.pop(consumer.id, None)
        self._seen |= found
        return self._tally(found)

    def _tally(self, found: dict[str, Consumer]) -> Tally:
        here = [c for id, c in sorted(found.items()) if id not in self._left_out]
        behind = [c for c in here if c.id not in self._applied]
        nacked = tuple(c for c in behind if c.nack is not None and c.nack.gen >= self.entry.gen)
        gone = (c for id, c in sorted(self._seen.items()) if id not in found)
        # Who applied it and left in good order has nothing left to apply.
        left = tuple(self._applied[c.id] for c in gone if c.id in self._applied)
        lost = tuple(
            c for id, c in sorted(self._seen.items())
            if id not in found and id not in self._applied and id not in self._left_out
        )  # fmt: skip
        applied = tuple(self._applied[c.id] for c in here if c.id in self._applied)
        return Tally(
            (*applied, *left), tuple(c for c in behind if c not in nacked), nacked, lost
        )

    def _has_applied(self, consumer: Consumer) -> bool:
        said = consumer.applied
        return (
            said.gen >= self.entry.gen
            and said.epoch == self._epoch
            and self._ops.get(said.gen) == said.op
        )

    def _follow(self, deadline: float) -> None:
        """Read what came since; the head first, in the session in which the acks are read."""
        found = advance(self._store, self._cursor, deadline=deadline)
        if found.gap == "compacted":  # more than a history since the last look
            self._ops[found.head.gen] = found.head.op
        elif found.gap is not None:
            raise Unavailable(
                f"the registry was put back or made anew: generation {self.entry.gen} is not in it"
                " as it was made",
                reason="reset",
                executed=MAYBE,
            )
        for entry in found.entries:
            self._ops[entry.gen] = entry.op
            if any(diff.object in self._before for diff in entry.diff):
                self._later.append(entry)
        self._cursor = Cursor.of(found.head)

    def _check_in_force(self) -> None:
        if not self._later:
            return
        first, gen = self._later[0], self.entry.gen
        is_back = first.verb == "rollback" and all(
            self._before.get(diff.object, diff.after) == diff.after for diff in first.diff
        )
        what = "undone_by" if first.undo_of == gen or is_back else "superseded_by"
        raise Aborted(
            f"generation {gen} is {what.replace('_', ' ')} generation {first.gen}",
            reason=what,
            executed=YES,
            details={what: first.gen, "gen": gen},
        )


def wait(store: Store, roll: Roll, how: Confirm, timeout: float) -> Tally:
    """How they stand once enough have applied it, or as many refused that it cannot be, or the time
    of `how` is over. A registry that is away meanwhile is waited for; `timeout` is the time of one
    look. Raises what `Roll.look` raises."""
    until = time.monotonic() + (how.timeout if how.need else timeout)
    tally, known = Tally(), False
    for left in looks(store, until):
        try:
            now = roll.look(time.monotonic() + min(timeout, max(left, RETRY)))
        except (Unavailable, DeadlineExceeded) as exc:
            if exc.reason == "reset":
                raise
            continue
        if (not known or now != tally) and how.on_progress is not None:
            how.on_progress(now)
        tally, known = now, True
        if not how.need or tally.is_enough(how.need) or tally.is_hopeless(how.need):
            break
    return tally


def looks(store: Store, until: float) -> Iterator[float]:
    """The seconds that are left, each time when it is worth to look: at once, after each change of
    the consumers or the generations, and once more when the time is over."""
    with _hints(store) as hints:
        while True:
            left = until - time.monotonic()
            yield left
            if left <= 0:
                return
            try:
                hints.get(timeout=min(left, IDLE))
                time.sleep(GATHER)
                while True:
                    hints.get_nowait()
            except Empty:
                continue


@contextmanager
def _hints(store: Store) -> Iterator[SimpleQueue[str]]:
    hints: SimpleQueue[str] = SimpleQueue()
    watches = []
    try:
        watches.append(store.watch(SUBSCRIBERS, hints.put))
        watches.append(store.watch(HEAD, hints.put))
        yield hints
    finally:
        for watch in watches:
            watch.close()


def not_confirmed(gen: int, tally: Tally) -> FanError:
    """The error for a generation that is in force and was not confirmed."""
    refused = [f"{who(c)} refused it: {c.nack.error}" for c in tally.nacked if c.nack is not None]
    behind = [f"{who(c)} is at generation {c.applied.gen}" for c in tally.pending]
    return DeadlineExceeded(
        f"generation {gen} is in force, and {len(tally.laggards)} of its {tally.total} subscribers"
        f" have not applied it: {'; '.join([*refused, *behind])}",
        reason="not_confirmed",
        executed=YES,
        details={"gen": gen, "laggards": [told(c) for c in tally.laggards]},
    )


def who(consumer: Consumer) -> str:
    """A consumer in a few words."""
    return f"{consumer.app or consumer.id} (host {consumer.host}, pid {consumer.pid})"


def told(consumer: Consumer) -> dict[str, object]:
    """A consumer as JSON."""
    found: dict[str, object] = {
        "id": consumer.id,
        "app": consumer.app,
        "host": consumer.host,
        "pid": consumer.pid,
        "gen": consumer.applied.gen,
    }
    if consumer.nack is not None:
        found["nack"] = {"gen": consumer.nack.gen, "error": consumer.nack.error}
    return found
