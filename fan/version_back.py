"""Jobs that go back: undo a generation, or bring back the routes of an earlier one."""

from __future__ import annotations

from fan.config_values import CONFIG, SCHEMA
from fan.stores.base import Cut, Entry, Plan, Store
from fan.version_flow import Job, undo_plan
from fan.version_routes import ROUTE
from fan.version_switch import Fleet, check_restored
from fan.version_undo import bodies, candidate, entry_of, restoring
from fan.writing import Write, parse_op


def made_by(store: Store, how: Write, deadline: float) -> Entry | None:
    """The generation of an earlier try of the op, None where there is none that is kept."""
    if not how.op:
        return None
    op = parse_op(how.op)
    log = store.log(op.gen, deadline=deadline)
    return next((entry for entry in log if entry.op == op.id), None)


def undo_job(store: Store, gen: int | None, how: Write, *, force: bool, deadline: float) -> Job:
    """Take one generation back, or the newest that can be. It is fixed here: what comes in between
    does not make it another one."""
    if gen is None:
        at = parse_op(how.op).gen if how.op else None
        cut = store.read(prefix=ROUTE, gen=at, deadline=deadline)
        entry = candidate(store, cut, deadline)
    else:
        entry = entry_of(store, gen, deadline)
    made = made_by(store, how, deadline)

    def make(cut: Cut) -> Plan:
        fleet = Fleet(store, deadline, force=force, made=made)
        return _checked(store, undo_plan(store, entry, cut, deadline), cut, fleet, deadline)

    objects = [diff.object for diff in entry.diff]
    return Job(objects=objects, make=make, undoes=entry, is_made=made is not None)


def restore_job(
    store: Store,
    gen: int,
    services: list[str],
    how: Write,
    *,
    configs: bool,
    force: bool,
    deadline: float,
) -> Job:
    """Bring back the routes of a generation, and with `configs` its configs."""
    made = made_by(store, how, deadline)
    fleet = Fleet(store, deadline, force=force, made=made)
    for service in services:
        fleet.find(service)
    then = _reading(store, gen, services, configs, deadline)

    def make(cut: Cut) -> Plan:
        plan = Plan(changes=restoring(cut, then, services, configs), verb="rollback")
        return _checked(store, plan, cut, fleet, deadline)

    return Job(objects=[*then.objects, *then.deleted], make=make, is_made=made is not None)


def _reading(
    store: Store, gen: int, services: list[str], configs: bool, deadline: float
) -> Cut:
    """The routes of a generation, and its configs with their schemas."""
    names = [ROUTE + service for service in services]
    cut = store.read(names, prefix=None if names else ROUTE, gen=gen, deadline=deadline)
    found, deleted = dict(cut.objects), dict(cut.deleted)
    for kind in (CONFIG, SCHEMA) if configs else ():
        for prefix in [f"{kind}{service}" for service in services] or [kind]:
            below = store.read(prefix=prefix, gen=gen, deadline=deadline)
            found |= below.objects
            deleted |= below.deleted
    return Cut(cut.head, found, deleted)


def _checked(store: Store, plan: Plan, cut: Cut, fleet: Fleet, deadline: float) -> Plan:
    """The plan, if what comes back can take calls."""
    found = bodies(store, plan.changes, deadline)
    check_restored(fleet, cut, found, found)
    plan.forced = fleet.is_forced
    return plan
