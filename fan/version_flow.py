"""One change of routes and configs from its plan to its confirmation: prepare, commit, confirm.

The commit is the only point of truth. Whoever dies before it has changed nothing; whoever dies
after it has changed all, and `wait` and `status` say how the consumers stand.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence

import msgspec

from fan.config_plans import plan_of
from fan.errors import (
    Aborted,
    DeadlineExceeded,
    FailedPrecondition,
    FanError,
    NotFound,
    Unavailable,
)
from fan.following import RETRY
from fan.model import Consumer, Proposal
from fan.stores.base import Cut, Entry, Op, Plan, Store, View, new_op
from fan.version_confirm import Confirm, Roll, Tally, consumers, not_confirmed, services_of, wait
from fan.version_depend import STRANGER, Dependencies, Edge, RouteOf, check_replacements
from fan.version_routes import ROUTE, decode_route
from fan.version_undo import entry_of, undoing
from fan.writing import Step, Write, Written, parse_op, user_name, write

#: Seconds in which those who applied a generation are waited for once it was taken back.
SETTLE = 5.0


class Switched(msgspec.Struct, frozen=True, kw_only=True):
    """What a change of routes came to. `steps` are what it did, or in a dry run would do, to each
    object; `confirmed` tells how its consumers stood at the end. `failure` is the error of one that
    is in force and not confirmed, or that was taken back by the generation `rolled_back`."""

    gen: int
    op: str
    is_changed: bool = True
    was_applied: bool = False
    steps: tuple[Step, ...] = ()
    confirmed: Tally = Tally()
    #: The generation that a rollback undid, None for any other change.
    undoes: Entry | None = None
    #: Soft dependencies that are not met now, and the like.
    warnings: tuple[str, ...] = ()
    rolled_back: int = 0
    failure: FanError | None = None


class Job(msgspec.Struct, kw_only=True):
    """One change: the `objects` that it is planned on, and `make`, which plans it."""

    objects: Sequence[str]
    make: Callable[[Cut], Plan]
    #: Whether dependencies are to hold afterwards.
    is_checked: bool = True
    undoes: Entry | None = None
    #: Whether an earlier try of its op came through: nobody is asked again.
    is_made: bool = False


class Flow:
    """Carries one job through. `timeout` is the time of one step of the registry's."""

    def __init__(
        self, store: Store, job: Job, how: Write, confirm: Confirm, timeout: float
    ) -> None:
        self._store = store
        self._job = job
        self._how = how
        self._confirm = confirm
        self._timeout = timeout
        self._soft: list[Edge] = []
        self._seen: tuple[Consumer, ...] = ()

    def run(self, deadline: float) -> Switched:
        """What it came to. Raises what refuses it, with nothing changed; once it is committed
        there is a result, and `failure` tells what is wrong with it."""
        done = self._planned(deadline)
        warnings = tuple(f"{edge} (soft)" for edge in self._soft)
        result = Switched(
            gen=done.gen, op=done.op, is_changed=done.is_changed, was_applied=done.was_applied,
            steps=done.steps, undoes=self._job.undoes, warnings=warnings,
        )  # fmt: skip
        if not done.is_changed or self._how.dry_run:
            return result
        if self._confirm.on_commit is not None:
            self._confirm.on_commit(done.gen, self._job.undoes)
        return self._confirmed(result)

    # Planning and committing

    def _planned(self, deadline: float) -> Written:
        try:
            return self._try(deadline, is_last=False)
        except Unavailable as exc:
            if exc.reason != STRANGER:
                raise
            return self._try(deadline, is_last=True)

    def _try(self, deadline: float, *, is_last: bool) -> Written:
        store, job, how = self._store, self._job, self._how
        services = [o.removeprefix(ROUTE) for o in job.objects if o.startswith(ROUTE)]
        is_checked = job.is_checked and services
        depend = Dependencies.around(store, services, deadline) if is_checked else None
        related = depend.related(services) if depend is not None else set()
        objects = list(dict.fromkeys([*job.objects, *(ROUTE + name for name in sorted(related))]))

        def make(cut: Cut) -> Plan:
            return self._checked(job.make(cut), cut, depend, is_last)

        def commit(how: Write, deadline: float) -> Written:
            return write(store, make, how, objects=objects, deadline=deadline)

        if how.dry_run:
            return commit(how, deadline)
        if not self._confirm.prepare or self._job.is_made:
            self._seen = tuple(consumers(store, services_of(job.objects), deadline).values())
            return commit(how, deadline)
        op = parse_op(how.op) if how.op else new_op(store.head(deadline=deadline))
        if how.announce is not None:
            how.announce(str(op))
        how = msgspec.structs.replace(how, op=str(op), announce=None)
        planned = commit(msgspec.structs.replace(how, dry_run=True), deadline)
        if planned.steps:
            self._prepare(op, planned)
        return commit(how, time.monotonic() + self._timeout)

    def _prepare(self, op: Op, planned: Written) -> None:
        from fan.version_prepare import prepare

        changes = {step.object: step.after for step in planned.steps}
        proposal = Proposal(changes=changes, verb="switch", who=user_name())
        self._seen = prepare(self._store, op, proposal, self._confirm, self._timeout)

    def _checked(
        self, plan: Plan, cut: Cut, depend: Dependencies | None, is_last: bool
    ) -> Plan:
        """The plan with what has to hold of the state that it leaves."""
        objects = [change.object for change in plan.changes]
        services = [object.removeprefix(ROUTE) for object in objects if object.startswith(ROUTE)]
        configs = tuple(c for c in plan.changes if not c.object.startswith(ROUTE))
        fits = plan_of(cut, plan.verb, configs).check

        def check(view: View) -> None:
            def route_of(service: str) -> object:
                return decode_route(view.get(ROUTE + service))

            if configs and fits is not None:
                fits(view)
            if depend is not None and services:
                check_replacements(services, route_of)  # type: ignore[arg-type]
                self._soft = self._depending(depend, services, route_of, is_last)  # type: ignore[arg-type]

        plan.check = check
        return plan

    def _depending(
        self, depend: Dependencies, services: list[str], route_of: RouteOf, is_last: bool
    ) -> list[Edge]:
        try:
            return depend.check(services, route_of, is_last=is_last)
        except FailedPrecondition as exc:
            if self._job.undoes is not None:
                exc.message = f"generation {self._job.undoes.gen} cannot be undone: {exc.message}"
            raise

    # Confirming

    def _confirmed(self, result: Switched) -> Switched:
        """The result with how its consumers stand. It is committed: nothing here may hide that."""
        until = time.monotonic() + max(self._confirm.timeout, self._timeout)
        op = parse_op(result.op)
        try:
            entry = self._entry(result.gen, until)
            steps = steps_of(self._store, entry, time.monotonic() + self._timeout)
            result = msgspec.structs.replace(result, steps=steps)
            epoch = self._store.head(deadline=time.monotonic() + self._timeout).epoch
            if entry.op != op.id:
                raise Unavailable(
                    f"generation {entry.gen} is another one by now", reason="reset",
                    executed="maybe",
                )  # fmt: skip
            roll = Roll(self._store, epoch, entry, seen=self._seen)
            tally = wait(self._store, roll, self._confirm, self._timeout)
        except Aborted as exc:  # undone or overtaken by somebody else meanwhile
            failure = DeadlineExceeded(
                f"generation {result.gen} was not confirmed: {exc}", reason="not_confirmed",
                executed="yes", details=exc.details,
            )  # fmt: skip
            return msgspec.structs.replace(result, failure=failure)
        except FanError as exc:
            if not self._confirm.need and exc.reason != "reset":
                return result  # nobody asked
            return msgspec.structs.replace(result, failure=exc)
        result = msgspec.structs.replace(result, confirmed=tally)
        if tally.is_enough(self._confirm.need):
            return result
        if self._confirm.auto_rollback:
            return self._taken_back(result, entry, epoch)
        return msgspec.structs.replace(result, failure=not_confirmed(result.gen, tally))

    def _entry(self, gen: int, until: float) -> Entry:
        """Our generation in the history; a registry that is away is waited for."""
        while True:
            try:
                return entry_of(self._store, gen, time.monotonic() + self._timeout)
            except (Unavailable, DeadlineExceeded):
                if time.monotonic() >= until:
                    raise
            time.sleep(RETRY)

    def _taken_back(self, result: Switched, entry: Entry, epoch: str) -> Switched:
        """Roll the generation back, unless a later change lies upon it."""
        failure = not_confirmed(entry.gen, result.confirmed)
        try:
            back = self._take_back(parse_op(result.op), entry)
        except FanError as exc:
            failure.message += f"; it could not be rolled back: {exc}"
            return msgspec.structs.replace(result, failure=failure)
        deadline = time.monotonic() + self._timeout
        laggards = [consumer.id for consumer in result.confirmed.laggards]
        try:
            undo = entry_of(self._store, back.gen, deadline)
            roll = Roll(self._store, epoch, undo, leave_out=laggards)
            wait(self._store, roll, Confirm(timeout=SETTLE), self._timeout)
        except FanError:
            pass  # who stands where is told by `wait` and `status`; it is rolled back
        why = failure.message.partition(", and ")[2]
        return msgspec.structs.replace(
            result,
            rolled_back=back.gen,
            failure=Aborted(
                f"generation {entry.gen} was rolled back by generation {back.gen}: {why}",
                reason="auto_rollback",
                executed="yes",
                details={"gen": entry.gen, "rolled_back": back.gen, **failure.details},
            ),
        )

    def _take_back(self, op: Op, entry: Entry) -> Written:
        """Undo under an op that is derived from the switch's: tried again, it is the same one."""
        deadline = time.monotonic() + self._timeout
        id = hashlib.sha256(f"{op.id}:rollback".encode()).hexdigest()[:32]
        how = Write(
            message=f"generation {entry.gen} was not confirmed", op=str(Op(op.epoch, entry.gen, id))
        )
        job = Job(
            objects=[diff.object for diff in entry.diff],
            make=lambda cut: undo_plan(self._store, entry, cut, deadline),
        )
        flow = Flow(self._store, job, how, Confirm(need=0.0), self._timeout)
        return flow._planned(deadline)


def undo_plan(store: Store, entry: Entry, cut: Cut, deadline: float) -> Plan:
    """What undoes a generation."""
    changes = undoing(store, entry, cut, deadline)
    return Plan(changes=changes, verb="rollback", undo_of=entry.gen)


def steps_of(store: Store, entry: Entry, deadline: float) -> tuple[Step, ...]:
    """What a generation did to each object, with the bodies that are still kept."""

    def body(object: str, rev: int) -> bytes | None:
        try:
            return store.revision(object, rev, deadline=deadline).body if rev else None
        except NotFound:
            return None

    return tuple(
        Step(d.object, body(d.object, d.before), d.before, body(d.object, d.after), d.after)
        for d in entry.diff
    )
