"""The registry in memory: tests, and Apps of one process that need no file.

`MemoryStore()` is one handle; `another()` makes a second one on the same data, as a second App
has it. Nothing outlives the process, and no other process sees it.
"""

from __future__ import annotations

import builtins
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from fan.errors import FanError
from fan.stores import rules
from fan.stores.base import (
    HEAD,
    RETENTION,
    Committed,
    Cut,
    Entry,
    Head,
    Hint,
    Op,
    Plan,
    Record,
    Revision,
    Session,
    Store,
    new_op,
)


class _Space:
    """The data of one namespace, and who wants to hear of changes. Used under `lock`."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.head = Head("", 0)
        self.pins: dict[str, int] = {}
        self.revisions: dict[tuple[str, int], Revision] = {}
        self.log: dict[int, Entry] = {}
        self.ops: dict[str, rules.Known] = {}
        #: Those that made no generation, in their order.
        self.outcomes: deque[str] = deque()
        self.records: dict[tuple[str, str], tuple[bytes, str]] = {}
        self.sessions: dict[str, MemorySession] = {}
        self.watches: set[_MemoryWatch] = set()

    def begin(self) -> None:
        """Give the namespace its epoch at the first write."""
        if not self.head.epoch:
            self.head = Head(os.urandom(16).hex(), 0)

    def pin(self, object: str) -> int:
        return self.pins.get(object, 0)

    def find(self, object: str, rev: int) -> Revision | None:
        return self.revisions.get((object, rev))

    def mover(self, object: str) -> int:
        return next(
            (g for g, e in reversed(self.log.items()) if any(d.object == object for d in e.diff)),
            0,
        )

    def names(self, prefix: str) -> Iterable[str]:
        return [
            name
            for name, rev in self.pins.items()
            if name.startswith(prefix) and self.revisions[name, rev].body is not None
        ]

    def pins_at(self, gen: int) -> dict[str, int]:
        """The pins as of a generation that is kept: today's, with the later diffs undone."""
        pins = dict(self.pins)
        for later in range(self.head.gen, gen, -1):
            for diff in self.log[later].diff:
                pins[diff.object] = diff.before
        return {name: rev for name, rev in pins.items() if rev}

    def apply(self, entry: Entry, steps: Sequence[rules.Step]) -> None:
        """Make the generation of `entry`, and trim what it pushes out."""
        for revision in rules.revisions_of(entry, steps):
            self.revisions[revision.object, revision.rev] = revision
        for step in steps:
            if not step.after:
                del self.pins[step.object]
                continue
            self.pins[step.object] = step.after
            if not step.is_new:
                old = self.revisions[step.object, step.after]
                self.revisions[step.object, step.after] = Revision(
                    old.object, old.rev, old.body, old.parent, old.who, old.at, entry.gen
                )
        self.log[entry.gen] = entry
        floor = max(self.head.floor, entry.gen - RETENTION)
        for gen in range(self.head.floor + 1, floor + 1):
            self._trim(gen, floor)
        self.head = Head(self.head.epoch, entry.gen, entry.op, floor)

    def _trim(self, gen: int, floor: int) -> None:
        for diff in self.log.pop(gen).diff:
            old = self.revisions.get((diff.object, diff.before))
            if old is not None and old.pinned_at < gen:
                del self.revisions[diff.object, diff.before]
        self.ops = {id: known for id, known in self.ops.items() if known.gen >= floor}

    def note(self, id: str, known: rules.Known) -> None:
        """Remember an op that made no generation: as many of these as there are generations."""
        self.ops[id] = known
        self.outcomes.append(id)
        if len(self.outcomes) > RETENTION:
            self.ops.pop(self.outcomes.popleft(), None)

    def tell(self, kind: str) -> None:
        """Wake the watches of a kind."""
        for watch in self.watches:
            if watch.kind == kind:
                watch.wake()

    def end(self, session: MemorySession) -> None:
        """Take a session's records away."""
        if self.sessions.pop(session.id, None) is None:
            return
        gone = [key for key, (_, owner) in self.records.items() if owner == session.id]
        for key in gone:
            del self.records[key]
        for kind in {kind for kind, _ in gone}:
            self.tell(kind)


