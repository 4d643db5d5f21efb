"""The services that an App hosts: which object, as which instance, answers for which name."""

from __future__ import annotations

import threading
from typing import Any

from fan.context import Site, new_id
from fan.errors import AlreadyExists, FailedPrecondition
from fan.message import Request
from fan.names import no_such_service, unknown_method
from fan.service import Method, Service, method_table, service_name


class Hosted:
    """One service object that runs as one instance, with its counters."""

    def __init__(self, service: Service, instance_id: str) -> None:
        self.service = service
        self.name = service_name(service)
        self.version = service.version
        self.table: dict[str, Method] = method_table(service)
        #: Whether it keeps its id in a forked child, which else is another instance.
        self.has_given_id = bool(instance_id)
        self.rename(instance_id or instance_of(self.name))
        self.start_over()

    def __repr__(self) -> str:
        return f"<Hosted {self.name}@{self.version} {self.instance_id}>"

    def rename(self, instance_id: str) -> None:
        """Give it another id, before it is hosted."""
        self.instance_id = instance_id
        #: What replies say of who answered.
        self.served = f"{self.version}/{instance_id}"
        #: The layers of methods whose policy differs from the settings (`middleware.base`).
        self.chains: dict[str, Any] = {}
        #: Where each method's calls are served, once the service has its App.
        self.sites: dict[str, Site] = {}

    def start_over(self) -> None:
        """Count from zero, with a lock that nobody holds."""
        self._counts: dict[str, list[float]] = {name: [0, 0, 0.0] for name in self.table}
        self._lock = threading.Lock()
        #: One item per request that it handles now.
        self.flying: list[None] = []
        #: Whether its version takes no calls any more.
        self.is_retired = False
        #: Whether another instance has its place: it is to rest.
        self.is_ousted = False

    def settle(self, app: Any) -> None:
        """Begin to belong to an App."""
        self.service.app, self.service.instance_id = app, self.instance_id
        self.sites = {name: Site(app, self.name, name, self.instance_id) for name in self.table}

    def method(self, name: str) -> Method:
        """The method of that name. Raises Unimplemented (unknown_method) with similar names."""
        method = self.table.get(name)
        if method is None:
            raise unknown_method(self.name, name, self.table)
        return method

    def count(self, method: str, seconds: float, is_error: bool) -> None:
        """Add one call to the statistics."""
        with self._lock:
            row = self._counts[method]
            row[0] += 1
            row[1] += is_error
            row[2] += seconds

    def counts(self) -> dict[str, Any]:
        """Calls, errors and milliseconds per method that was called."""
        with self._lock:
            return {
                name: {"calls": int(calls), "errors": int(errors), "ms": round(seconds * 1000, 3)}
                for name, (calls, errors, seconds) in self._counts.items()
                if calls
            }


def instance_of(name: str) -> str:
    """A new instance id for that name."""
    return f"{name}-{new_id()[:12]}"


class Hosting:
    """The hosted services of one App, by instance and by name."""

    def __init__(self) -> None:
        self._by_instance: dict[str, Hosted] = {}
        self._by_service: dict[str, list[Hosted]] = {}

    def __iter__(self) -> Any:
        return iter(list(self._by_instance.values()))

    def __len__(self) -> int:
        return len(self._by_instance)

    def add(self, hosted: Hosted) -> None:
        """Host one more. Raises AlreadyExists (duplicate_id)."""
        if hosted.instance_id in self._by_instance:
            raise AlreadyExists(
                f"the instance id {hosted.instance_id!r} is in use in this App",
                reason="duplicate_id",
            )
        self._by_instance[hosted.instance_id] = hosted
        self._by_service[hosted.name] = [*self._by_service.get(hosted.name, []), hosted]

    def remove(self, instance_id: str) -> None:
        """Forget one; an unknown id is ignored."""
        hosted = self._by_instance.pop(instance_id, None)
        if hosted is not None:
            rest = [h for h in self._by_service[hosted.name] if h is not hosted]
            self._by_service[hosted.name] = rest
            if not rest:
                del self._by_service[hosted.name]

    def start_over(self) -> None:
        """Begin anew in a forked child, under ids of its own where none were given: two processes
        are two instances."""
        every = list(self._by_instance.values())
        for hosted in every:
            hosted.start_over()
            if not hosted.has_given_id:
                hosted.rename(instance_of(hosted.name))
        self._by_instance = {hosted.instance_id: hosted for hosted in every}

    def of(self, service: str) -> list[Hosted]:
        """All that answer for a service name, in the order they were added."""
        return self._by_service.get(service, [])

    def find(self, request: Request) -> Hosted:
        """Who answers a request: the instance it names, else the version it wants, else the first
        of the name. Raises NotFound (no_such_service), FailedPrecondition (version_missing)."""
        if request.instance:
            hosted = self._by_instance.get(request.instance)
            if hosted is not None and hosted.name == request.service:
                return hosted
        candidates = self._by_service.get(request.service)
        if not candidates:
            raise no_such_service(request.service, self._by_service)
        if request.want and request.want != "canary":  # whoever called knew what that was then
            return self._wanted(candidates, request.want)
        return candidates[0]

    @staticmethod
    def _wanted(candidates: list[Hosted], want: str) -> Hosted:
        from fan.versions import best, newest_last

        versions = [h.version for h in candidates]
        version = best(want, versions)
        for hosted in candidates:
            if hosted.version == version:
                return hosted
        available = newest_last(versions)
        raise FailedPrecondition(
            f"{candidates[0].name} has no version {want} here; there is {', '.join(available)}",
            reason="version_missing",
            details={"wanted": want, "available": available},
        )
