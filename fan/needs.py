"""What a service needs of others while it runs: it starts when its hard dependencies are there.

A hard dependency is met by any live instance whose version is in the range, whatever the route
says: two services that need each other's new versions could never be switched together otherwise.
A service that was up stays up when a dependency goes away, and its listing says what is missing:
if it went down with it, one restart would take down whatever stands on it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fan.chores import LONGEST_RETRY, RETRY
from fan.errors import FailedPrecondition, FanError, NotFound
from fan.hosting import Hosted
from fan.interface import dependencies
from fan.versions import matches, newest_last

if TYPE_CHECKING:
    from fan.app import App
    from fan.discovery import Discovery


def unmet(needed: Mapping[str, str], discovery: Discovery) -> tuple[str, ...]:
    """The dependencies that no live instance meets: `users>=1.2 (have 1.1.4)`. Raises what keeps
    the registry from being read."""
    missing = []
    for service, wanted in needed.items():
        try:
            info = discovery.service(service)
            live = {i.version for i in info.instances if info.live(i.version)}
        except NotFound:
            live = set()
        if not any(matches(version, wanted) for version in live):
            have = ", ".join(newest_last(live)) or "none"
            missing.append(f"{service}{_range(wanted)} (have {have})")
    return tuple(missing)


def _range(wanted: str) -> str:
    return wanted if not wanted or wanted[0] in "<>=!~" else f"@{wanted}"


class CannotStart(Exception):
    """A service whose time has come did not start, and never will: `failure` says why."""

    def __init__(self, failure: FanError) -> None:
        super().__init__(str(failure))
        self.failure = failure


class Needs:
    """Holds back the services of one App until what they need is there. `begin` starts one, and
    raises CannotStart, or a FanError where it is to be tried again; `note` is told what is missing,
    whenever that changes."""

    def __init__(
        self,
        app: App,
        begin: Callable[[Hosted], None],
        note: Callable[[Hosted, tuple[str, ...]], None],
    ) -> None:
        self._app = app
        self._begin = begin
        self._note = note
        #: Those that are not up, and may never be.
        self._held: list[Hosted] = []
        #: Those of them that are waited for.
        self._waiting: list[Hosted] = []
        #: Why the first of them that did not start did not.
        self._failure: FanError | None = None
        self._missing: dict[str, tuple[str, ...]] = {}
        self._wake = threading.Event()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self._end: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<Needs waiting={[one.name for one in self._waiting]}>"

    @property
    def waiting(self) -> list[Hosted]:
        """The services that are held back."""
        return list(self._held)

    def wait(self) -> bool:
        """Wait until nothing is held back; False where that is closed first. Raises what keeps one
        from starting."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_closed or self._failure is not None or not self._waiting
            )
            if self._failure is not None and not self._is_closed:
                raise self._failure
            return not self._is_closed

    def holds(self, one: Hosted) -> bool:
        """Whether a service has to wait; it is begun later on then. Raises FailedPrecondition
        (dependency_missing) where it would wait for itself."""
        depend = dependencies(one.service)
        soft = unmet(depend.get("soft", {}), self._app.discovery)
        if soft:
            _log().warning("%s works without what it would use: %s", one.name, ", ".join(soft))
        missing = unmet(depend.get("hard", {}), self._app.discovery)
        if not missing:
            return False
        self._refuse_circle(one.name, sorted(depend["hard"]), (one.name,))
        self._held.append(one)
        self._waiting.append(one)
        self._tell(one, missing)
        _log().warning("%s waits for %s", one.name, ", ".join(missing))
        return True

    def _refuse_circle(self, name: str, needed: Sequence[str], way: tuple[str, ...]) -> None:
        for service in needed:
            if service == name:
                raise FailedPrecondition(
                    f"these services need each other to start: {' -> '.join((*way, name))}",
                    reason="dependency_missing",
                )
            if service in way:
                continue
            try:
                info = self._app.discovery.service(service)
            except FanError:
                continue
            if any(info.live(i.version) for i in info.instances):
                continue  # it is up, and waits for nobody
            interface = info.interface_for()
            below = sorted(interface.depend.get("hard", {})) if interface is not None else []
            self._refuse_circle(name, below, (*way, service))

    def open(self, services: Sequence[Hosted]) -> None:
        """Begin what waits when it can, and tell what is missing of the others."""
        if not any(dependencies(one.service).get("hard") for one in services):
            return
        # A daemon: a program that fails, and closes nothing, ends all the same.
        self._thread = threading.Thread(
            target=self._run, args=(services,), name="fan-needs", daemon=True
        )
        self._thread.start()
        self._end = self._app.discovery.watch(self._wake.set)

    def _run(self, services: Sequence[Hosted]) -> None:
        wait, pause = None, RETRY
        while True:
            self._wake.wait(wait)
            self._wake.clear()
            if self._is_closed:
                return
            if self._look_at(services, is_first=pause == RETRY):
                wait, pause = None, RETRY
            else:  # no other change may come
                wait, pause = pause, min(2 * pause, LONGEST_RETRY)

    def _look_at(self, services: Sequence[Hosted], *, is_first: bool) -> bool:
        """Whether it is known of all what they need, and done."""
        is_done = True
        for one in services:
            try:
                self._look(one)
            except FanError as exc:
                tell = _log().warning if is_first else _log().debug
                tell("what %s needs is not known: %s", one.name, exc)
                is_done = False
        return is_done

    def _look(self, one: Hosted) -> None:
        missing = unmet(dependencies(one.service).get("hard", {}), self._app.discovery)
        if one in self._waiting and not missing and not self._is_closed:
            self._missing.pop(one.instance_id, None)
            self._start(one)
        elif missing != self._missing.get(one.instance_id, ()) and not self._has_failed(one):
            self._tell(one, missing)

    def _start(self, one: Hosted) -> None:
        self._held.remove(one)  # it is up as soon as its hook has run
        failure: FanError | None = None
        try:
            self._begin(one)
        except CannotStart as exc:
            self._held.append(one)
            failure = exc.failure
        except FanError:
            self._held.append(one)
            raise
        with self._changed:
            self._waiting.remove(one)
            self._failure = self._failure or failure
            self._changed.notify_all()

    def _has_failed(self, one: Hosted) -> bool:
        return one in self._held and one not in self._waiting

    def _tell(self, one: Hosted, missing: tuple[str, ...]) -> None:
        self._missing[one.instance_id] = missing
        self._note(one, missing)

    def close(self, timeout: float = 5.0) -> None:
        """Begin nothing any more. Twice does no harm."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._wake.set()
        end, self._end = self._end, None
        if end is not None:
            end()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        self._held.clear()
        self._waiting.clear()
        self._missing.clear()


def _log() -> Any:
    import logging

    return logging.getLogger("fan")
