"""The life of an App that serves: starting, up, draining, gone.

Start: listeners open (a service that is not up yet is refused as unavailable), every instance is
registered as `starting`, the services start in the order of their hard dependencies, they are up
(one that needs what is not there stays `starting` until it is: `needs`), a service without a route
is given one, and what waits in the queues of brokers is taken. Stop: the
instances are marked draining, nothing new is accepted, what is in flight ends, the services stop in
reverse, everything closes, and the instances are deregistered.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from fan.chores import Chore, within
from fan.context import new_id
from fan.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    FanError,
    NotFound,
    PermissionDenied,
    Unknown,
)
from fan.gate import Gate
from fan.hosting import Hosted
from fan.intake import Intake
from fan.interface import dependencies, interface_of, shards_of
from fan.model import Instance, Interface, State
from fan.needs import CannotStart, Needs
from fan.runner import Expired
from fan.standby import Standby
from fan.stores.rules import now
from fan.transports.base import Listener
from fan.writing import user_name

if TYPE_CHECKING:
    from fan.app import App

#: Seconds for the registry when an App stops: it must be able to go while the registry is down.
FAREWELL = 2.0
# Seconds between two looks at listeners, which tell nobody that they are idle.
_LOOK = 0.005


class Lifecycle:
    """Carries the services of one App through their life; one thread starts and stops it."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._listeners: list[Listener] = []
        self._intake = Intake(app)
        self._needs = self._new_needs()
        self._following = self._new_chore()
        self._standby = Standby(app, self._hold, self._end, self._bring_back)
        self._instances: dict[str, Instance] = {}
        self._started: list[Hosted] = []
        #: Ids of instances that are not up yet.
        self._waiting: set[str] = set()
        self._gate = self._new_gate()
        self._is_draining = False
        self._is_failing = False

    def __repr__(self) -> str:
        states = {i.id: i.state for i in self._instances.values()}
        return f"<Lifecycle listeners={len(self._listeners)} instances={states}>"

    @property
    def waiting(self) -> list[Hosted]:
        """The services that wait for what they need, or for their place."""
        return [*self._needs.waiting, *self._standby.resting]

    def wait_up(self) -> bool:
        """Wait until every service is up; False where the App stops first. Raises what keeps one
        from starting."""
        return self._needs.wait()

    @property
    def instances(self) -> list[Instance]:
        """What is registered of this App now, in the order of its services."""
        return list(self._instances.values())

    def start(
        self, transports: Sequence[str] = ("ipc",), adopt: bool = False, standby: bool = False
    ) -> None:
        """Serve all services of the App over `transports` (`ipc`, `http=127.0.0.1:8080`); returns
        when they are up. With `adopt` the routes move to the versions that start here. With
        `standby` a place that is taken (an id, or that of a `unique` service) is waited for.

        Raises what a transport's `serve` raises, AlreadyExists (duplicate_id) for an instance id
        that is in use or a second instance of a `unique` service, FailedPrecondition
        (dependency_missing) for services that need each other, and Unknown (start_failed) for what
        a `service_start` raises.
        Nothing is left behind then.
        """
        hosted = self._app.services
        if not hosted:
            raise FailedPrecondition("there is nothing to serve: add a service to the App first")
        if self._listeners:
            raise FailedPrecondition("this App is serving already")
        interfaces = [interface_of(one.service) for one in hosted]
        order = start_order(hosted)
        self._is_draining = False
        self._needs = self._new_needs()
        self._following = self._new_chore()
        self._waiting = {one.instance_id for one in hosted}
        self._gate = self._new_gate()
        try:
            self._listen(transports)
            for one, interface in zip(hosted, interfaces, strict=True):
                self._register(one, interface, standby)
            for one in order:
                if not self._needs.holds(one):
                    self._bring_up(one)
            for one in hosted:
                self._adopt(one, adopt)
            self._intake.open(self._listeners, self._gate)
            self._needs.open(hosted)
            self._standby.open()
        except BaseException:
            # A registry that failed fails again on the way out; the first time is what is raised.
            self._is_failing = True
            self.stop(timeout=0.0)
            self._is_failing = False
            raise
        self._app.is_started = True
        self._app.binding.rebind()
        self.reroute()  # what changed before this was told of changes

    def drain(self, timeout: float) -> bool:
        """Mark the instances draining, accept nothing new, and wait at most `timeout` seconds for
        what is in flight. Whether everything ended."""
        deadline = time.monotonic() + timeout
        if not self._is_draining:
            self._is_draining = True
            self._needs.close(max(0.0, timeout))
            self._standby.close(max(0.0, timeout))
            self._following.close(0.0)  # what it is about to take is not taken any more
            # Who watches goes elsewhere at once; who does not is refused with a code that is safe
            # to repeat elsewhere. The registry may be down: we leave all the same.
            for instance_id in self._instances:
                self._attempt("mark as draining", partial(self._set_state, instance_id, "draining"))
            self._attempt("stop taking events", self._intake.drain)
            for listener in self._listeners:
                self._attempt("stop accepting", listener.drain)
            self._gate.shut_to_queued()
        while self._app.dispatcher.wait_idle(max(0.0, deadline - time.monotonic())):
            # What a listener accepted may wait for a thread, and is begun between two others.
            if all(listener.is_idle for listener in self._listeners):
                return True
            if time.monotonic() >= deadline:
                break
            time.sleep(_LOOK)
        return False

    def stop(self, timeout: float = 5.0) -> None:
        """End in good order: drain for at most `timeout` seconds, stop the services (a
        `service_stop` has what is left, and two seconds at least: an `async def` one is cancelled
        then, a plain one left to itself), close, deregister. What fails on the way is logged and
        does not hold up the rest. Twice does no harm."""
        deadline = time.monotonic() + timeout
        if self._listeners or self._instances:
            self.drain(timeout)
            self._gate.shut()  # what is not begun by now is not begun in a service that has stopped
            self._app.dispatcher.wait_idle(max(0.0, deadline - time.monotonic()))
        for one in reversed(self._started):
            self._end(one, max(FAREWELL, deadline - time.monotonic()), is_last=True)
        left = max(0.0, deadline - time.monotonic())
        self._attempt("end the subscriptions", partial(self._intake.close, left))
        for listener in self._listeners:
            left = max(0.0, deadline - time.monotonic())
            self._attempt("close a listener", partial(listener.close, left))
        self._listeners.clear()
        for instance_id in self._instances:
            self._attempt("deregister", partial(self._deregister, instance_id))
        self._instances.clear()
        self._waiting.clear()

    def abandon(self) -> None:
        """In a forked child: leave the serving to the parent."""
        for listener in self._listeners:
            listener.abandon()
        self._intake.abandon()

    def reroute(self) -> None:
        """The routes changed: other versions take what is in the queues. Returns at once."""
        if self._listeners and not self._is_draining:
            self._following.ask()

    def _follow(self) -> None:
        self._app.binding.rebind()  # what could not be read when the change came
        self._intake.update()
        for one in self._app.services:  # who is not looked up is told of no change
            with suppress(NotFound):
                self._app.discovery.service(one.name)

    def _new_chore(self) -> Chore:
        return Chore("fan-intake", "follow a changed route", self._follow)

    # The steps

    def _new_gate(self) -> Gate:
        return Gate(self._app.dispatcher, self._waiting)

    def _listen(self, transports: Sequence[str]) -> None:
        for spec in (*transports, *self._intake.missing(transports)):
            scheme, _, bind = spec.partition("=")
            if scheme == "ipc" and not bind:
                self._app.settings.runtime_folder()  # refuses a folder that others may use
            self._listeners.append(self._app.transport(scheme).serve(bind, self._gate))

    def _register(self, one: Hosted, interface: Interface, standby: bool) -> None:
        unique = one.service.unique
        self._refuse_twin(one, unique)
        instance = Instance(
            id=one.instance_id,
            service=interface.service,
            version=interface.version,
            addresses=tuple(listener.address for listener in self._listeners),
            state="starting",
            meta={"unique": "true"} if unique else {},
            shards=shards_of(one.service),
            nonce=new_id(),
            iface=interface.hash,
            pid=os.getpid(),
            host=os.uname().nodename,
            started_at=now(),
        )
        if standby:
            self._app.discovery.register_when_free(instance, interface)
        else:
            self._app.discovery.register(instance, interface)
        self._instances[instance.id] = instance

    def _refuse_twin(self, one: Hosted, unique: bool) -> None:
        """The registry lets a session overwrite its own records: a twin inside one App is ours to
        see."""
        for other in self._instances.values():
            if unique and (other.service, other.version) == (one.name, one.version):
                raise AlreadyExists(
                    f"{one.name} {one.version} is unique and runs as {other.id} in this App",
                    reason="duplicate_id",
                )

    def _new_needs(self) -> Needs:
        return Needs(self._app, self._bring_up_late, self._note_missing)

    def _bring_up(self, one: Hosted) -> None:
        self._begin(one)
        self._waiting.discard(one.instance_id)
        self._set_state(one.instance_id, "up", unmet=())

    def _bring_up_late(self, one: Hosted) -> None:
        """What a service needed is there now. Where it cannot start all the same, it stays as it
        is, and its listing says why. Raises what keeps the registry from being told that it is up;
        it is started no second time then."""
        if one not in self._started:
            try:
                self._begin(one)
            except FanError as exc:
                _log().error("%s", exc)
                self._attempt("say so", partial(self._note_missing, one, (str(exc),)))
                raise CannotStart(exc) from exc
        self._waiting.discard(one.instance_id)
        self._set_state(one.instance_id, "up", unmet=())
        _log().warning("%s has what it needs, and is up", one.name)
        self._following.ask()

    def _hold(self, one: Hosted) -> None:
        """Another has its place: it takes no calls, messages and events any more."""
        self._waiting.add(one.instance_id)
        self._following.ask()
        self._set_state(one.instance_id, "starting")

    def _bring_back(self, one: Hosted) -> None:
        if one not in self._needs.waiting:  # else it is brought up with what it needs
            self._bring_up_late(one)

    def _end(self, one: Hosted, timeout: float = FAREWELL, *, is_last: bool = False) -> None:
        """Run its `service_stop`; an `async def` one is cancelled after `timeout` seconds. A plain
        one is waited for, since the service may begin again; the last time no longer than that."""
        if one in self._started:
            self._started.remove(one)
            hook: Callable[[], Any] = one.service.service_stop
            if is_last:
                hook = partial(within, hook, timeout)
            self._attempt(f"stop {one.name}", partial(self._run, hook, timeout))

    def _note_missing(self, one: Hosted, missing: tuple[str, ...]) -> None:
        state = self._instances[one.instance_id].state
        self._set_state(one.instance_id, state, unmet=missing)

    def _set_state(
        self, instance_id: str, state: State, unmet: tuple[str, ...] | None = None
    ) -> None:
        instance = msgspec.structs.replace(self._instances[instance_id], state=state)
        if unmet is not None:
            instance = msgspec.structs.replace(instance, unmet=unmet)
        self._instances[instance_id] = instance
        limit = time.monotonic() + FAREWELL if state == "draining" else None
        self._app.discovery.update(instance, deadline=limit)

    def _deregister(self, instance_id: str) -> None:
        self._app.discovery.deregister(instance_id, deadline=time.monotonic() + FAREWELL)

    def _adopt(self, one: Hosted, adopt: bool) -> None:
        try:
            self._app.discovery.adopt(
                one.name, one.version, force=adopt, who=user_name(), host=os.uname().nodename
            )
        except PermissionDenied as exc:
            # It stays unrouted: the highest final release with a live instance answers.
            _log().warning("%s has no route: %s", one.name, exc)

    def _begin(self, one: Hosted) -> None:
        """Run `service_start`. What it raises is Unknown (start_failed), unless a FanError."""
        try:
            self._run(one.service.service_start)
        except FanError:
            raise
        except Exception as exc:
            sentence = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
            raise Unknown(
                f"{one.name} {one.version} could not start: {sentence}",
                reason="start_failed",
                executed="no",
            ) from exc
        self._started.append(one)

    def _run(self, hook: Callable[[], Any], timeout: float | None = None) -> None:
        """Call a hook, plain or `async def`, the latter on the loop of the handlers, where it is
        cancelled after `timeout` seconds."""
        outcome = hook()
        if hasattr(outcome, "__await__"):
            try:
                self._app.runner.start(outcome, copy_context(), timeout).result()
            except Expired:
                raise DeadlineExceeded(f"it did not end within {timeout:.1f} s") from None

    def _attempt(self, what: str, step: Callable[[], object]) -> None:
        try:
            step()
        except FanError as exc:
            tell = _log().debug if self._is_failing else _log().warning
            tell("could not %s: %s", what, exc)
        except Exception:
            _log().exception("could not %s", what)


def start_order(hosted: Sequence[Hosted]) -> list[Hosted]:
    """The services, each behind those of its hard dependencies that are among them; otherwise as
    given. Raises FailedPrecondition (dependency_missing) naming the circle when there is one."""
    by_name: dict[str, list[Hosted]] = {}
    for one in hosted:
        by_name.setdefault(one.name, []).append(one)
    order: list[Hosted] = []

    def visit(one: Hosted, way: tuple[str, ...]) -> None:
        if one.name in way:
            circle = " -> ".join((*way[way.index(one.name) :], one.name))
            raise FailedPrecondition(
                f"these services need each other to start: {circle}", reason="dependency_missing"
            )
        if one not in order:
            for needed in dependencies(one.service).get("hard", {}):
                for other in by_name.get(needed, ()):
                    visit(other, (*way, one.name))
            order.append(one)

    for one in hosted:
        visit(one, ())
    return order


def _log() -> Any:
    import logging

    return logging.getLogger("fan")
