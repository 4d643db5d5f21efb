"""Changes of what is registered, as events: of routes the generations one by one, of instances and
interfaces the difference between two readings."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fan import App, Route, ServiceInfo
    from fancli.options import Common

#: Seconds until a registry that could not be read is read again: at first, and the longest.
RETRY, LONGEST_RETRY = 0.2, 5.0

Facts = dict[tuple[str, ...], dict[str, Any]]
Events = Generator[dict[str, Any], None, None]

#: What comes through the queue: "look" again at what has no generation, a step of following the
#: generations, or what ended that.
News = tuple[str, Any]


def watch_services(
    common: Common, service: str, *, since: str = "", strict: bool = False, once: bool = False
) -> Events:
    """What is there now as events "present", then "came", "changed" and "gone" as it happens. With
    a cursor `since`, of the routes only what came after it."""
    from fan import App

    news: SimpleQueue[News] = SimpleQueue()
    with App(settings=common.load().settings, name="fan") as app:
        following = app.discovery.follow(since)

        def follow() -> None:
            try:
                for step in following:
                    news.put(("step", step))
            except Exception as exc:  # noqa: BLE001  raised where the events are taken
                news.put(("failed", exc))

        thread = threading.Thread(target=follow, name="fan-watch", daemon=True)
        with closing(following):
            thread.start()
            stop = app.discovery.watch(lambda: news.put(("look", None)))
            try:
                yield from _Teller(app, service, strict).events(news, once)
            finally:
                stop()
        thread.join()


def watch_listing(common: Common) -> Generator[list[ServiceInfo], None, None]:
    """All services now, and again after every change."""
    from fan import App

    changes: SimpleQueue[None] = SimpleQueue()
    with App(settings=common.load().settings, name="fan") as app:
        stop = app.discovery.watch(lambda: changes.put(None), all_routes=True)
        try:
            yield from listings(app, changes)
        finally:
            stop()


def listings(app: App, changes: SimpleQueue[None]) -> Generator[list[ServiceInfo], None, None]:
    """All services, whenever something comes through the queue and they are others than before. A
    registry that cannot be read, once it could be, is read until it can."""
    known, patience = None, _Patience()
    while True:
        with suppress(Empty):
            changes.get(timeout=patience.seconds)
        while not changes.empty():
            changes.get()
        with patience.over_outages(known is not None):
            if (found := app.discovery.services()) != known:
                known = found
                yield found


class _Patience:
    """How long to wait until the registry is read again, though nobody asked for it."""

    def __init__(self) -> None:
        #: None where there is no need to.
        self.seconds: float | None = None

    @contextmanager
    def over_outages(self, is_wanted: bool) -> Iterator[None]:
        """What keeps the registry from being read inside is no failure where that is wanted."""
        from fan import DeadlineExceeded, Unavailable

        try:
            yield
        except (Unavailable, DeadlineExceeded):
            if not is_wanted:
                raise
            self.seconds = min(2 * (self.seconds or RETRY / 2), LONGEST_RETRY)
        else:
            self.seconds = None


class _Teller:
    """Makes events of the news."""

    def __init__(self, app: App, service: str, strict: bool) -> None:
        self._app = app
        self._service = service
        self._is_strict = strict
        self._known: Facts = {}
        self._routes: dict[str, dict[str, Any]] = {}
        self._has_looked = False
        self._is_idle = False
        self._patience = _Patience()

    def events(self, news: SimpleQueue[News], once: bool) -> Iterator[dict[str, Any]]:
        """The events, without an end unless they are wanted `once`."""
        while not (once and self._has_looked and self._is_idle):
            try:
                kind, what = news.get(timeout=self._patience.seconds)
            except Empty:
                kind, what = "look", None
            if kind == "failed":
                raise what
            yield from self._look() if kind == "look" else self._step(what)

    def _look(self) -> Iterator[dict[str, Any]]:
        now = self._known
        with self._patience.over_outages(self._has_looked):  # `_step` tells of those
            now = facts(self._app, self._service)
        yield from differences(self._known, now, not self._has_looked)
        self._known, self._has_looked = now, True

    def _step(self, step: Any) -> Iterator[dict[str, Any]]:
        self._is_idle = step.kind == "idle"
        if self._is_idle:
            return
        if step.kind in ("snapshot", "generation"):
            yield from self._routes_of(step)
            return
        yield {"event": step.kind, "kind": "registry"}
        if step.kind == "compacted" and self._is_strict:
            from fan import OutOfRange

            raise OutOfRange(
                f"generations up to {step.what.floor} are not kept any more: history compacted",
                reason="compacted",
                executed="no",
            )

    def _routes_of(self, step: Any) -> Iterator[dict[str, Any]]:
        """The routes of a snapshot, or those that a generation changed; the cursor is with the
        last."""
        routes: Mapping[str, Route | None] = step.what
        wanted = {
            name: route
            for name, route in routes.items()
            if not self._service or name == self._service
        }
        told = []
        for name, route in wanted.items():
            had = name in self._routes
            if route is None:
                self._routes.pop(name, None)
                told.append({"event": "gone", "kind": "route", "service": name})
                continue
            fact = self._routes[name] = _route_fact(name, route)
            event = "changed" if had or step.kind == "generation" else "present"
            if step.kind == "generation" and not had and step.entry.verb == "adopt":
                event = "came"
            told.append({"event": event, "kind": "route", **fact})
        for event_ in told[:-1]:
            yield {**event_, "gen": step.cursor.gen}
        if told:
            yield {**told[-1], "gen": step.cursor.gen, "cursor": str(step.cursor)}


def facts(app: App, service: str) -> Facts:
    """Everything without a generation that can change, by what it is."""
    found: Facts = {}
    for info in app.discovery.services():
        if not service or info.name == service:
            found.update(_facts_of(info))
    return found


def _facts_of(info: ServiceInfo) -> Facts:
    found: Facts = {}
    for version in info.interfaces:
        found["version", info.name, version] = {"service": info.name, "version": version}
    for instance in info.instances:
        found["instance", info.name, instance.id] = {
            "service": info.name,
            "version": instance.version,
            "instance": instance.id,
            "state": instance.state,
            "addresses": [address.url for address in instance.addresses],
            "unmet": list(instance.unmet),
        }
    return found


def _route_fact(service: str, route: Route) -> dict[str, Any]:
    weights = {version: weight for version, weight in route.versions.items() if weight}
    return {"service": service, "versions": weights}


def differences(before: Facts, now: Facts, is_first: bool) -> Iterable[dict[str, Any]]:
    """The events that lead from one reading to the next."""
    for key, fact in now.items():
        if key not in before:
            event = "present" if is_first else "came"
            yield {"event": event, "kind": key[0], **fact}
        elif before[key] != fact:
            yield {"event": "changed", "kind": key[0], **fact}
    for key, fact in before.items():
        if key not in now:
            yield {"event": "gone", "kind": key[0], **fact}
