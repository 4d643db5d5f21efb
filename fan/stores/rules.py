"""What every store decides the same way: the rules of a commit and of a claim.

A store gathers what is there, inside its own transaction, asks these functions, and writes what
they return. They hold no state and know no driver; a store from elsewhere may use them or not, as
long as `StoreContract` holds.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from fan.errors import (
    CLASSES,
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    FanError,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from fan.stores.base import LIMIT, Change, Diff, Entry, Head, Op, Plan, Revision


class Ground(Protocol):
    """What a store shows of the present state while it commits."""

    @property
    def head(self) -> Head: ...

    def pin(self, object: str) -> int:
        """The pinned revision, 0 for none; a tombstone is one."""

    def find(self, object: str, rev: int) -> Revision | None:
        """One revision, or None where there is none (any more)."""

    def mover(self, object: str) -> int:
        """The last generation in the history that changed the pin, 0 for none."""

    def names(self, prefix: str) -> Iterable[str]:
        """The objects pinned to a body whose names begin with `prefix`."""


class Step(msgspec.Struct, frozen=True):
    """What a commit writes for one object. `body` is what it holds afterwards, None for nothing;
    with `is_new` it is a new revision (a tombstone where it is None)."""

    object: str
    before: int
    after: int
    body: bytes | None
    is_new: bool


class Known(msgspec.Struct, frozen=True):
    """What is remembered of an op: the generation it came to, or the refusal at that generation."""

    gen: int
    digest: str
    is_changed: bool = False
    refusal: str = ""


class Holder(msgspec.Struct, frozen=True):
    """Who holds a record: a live session, or nobody (`session` empty: it is persistent)."""

    session: str = ""
    pid: int = 0
    host: str = ""


def now() -> str:
    """The time of the wall clock, RFC 3339 in UTC with milliseconds."""
    seconds = time.time()
    return (
        time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        + f".{int(seconds % 1 * 1000):03d}Z"
    )


def spoken(object: str) -> str:
    """An object as a person calls it: `config shop/theme` for `config/shop/theme`."""
    return object.replace("/", " ", 1)


def check_deadline(deadline: float, what: str) -> None:
    """Raise DeadlineExceeded (executed "no") where there is no time left to begin."""
    if time.monotonic() >= deadline:
        raise DeadlineExceeded(f"no time was left to {what}", executed="no")


def check_size(what: str, size: int) -> None:
    """Raise InvalidArgument where `size` bytes are more than a store takes."""
    if size > LIMIT:
        raise InvalidArgument(
            f"{what} is {size} bytes: the registry takes at most {LIMIT} in one write",
            reason="payload_too_large",
            details={"size": size, "limit": LIMIT},
        )


def check_plan(plan: Plan) -> None:
    """Raise InvalidArgument for a plan that says two things of one object, or is too large."""
    seen: set[str] = set()
    for change in plan.changes:
        if change.object in seen or not change.object:
            raise InvalidArgument(
                f"the plan names the object {change.object!r} twice or not at all"
            )
        seen.add(change.object)
        if (change.body is not None) + (change.to_rev is not None) + change.unpin > 1:
            raise InvalidArgument(f"the plan does two things at once to {spoken(change.object)}")
    size = sum(len(c.object.encode()) + len(c.body or b"") for c in plan.changes)
    check_size("the plan", size)


def recall(op: Op, digest: str, known: Known | None, head: Head) -> Known | None:
    """What an earlier try of `op` came to, None where it is new. Raises what that try raised,
    AlreadyExists where it was another plan, Unavailable (outcome_unknown) where nobody can know."""
    if known is None:
        if op.epoch and head.epoch and op.epoch != head.epoch:
            raise _unknown(op, "the registry was created anew since it was planned")
        if op.gen < head.floor:
            raise _unknown(op, f"the history before generation {head.floor + 1} is not kept")
        if op.gen > head.gen:
            raise _unknown(op, f"the registry went back to generation {head.gen}")
        return None
    if known.digest != digest:
        raise AlreadyExists(
            f"the operation {op} was used for another change: take a new one for a new change",
            reason="duplicate_id",
            details={"op": str(op), "gen": known.gen},
        )
    if known.refusal:
        raise revive(known.refusal)
    return known


def _unknown(op: Op, why: str) -> Unavailable:
    return Unavailable(
        f"whether the operation {op} was applied is unknown: {why}; "
        "read the present state, and use a new operation",
        reason="outcome_unknown",
        executed="maybe",
    )


def decide(plan: Plan, ground: Ground) -> list[Step]:
    """What the plan writes; nothing where all is as it wants it already. Raises the refusal."""
    head = ground.head
    if plan.if_gen is not None and plan.if_gen != head.gen:
        raise Aborted(
            f"the registry is at generation {head.gen}, and the change was made for {plan.if_gen}: "
            "look at what changed, and try again",
            reason="conflict",
            details={"object": "", "gen": head.gen, "expected": plan.if_gen},
        )
    for change in plan.changes:
        _check_pin(change, ground)
    steps = [step for change in plan.changes if (step := _step(change, ground)) is not None]
    if steps and plan.check is not None:
        plan.check(After(ground, steps))
    return steps


def _check_pin(change: Change, ground: Ground) -> None:
    if change.from_rev is None:
        return
    pin = ground.pin(change.object)
    if pin == change.from_rev:
        return
    if change.from_rev == 0:
        found = ground.find(change.object, pin)
        if found is not None and found.body is None:
            return
    gen = ground.mover(change.object)
    raise Aborted(
        f"{spoken(change.object)} was changed in generation {gen} "
        f"(revision {change.from_rev} -> {pin}) since it was read: look at it, and try again",
        reason="conflict",
        details={"object": change.object, "gen": gen, "rev": pin, "expected": change.from_rev},
    )


def _step(change: Change, ground: Ground) -> Step | None:
    object, pin, gen = change.object, ground.pin(change.object), ground.head.gen + 1
    if change.unpin:
        return Step(object, pin, 0, None, False) if pin else None
    if change.to_rev is not None:
        if change.to_rev == pin:
            return None
        target = ground.find(object, change.to_rev)
        if target is None:
            raise NotFound(
                f"{spoken(object)} has no revision {change.to_rev} (any more): history compacted",
                reason="compacted",
                details={"object": object, "rev": change.to_rev},
            )
        return Step(object, pin, change.to_rev, target.body, False)
    current = ground.find(object, pin) if pin else None
    if (current.body if current else None) == change.body:
        return None
    return Step(object, pin, gen, change.body, True)


class After:
    """The state that a commit would leave: the `View` of `Plan.check`."""

    def __init__(self, ground: Ground, steps: Sequence[Step]) -> None:
        self._ground = ground
        self._bodies = {step.object: step.body for step in steps}

    def get(self, object: str) -> bytes | None:
        """The body that the object would have, None for none."""
        if object in self._bodies:
            return self._bodies[object]
        pin = self._ground.pin(object)
        found = self._ground.find(object, pin) if pin else None
        return found.body if found else None

    def names(self, prefix: str) -> Iterator[str]:
        """The objects that would have a body, by name."""
        names = {n for n in self._ground.names(prefix) if n not in self._bodies}
        names.update(
            n for n, body in self._bodies.items() if body is not None and n.startswith(prefix)
        )
        return iter(sorted(names))


def entry_of(plan: Plan, op: Op, head: Head, steps: Sequence[Step]) -> Entry:
    """The log entry of the generation that `steps` make after `head`."""
    return Entry(
        gen=head.gen + 1,
        op=op.id,
        prev=head.op,
        verb=plan.verb,
        diff=tuple(Diff(s.object, s.before, s.after) for s in steps),
        undo_of=plan.undo_of,
        who=plan.who,
        host=plan.host,
        reason=plan.reason,
        at=now(),
        forced=plan.forced,
    )


def revisions_of(entry: Entry, steps: Sequence[Step]) -> list[Revision]:
    """The revisions that a generation creates."""
    return [
        Revision(s.object, s.after, s.body, s.before, entry.who, entry.at, entry.gen)
        for s in steps
        if s.is_new
    ]


def check_generation(gen: int, head: Head) -> None:
    """Raise NotFound for a generation that cannot be read any more, or yet."""
    if gen > head.gen or gen < 0:
        raise NotFound(
            f"there is no generation {gen}: the newest is {head.gen}", reason="no_such_generation"
        )
    if gen < head.floor:
        raise NotFound(
            f"generation {gen} is not kept any more: history compacted up to {head.floor}",
            reason="compacted",
        )


def missing_revision(object: str, rev: int, head: Head) -> NotFound:
    """The error for a revision that is not there: trimmed, or never made."""
    if 0 < rev <= head.floor:
        return NotFound(
            f"revision {rev} of {spoken(object)} is not kept any more: history compacted",
            reason="compacted",
        )
    return NotFound(f"{spoken(object)} has no revision {rev}", reason="no_such_revision")


def is_final(error: FanError) -> bool:
    """Whether a refusal is remembered: another try of the same op must not fare better. An outage
    inside `check` is not a refusal."""
    return not isinstance(error, Unavailable | DeadlineExceeded)


def keep(error: FanError) -> str:
    """A refusal as it is remembered."""
    return msgspec.json.encode(
        {
            "code": error.code,
            "reason": error.reason,
            "message": error.message,
            "details": error.details,
            "executed": error.executed,
        }
    ).decode()


def revive(kept: str) -> FanError:
    """The refusal that `keep` wrote."""
    fields: dict[str, Any] = msgspec.json.decode(kept)
    cls = CLASSES.get(fields.pop("code"), FailedPrecondition)
    return cls(fields.pop("message"), **fields)


def check_claim(kind: str, name: str, holder: Holder | None, *, session: str, is_new: bool) -> None:
    """Raise AlreadyExists where `session` (empty: nobody's) may not write over what `holder`
    holds; None is a free name."""
    if holder is None or (holder.session and holder.session == session):
        return
    if not holder.session and not is_new:
        return
    who = "a record that belongs to no process"
    if holder.session:
        who = f"process {holder.pid} on {holder.host}" if holder.pid else "another live process"
    raise AlreadyExists(
        f"{kind} {name} exists already: it is held by {who}",
        reason="duplicate_id",
        details={"kind": kind, "name": name, "pid": holder.pid, "host": holder.host},
    )


def session_lost(id: str) -> Unavailable:
    """The error of a write that hangs on a session which is over."""
    return Unavailable(
        f"the registry session {id} is over: open a new one and register again",
        reason="session_lost",
    )
