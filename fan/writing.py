"""Changes of what is registered, made so that a retry is safe: planned on one state, under one op.

An op names the generation that its change was planned on. Sent again, the change is planned on that
generation again and so is the same plan: the store tells a retry from another change by it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from fan.errors import Aborted, InvalidArgument, NotFound, Unavailable
from fan.stores import rules
from fan.stores.base import Committed, Cut, Head, Op, Plan, Revision, Store, new_op


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """What may be said of any write: a `message` for the history, the generation `if_gen` that the
    registry must still be at, an `op` of an earlier try, and `dry_run` to decide everything and
    change nothing. `announce` is told the op before it is sent, so that who is killed meanwhile
    left it behind."""

    message: str = ""
    if_gen: int | None = None
    op: str = ""
    dry_run: bool = False
    announce: Callable[[str], None] | None = None


class Step(msgspec.Struct, frozen=True):
    """What a dry run would do to one object: bodies and revisions before and after, None and 0 for
    nothing."""

    object: str
    before: bytes | None
    before_rev: int
    after: bytes | None
    after_rev: int


class Written(msgspec.Struct, frozen=True):
    """What a write came to: the generation that it is in force with, and its op. `is_changed` is
    False where all was so already, and then there is no new generation. `steps` are those of a dry
    run, whose op is empty."""

    gen: int
    op: str
    is_changed: bool = True
    was_applied: bool = False
    steps: tuple[Step, ...] = ()


def write(
    store: Store,
    make: Callable[[Cut], Plan],
    how: Write,
    *,
    objects: Sequence[str] = (),
    prefix: str | None = None,
    deadline: float,
    tries_again: bool = False,
) -> Written:
    """Read the named objects, have `make` plan on them, and commit the plan, signed with who and
    where we are. With `tries_again` one that somebody else's change came before is planned anew
    until the deadline, unless the caller named an op or a generation."""
    tries_again = tries_again and not how.op and how.if_gen is None
    while True:
        op = parse_op(how.op) if how.op else None
        cut = _ground(store, op, objects, prefix, deadline)
        if cut is None:
            assert op is not None
            return _recall(store, op, deadline)
        plan = _signed(make(cut), how)
        if how.dry_run:
            return _rehearse(store, cut, plan, deadline)
        if op is None and how.announce is not None:
            op = new_op(cut.head)
        if how.announce is not None:
            how.announce(str(op))
        try:
            # Where nobody else knows the op the store takes one of its own, and need not keep what
            # came to nothing.
            named = "" if op is None else str(op)
            return _written(store.commit(plan, op=named, deadline=deadline))
        except Aborted:
            if not tries_again or time.monotonic() >= deadline:
                raise


def parse_op(text: str) -> Op:
    """The op that somebody typed. Raises InvalidArgument (bad_op)."""
    try:
        return Op.parse(text)
    except InvalidArgument as exc:
        raise InvalidArgument(exc.message, reason="bad_op") from None


def _signed(plan: Plan, how: Write) -> Plan:
    return msgspec.structs.replace(
        plan,
        if_gen=how.if_gen,
        reason=how.message,
        who=user_name(),
        host=os.uname().nodename,
    )


def user_name() -> str:
    """Who we are, for the history."""
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container's user without a name
        return str(os.geteuid())


def _written(done: Committed) -> Written:
    return Written(done.gen, done.op, done.is_changed, done.was_applied)


def _ground(
    store: Store, op: Op | None, objects: Sequence[str], prefix: str | None, deadline: float
) -> Cut | None:
    """The state to plan on: the newest, or that of the op's own generation; None where that is not
    to be had any more."""
    gen = None if op is None else op.gen
    try:
        cut = store.read(objects, prefix=prefix, gen=gen, deadline=deadline)
    except NotFound:
        return None
    is_other = op is not None and op.epoch and cut.head.epoch and op.epoch != cut.head.epoch
    return None if is_other else cut


def _recall(store: Store, op: Op, deadline: float) -> Written:
    """What an op came to whose generation is not there any more. Raises Unavailable
    (outcome_unknown) where the history does not tell."""
    for entry in store.log(op.gen, deadline=deadline):
        if entry.op == op.id:
            return Written(entry.gen, str(op), was_applied=True)
    raise Unavailable(
        f"whether the operation {op} was applied is unknown: generation {op.gen}, which it was"
        " planned on, is not in the history; read the present state, and use a new operation",
        reason="outcome_unknown",
        executed="maybe",
    )


def _rehearse(store: Store, cut: Cut, plan: Plan, deadline: float) -> Written:
    """What a commit of the plan would do. Raises as it would."""
    rules.check_plan(plan)
    ground = _Ground(store, cut, deadline)
    steps = tuple(
        Step(s.object, ground.body(s.object), s.before, s.body, 0 if s.is_new else s.after)
        for s in rules.decide(plan, ground)
    )
    return Written(cut.head.gen, "", bool(steps), steps=steps)


class _Ground:
    """What `rules.decide` looks at, as of one reading."""

    def __init__(self, store: Store, cut: Cut, deadline: float) -> None:
        self._store = store
        self._cut = cut
        self._deadline = deadline

    @property
    def head(self) -> Head:
        return self._cut.head

    def pin(self, object: str) -> int:
        pinned = self._cut.objects.get(object)
        return pinned.rev if pinned is not None else self._cut.deleted.get(object, 0)

    def find(self, object: str, rev: int) -> Revision | None:
        pinned = self._cut.objects.get(object)
        if pinned is not None and pinned.rev == rev:
            return pinned
        try:
            return self._store.revision(object, rev, deadline=self._deadline)
        except NotFound:
            return None

    def body(self, object: str) -> bytes | None:
        pinned = self._cut.objects.get(object)
        return pinned.body if pinned is not None else None

    def mover(self, object: str) -> int:
        log: list[Any] = self._store.log(self.head.floor, self.head.gen, deadline=self._deadline)
        moved = (e.gen for e in reversed(log) if any(d.object == object for d in e.diff))
        return next(moved, 0)

    def names(self, prefix: str) -> Iterable[str]:
        cut = self._store.read(prefix=prefix, gen=self.head.gen, deadline=self._deadline)
        return list(cut.objects)