class MemorySession:
    """A session of a `MemoryStore`."""

    def __init__(self, space: _Space, on_lost: Callable[[], None] | None) -> None:
        self.id = os.urandom(8).hex()
        self.on_lost = on_lost
        self._space = space
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"<MemorySession {self.id} {'alive' if self.is_alive else 'over'}>"

    @property
    def is_alive(self) -> bool:
        return self._pid == os.getpid() and self.id in self._space.sessions

    def close(self) -> None:
        """End it: its records go at once."""
        with self._space.lock:
            self._space.end(self)


class _MemoryWatch:
    """One watch, with a thread of its own."""

    def __init__(self, space: _Space, kind: str, callback: Callable[[Hint], None]) -> None:
        self.kind = kind
        self._space = space
        self._callback = callback
        self._is_due = threading.Semaphore(1)
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=f"fan-watch-{kind}", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        self._is_due.release()

    def close(self) -> None:
        self._is_closed = True
        with self._space.lock:
            self._space.watches.discard(self)
        self.wake()

    def _run(self) -> None:
        while True:
            self._is_due.acquire()
            while self._is_due.acquire(blocking=False):
                pass  # many changes, one call
            if self._is_closed:
                return
            try:
                self._callback("changed")
            except Exception:
                import logging

                logging.getLogger("fan.stores").exception("a watch of %s failed", self.kind)


