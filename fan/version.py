"""Versions side by side: which of them take calls, switched and taken back in one generation.

An App has this as `app.versions`. The parts: `version_routes` is the arithmetic of routes,
`version_switch`, `version_undo` and `version_back` plan what is done, `version_depend` says who
needs whom, `version_flow` carries a change from its plan to its confirmation, `version_prepare` and
`version_confirm` talk to the consumers, `version_retire` ends a version, and `version_history` and
`version_state` look at what is and was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from fan.errors import DeadlineExceeded, InvalidArgument, Unavailable
from fan.model import WHOLE, Route
from fan.stores.base import Cut, Plan, Store
from fan.version_back import made_by, restore_job, undo_job
from fan.version_confirm import Confirm, Roll, looks, not_confirmed, wait
from fan.version_flow import Flow, Job, Switched
from fan.version_history import Generation, difference, history
from fan.version_routes import (
    ROUTE,
    canary,
    check_not_paused,
    shared,
)
from fan.version_state import Graph, Problem, Status, check, graph, status
from fan.version_switch import Fleet, SwitchPlan, change_of, need_route
from fan.version_undo import entry_of
from fan.writing import Step, Write

_PLAINLY = Write()
_CONFIRMED = Confirm()


class Versions:
    """The versions of one registry's services.

        app.versions.switch({"shop": "2", "stock": "1.4"}, configs={"shop/theme": "dark"})
        app.versions.weight("shop", {"2": 500})      # basis points; the others share the rest
        app.versions.rollback()

    What changes something takes `how` (see `Write`) and `confirm` (see `Confirm`), and tells with
    `Switched` what it came to: it raises where nothing was changed, and has a `failure` where the
    change is in force and not confirmed. `force` lets versions take calls that are not live.
    """

    def __init__(self, store: Callable[[], Store], *, timeout: float = 5.0) -> None:
        self._open = store
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<Versions of {self._open()!r}>"

    # Changing what is routed

    def switch(
        self,
        services: Mapping[str, str],
        *,
        configs: Mapping[str, Any] | None = None,
        weights: Mapping[str, int] | None = None,
        sticky: str = "",
        min_healthy: int = 1,
        force: bool = False,
        how: Write = _PLAINLY,
        confirm: Confirm = _CONFIRMED,
        deadline: float | None = None,
    ) -> Switched:
        """Send the calls of services to other versions, and give configs values, in one generation:
        all of it or nothing. A version is exact, or a prefix that stands for its highest live
        match; `SERVICE.METHOD` has one method go elsewhere, and `OTHER@VERSION` another service
        answer. `weights`, in basis points by version, leave the versions routed now a share.
        Raises NotFound, InvalidArgument, Unimplemented (unknown_method), Aborted (conflict, nack)
        and FailedPrecondition: version_missing, no_live_instance, too_few_instances, paused,
        unmet_dependency, replacement_loop, no_other_version."""
        until = self._deadline(deadline)
        made = made_by(self._open(), how, until)
        fleet = Fleet(self._open(), until, at_least=min_healthy, force=force, made=made)
        plan = SwitchPlan(fleet, services, configs or {}, weights or {}, sticky)
        job = Job(objects=plan.objects, make=plan.make, is_made=made is not None)
        return self._carry(job, how, confirm, until)

    def weight(
        self,
        service: str,
        weights: Mapping[str, int],
        *,
        min_healthy: int = 1,
        force: bool = False,
        how: Write = _PLAINLY,
        confirm: Confirm = _CONFIRMED,
        deadline: float | None = None,
    ) -> Switched:
        """Give versions of a service their shares, in basis points; the other routed ones share the
        rest in proportion to what they have."""
        if not weights:
            raise InvalidArgument("a version and its weight are needed", reason="bad_weight")

        def make(route: Route, fleet: Fleet) -> Route:
            given = fleet.weights(fleet.find(service), route, weights)
            return msgspec.structs.replace(route, versions=shared(route.versions, given))

        return self._reroute(
            service, "weight", make, how, confirm, deadline, force=force, at_least=min_healthy
        )

    def promote(
        self,
        service: str,
        version: str = "",
        *,
        force: bool = False,
        how: Write = _PLAINLY,
        confirm: Confirm = _CONFIRMED,
        deadline: float | None = None,
    ) -> Switched:
        """Give the canary, the routed version with the smaller weight, all calls; or the routed
        `version`. Raises FailedPrecondition (no_canary)."""

        def make(route: Route, fleet: Fleet) -> Route:
            found = canary(service, route, version)
            return msgspec.structs.replace(route, versions=shared({}, {found: WHOLE}))

        return self._reroute(service, "promote", make, how, confirm, deadline, force=force)

    def abort(
        self,
        service: str,
        version: str = "",
        *,
        force: bool = False,
        how: Write = _PLAINLY,
        confirm: Confirm = _CONFIRMED,
        deadline: float | None = None,
    ) -> Switched:
        """Take all calls from the canary, or from `version`, and give them back to the others; also
        where the route is paused. Raises FailedPrecondition (no_canary)."""

        def make(route: Route, fleet: Fleet) -> Route:
            found = canary(service, route, version)
            return msgspec.structs.replace(route, versions=shared(route.versions, {found: 0}))

        return self._reroute(
            service, "abort", make, how, confirm, deadline, force=force, is_frozen=False
        )

    def pause(
        self,
        service: str,
        *,
        how: Write = _PLAINLY,
        confirm: Confirm = _CONFIRMED,
        deadline: float | None = None,
    ) -> Switched:
        """Have a route refuse switches until it is resumed."""
        return self._reroute(
            service, "pause", _paused(True), how, confirm, deadline, is_frozen=False
        )

    def resume(
        self,
        service: str,
        *,
        how: Write = _PLAINLY,
        confirm: Confirm = _CONFIRMED,
        deadline: float | None = None,
    ) -> Switched:
        """Let a route be switched again."""
        return self._reroute(
            service, "resume", _paused(False), how, confirm, deadline, is_frozen=False
        )

    def retire(
        self,
        service: str,
        version: str,
        *,
        how: Write = _PLAINLY,
        confirm: Confirm = _CONFIRMED,
        tell: Callable[[float], None] = lambda seconds: None,
        deadline: float | None = None,
    ) -> Switched:
        """Have a version take no calls any more: callers that still go there are sent on. It waits
        until all consumers have applied the present route, and then as long as a call may take;
        `tell` is told how many seconds. Raises FailedPrecondition for one that is routed (routed),
        or that one of the next two rollbacks would return to (still_needed)."""
        from fan.version_retire import retire_job

        until = self._deadline(deadline)
        job = retire_job(
            self._open(), service, version, how, confirm, self._timeout, tell, deadline=until
        )
        return self._carry(job, how, confirm, self._deadline(None))

    def _reroute(
        self,
        service: str,
        verb: str,
        make_route: Callable[[Route, Fleet], Route],
        how: Write,
        confirm: Confirm,
        deadline: float | None,
        *,
        force: bool = False,
        at_least: int = 1,
        is_frozen: bool = True,
    ) -> Switched:
        """Change one route that is there; `is_frozen` is one that a pause forbids."""
        until = self._deadline(deadline)
        made = made_by(self._open(), how, until)
        fleet = Fleet(self._open(), until, at_least=at_least, force=force, made=made)
        fleet.find(service)

        def make(cut: Cut) -> Plan:
            before = need_route(cut, service)
            after = make_route(before, fleet)
            if after == before:
                return Plan(changes=(), verb=verb)
            if is_frozen:
                check_not_paused(service, before)
            fleet.check_gains(service, before, after)
            change = change_of(cut, service, after)
            return Plan(changes=(change,), verb=verb, forced=fleet.is_forced)

        job = Job(
            objects=[ROUTE + service],
            make=make,
            is_checked=verb not in ("pause", "resume"),
            is_made=made is not None,
        )
        return self._carry(job, how, confirm, until)

    # The way back

    def rollback(
        self,
        gen: int | None = None,
        *,
        force: bool = False,
        how: Write = _PLAINLY,
        confirm: Confirm = _CONFIRMED,
        deadline: float | None = None,
    ) -> Switched:
        """Take generation `gen` back, by default the newest that switched a route which is in force
        now: routes and configs together. Doing it again walks further back. Raises NotFound
        (nothing_to_undo, no_such_generation, compacted), Aborted (conflict) naming the generation
        that lies upon it, and FailedPrecondition: adoption, no_live_instance, unmet_dependency."""
        until = self._deadline(deadline)
        job = undo_job(self._open(), gen, how, force=force, deadline=until)
        return self._carry(job, how, confirm, until)

    def restore(
        self,
        gen: int,
        *,
        only: Iterable[str] = (),
        configs: bool = False,
        force: bool = False,
        how: Write = _PLAINLY,
        confirm: Confirm = _CONFIRMED,
        deadline: float | None = None,
    ) -> Switched:
        """Bring the routes of generation `gen` back, and with `configs` its configs; those of the
        services `only`, where some are named. What is younger stays. Raises NotFound:
        no_such_generation, compacted, no_such_service."""
        until = self._deadline(deadline)
        job = restore_job(
            self._open(), gen, list(only), how, configs=configs, force=force, deadline=until
        )
        return self._carry(job, how, confirm, until)

    # Confirming

    def wait(
        self,
        gen: int | None = None,
        *,
        confirm: Confirm = _CONFIRMED,
        deadline: float | None = None,
    ) -> Switched:
        """Wait until enough of its consumers have applied generation `gen`, by default the newest.
        Raises NotFound, and Aborted (undone_by, superseded_by) where it is not in force any
        more."""
        until = self._deadline(deadline)
        store = self._open()
        head = store.head(deadline=until)
        gen = head.gen if gen is None else gen
        if not gen:
            return Switched(gen=0, op="", is_changed=False)
        entry = entry_of(store, gen, until)
        tally = wait(store, Roll(store, head.epoch, entry), confirm, self._timeout)
        return Switched(
            gen=gen,
            op=entry.op,
            is_changed=False,
            confirmed=tally,
            failure=None if tally.is_enough(confirm.need) else not_confirmed(gen, tally),
        )

    def _carry(self, job: Job, how: Write, confirm: Confirm, deadline: float) -> Switched:
        return Flow(self._open(), job, how, confirm, self._timeout).run(deadline)

    # Looking

    def status(self, service: str = "", *, deadline: float | None = None) -> Status:
        """What is in force, and who has applied which generation."""
        return status(self._open(), service, self._deadline(deadline))

    def follow(self, service: str = "") -> Iterator[Status]:
        """The status now, and again after each change of it, without an end."""
        store, last = self._open(), None
        for _ in looks(store, float("inf")):
            try:
                found = status(store, service, self._deadline(None))
            except (Unavailable, DeadlineExceeded):
                if last is None:
                    raise
                continue  # it is told again once the registry is back
            if found != last:
                yield found
            last = found

    def history(
        self, limit: int | None = None, *, deadline: float | None = None
    ) -> list[Generation]:
        """The generations that are kept, the newest first."""
        return history(self._open(), limit, self._deadline(deadline))

    def diff(
        self, first: int, second: int | None = None, *, deadline: float | None = None
    ) -> list[Step]:
        """What is otherwise in generation `second`, by default the newest, than in `first`."""
        return difference(self._open(), first, second, self._deadline(deadline))

    def graph(self, *, deadline: float | None = None) -> Graph:
        """Which routed versions need which others, and what they have of them."""
        return graph(self._open(), self._deadline(deadline))

    def check(self, *, deadline: float | None = None) -> list[Problem]:
        """What is wrong: unmet dependencies, replacements that lead nowhere, versions that take
        calls and are not live; and as warnings what is paused or unrouted."""
        return check(self._open(), self._deadline(deadline))

    def _deadline(self, deadline: float | None) -> float:
        return time.monotonic() + self._timeout if deadline is None else deadline


def _paused(is_paused: bool) -> Callable[[Route, Fleet], Route]:
    return lambda route, fleet: msgspec.structs.replace(route, is_paused=is_paused)
