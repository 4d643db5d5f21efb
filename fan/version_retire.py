"""Take a version out of service for good: only by hand, and only once nobody can still need it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import msgspec

from fan.errors import FailedPrecondition, FanError
from fan.model import Interface, Route, ServiceInfo
from fan.settings_values import parse_duration
from fan.stores.base import Cut, Plan, Revision, Store
from fan.version_confirm import Confirm, Roll, Tally, not_confirmed, wait
from fan.version_flow import Job
from fan.version_routes import ROUTE, decode_route, known_versions, routed, version_missing
from fan.version_switch import Fleet, change_of, need_route
from fan.version_undo import entry_of, versions_behind
from fan.versions import best
from fan.writing import Write

#: Rollbacks whose versions cannot be retired.
NEXT_ROLLBACKS = 2


def version_to_retire(info: ServiceInfo, route: Route, want: str) -> str:
    """The version that is meant: exactly, or as a prefix the highest that takes no calls. Raises
    FailedPrecondition (version_missing)."""
    known = {*known_versions(info), *routed(route), *route.retired}
    if want in known:
        return want
    found = best(want, known - routed(route)) or best(want, known)
    if found is None:
        raise version_missing(info, want)
    return found


def retire_job(
    store: Store,
    service: str,
    want: str,
    how: Write,
    confirm: Confirm,
    timeout: float,
    tell: Callable[[float], None],
    *,
    deadline: float,
) -> Job:
    """End a version, once it can be: it waits here for who may still call it. `timeout` is how long
    a call may take that says nothing else. Raises what `retire_plan` and `await_idle` raise."""
    info = Fleet(store, deadline).find(service)
    object = ROUTE + service

    def make(cut: Cut) -> Plan:
        version = version_to_retire(info, need_route(cut, service), want)
        return retire_plan(store, cut, service, version, time.monotonic() + timeout)

    cut = store.read([object], deadline=deadline)
    if not how.op and not how.dry_run and make(cut).changes:
        version = version_to_retire(info, need_route(cut, service), want)
        budget = call_budget(info, version, timeout)
        await_idle(store, cut.objects[object], budget, confirm, timeout, tell)
    return Job(objects=[object], make=make, is_checked=False)


def retire_plan(store: Store, cut: Cut, service: str, version: str, deadline: float) -> Plan:
    """Have a version take no calls any more. Raises FailedPrecondition: routed, still_needed."""
    route = need_route(cut, service)
    if version in route.retired:
        return Plan(changes=(), verb="retire")
    if version in routed(route) and not route.replaced_by:
        raise FailedPrecondition(
            f"{service} {version} takes calls: switch to another version first", reason="routed"
        )
    _check_replacing(store, service, version, deadline)
    pinned = cut.objects[ROUTE + service]
    steps = versions_behind(store, pinned, NEXT_ROLLBACKS, deadline).get(version)
    if steps is not None:
        which = "next rollback" if steps == 1 else f"one of the next {steps} rollbacks"
        raise FailedPrecondition(
            f"{service} {version} is what the {which} would return to", reason="still_needed"
        )
    after = msgspec.structs.replace(route, retired=(*route.retired, version))
    return Plan(changes=(change_of(cut, service, after),), verb="retire")


def _check_replacing(store: Store, service: str, version: str, deadline: float) -> None:
    for object, found in store.read(prefix=ROUTE, deadline=deadline).objects.items():
        route = decode_route(found.body)
        if route is None or not route.replaced_by:
            continue
        other, _, want = route.replaced_by.partition("@")
        if other == service and want == version:
            raise FailedPrecondition(
                f"{service} {version} takes the calls of {object.removeprefix(ROUTE)}",
                reason="routed",
            )


def call_budget(info: ServiceInfo, version: str, default: float) -> float:
    """The longest that a call of a version may take, as far as the registry knows: its methods'
    own timeouts, the policies', or the default."""
    interface = info.interfaces.get(version, Interface(service=info.name, version=version))
    own = [m.timeout for m in interface.methods if m.timeout is not None]
    said = [*_timeouts(interface.policy), *_timeouts(info.policy)]
    return max([default, *own, *said])


def _timeouts(policy: Any) -> Iterable[float]:
    if not isinstance(policy, dict):
        return
    methods = policy.get("methods")
    for each in (policy, *(methods.values() if isinstance(methods, dict) else ())):
        text = each.get("timeout") if isinstance(each, dict) else None
        try:
            if text is not None:
                yield parse_duration(str(text))
        except (ValueError, FanError):
            continue


def await_idle(
    store: Store,
    route: Revision,
    budget: float,
    confirm: Confirm,
    timeout: float,
    tell: Callable[[float], None],
) -> None:
    """Return once no call of a version can be under way which the route does not name: all
    consumers have applied the route, and the time that a call may take is over since the last of
    them did. `tell` is told how many seconds that are. Raises what `not_confirmed` gives where some
    do not apply it in the time of `confirm`."""
    head = store.head(deadline=time.monotonic() + timeout)
    if route.pinned_at > head.floor:
        entry = entry_of(store, route.pinned_at, time.monotonic() + timeout)
        roll = Roll(store, head.epoch, entry, objects={route.object})
        tally = wait(store, roll, msgspec.structs.replace(confirm, need=1.0), timeout)
        if not tally.is_enough(1.0):
            raise not_confirmed(entry.gen, tally)
        left = _left(budget, entry.at, tally)
    else:
        left = budget
    if left > 0:
        tell(left)
        time.sleep(left)


def _left(budget: float, at: str, tally: Tally) -> float:
    """Seconds until a call that began before the last apply is over. Other hosts' clocks may be
    wrong: never more than the budget, and none of it where they say that it was not yet."""
    last = max([at, *(consumer.at for consumer in tally.applied if consumer.at)])
    try:
        since = time.time() - datetime.fromisoformat(last).timestamp()
    except ValueError:
        since = 0.0
    return budget if since < 0 else max(0.0, budget - since)