class MemoryStore(Store):
    """A registry that lives in this process. Two Apps that share it take two handles (`another`):
    closing one handle ends the sessions and watches that were opened through it."""

    scheme: ClassVar[str] = "memory"

    def __init__(self, namespace: str = "default") -> None:
        self.namespace = namespace
        self._spaces: dict[str, _Space] = {}
        self._space = self._spaces.setdefault(namespace, _Space())
        self._sessions: set[MemorySession] = set()
        self._watches: set[_MemoryWatch] = set()

    def __repr__(self) -> str:
        return f"<MemoryStore {self.namespace} at generation {self._space.head.gen}>"

    def another(self, namespace: str | None = None) -> MemoryStore:
        """A second handle on the same data, in the same or another namespace."""
        other = MemoryStore(namespace or self.namespace)
        other._spaces = self._spaces
        other._space = self._spaces.setdefault(other.namespace, _Space())
        return other

    def head(self, *, deadline: float) -> Head:
        rules.check_deadline(deadline, "read the registry")
        return self._space.head

    def read(
        self,
        objects: Sequence[str] = (),
        *,
        prefix: str | None = None,
        gen: int | None = None,
        deadline: float,
    ) -> Cut:
        rules.check_deadline(deadline, "read the registry")
        space = self._space
        with space.lock:
            head, pins = space.head, space.pins
            if gen is not None and gen != head.gen:
                rules.check_generation(gen, head)
                pins = space.pins_at(gen)
                head = Head(head.epoch, gen, space.log[gen + 1].prev, head.floor)
            names = set(objects)
            if prefix is not None:
                names.update(name for name in pins if name.startswith(prefix))
            found: dict[str, Revision] = {}
            deleted: dict[str, int] = {}
            for name in sorted(names & pins.keys()):
                revision = space.revisions[name, pins[name]]
                if revision.body is None:
                    deleted[name] = revision.rev
                else:
                    found[name] = revision
            return Cut(head, found, deleted)

    def revision(self, object: str, rev: int, *, deadline: float) -> Revision:
        rules.check_deadline(deadline, "read the registry")
        with self._space.lock:
            found = self._space.find(object, rev)
            if found is None:
                raise rules.missing_revision(object, rev, self._space.head)
            return found

    def commit(self, plan: Plan, *, op: str = "", deadline: float) -> Committed:
        rules.check_deadline(deadline, "change the registry")
        rules.check_plan(plan)
        space = self._space
        with space.lock:
            space.begin()
            head = space.head
            mine = Op.parse(op) if op else new_op(head)
            digest = plan.digest()
            known = rules.recall(mine, digest, space.ops.get(mine.id), head)
            if known is not None:
                return Committed(known.gen, str(mine), known.is_changed, True)
            try:
                steps = rules.decide(plan, space)
            except FanError as error:
                if op and rules.is_final(error):
                    space.note(mine.id, rules.Known(head.gen, digest, False, rules.keep(error)))
                raise
            if steps:
                space.apply(rules.entry_of(plan, mine, head, steps), steps)
                space.tell(HEAD)
                space.ops[mine.id] = rules.Known(space.head.gen, digest, True)
            elif op:
                space.note(mine.id, rules.Known(head.gen, digest))
            return Committed(space.head.gen, str(mine), bool(steps))

    def log(self, after: int, upto: int | None = None, *, deadline: float) -> builtins.list[Entry]:
        rules.check_deadline(deadline, "read the registry")
        with self._space.lock:
            last = self._space.head.gen if upto is None else min(upto, self._space.head.gen)
            first = max(after, self._space.head.floor) + 1
            return [self._space.log[gen] for gen in range(first, last + 1)]

    def watch(self, kind: str, callback: Callable[[Hint], None]) -> _MemoryWatch:
        watch = _MemoryWatch(self._space, kind, callback)
        self._watches.add(watch)
        with self._space.lock:
            self._space.watches.add(watch)
        # What changed between the thread's first call and the line above.
        watch.wake()
        return watch

    def open_session(
        self, *, on_lost: Callable[[], None] | None = None, deadline: float
    ) -> MemorySession:
        rules.check_deadline(deadline, "open a session")
        session = MemorySession(self._space, on_lost)
        with self._space.lock:
            self._space.begin()
            self._space.sessions[session.id] = session
        self._sessions.add(session)
        return session

    def expire(self, session: Session) -> None:
        """Give a session up, as a store does that has not heard of its owner: for tests."""
        with self._space.lock:
            found = self._space.sessions.get(session.id)
            if found is None:
                return
            self._space.end(found)
        if found.on_lost is not None:
            threading.Thread(target=found.on_lost, name="fan-session-lost", daemon=True).start()

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
        rules.check_deadline(deadline, "write to the registry")
        rules.check_size(f"{kind} {name}", len(body) + len(name.encode()))
        space, owner = self._space, session.id if session else ""
        with space.lock:
            space.begin()
            if session is not None and not session.is_alive:
                raise rules.session_lost(owner)
            held = space.records.get((kind, name))
            holder = None if held is None else self._holder(held[1])
            rules.check_claim(kind, name, holder, session=owner, is_new=is_new)
            space.records[kind, name] = (body, owner)
            space.tell(kind)

    @staticmethod
    def _holder(session: str) -> rules.Holder:
        return (
            rules.Holder(session, os.getpid(), os.uname().nodename) if session else rules.Holder()
        )

    def delete(
        self, kind: str, name: str, *, session: Session | None = None, deadline: float
    ) -> bool:
        rules.check_deadline(deadline, "write to the registry")
        space = self._space
        with space.lock:
            held = space.records.get((kind, name))
            if held is None or (session is not None and held[1] != session.id):
                return False
            del space.records[kind, name]
            space.tell(kind)
            return True

    def list(self, kind: str, prefix: str = "", *, deadline: float) -> builtins.list[Record]:
        rules.check_deadline(deadline, "read the registry")
        with self._space.lock:
            return [
                Record(kind=kind, name=name, body=body, session=owner)
                for (found, name), (body, owner) in sorted(self._space.records.items())
                if found == kind and name.startswith(prefix)
            ]

    def close(self) -> None:
        for watch in tuple(self._watches):
            watch.close()
        for session in tuple(self._sessions):
            session.close()
        self._watches.clear()
        self._sessions.clear()
