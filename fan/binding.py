"""What an App hosts and who is called directly: told anew when what is hosted or routed changes."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from fan.errors import FanError

if TYPE_CHECKING:
    from fan.app import App
    from fan.endpoint import Endpoint
    from fan.hosting import Hosted
    from fan.middleware.base import Middleware
    from fan.model import ServiceInfo


class Binding:
    """The bound endpoints of one App's clients, and where each is called."""

    def __init__(self, app: App) -> None:
        self._app = app
        #: Every bound endpoint of every client.
        self._endpoints: weakref.WeakSet[Endpoint] = weakref.WeakSet()
        #: Held while endpoints are told where they are called. Nothing is read of the registry
        #: meanwhile: that could wait for the mirror, which waits for this when it tells of a
        #: change.
        self._lock = threading.RLock()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Binding of {len(self._endpoints)} endpoints>"

    def start_over(self) -> None:
        """Begin anew in a forked child, with a lock that nobody holds."""
        self._lock = threading.RLock()

    def close(self) -> None:
        """Nothing is called directly from now on."""
        with self._lock:
            self._is_closed = True
            for endpoint in self._endpoints:
                endpoint.local = None

    def hosted_for(self, service: str, want: str, *, is_at_hand: bool = False) -> Hosted | None:
        """The hosted service that a call of `service@want` goes to directly; None where it goes
        through the registry: it is not hosted, or the route names another version, or several.
        With `is_at_hand` this goes by what is known, and waits for nobody."""
        hosting = self._app.dispatcher.hosting
        candidates = [one for one in hosting.of(service) if not one.is_ousted]
        if not candidates or self._is_closed:
            return None
        version: str | None
        if want:
            from fan.versions import best

            version = best(want, [h.version for h in candidates]) if want != "canary" else None
        elif not self._app.is_started:
            return candidates[0]
        else:
            info = self._app.discovery.at_hand(service)
            if info is None and not (is_at_hand and self._app.is_live):
                info = self._known(service)
            version = _routed_version(info, candidates[0].version)
        return next((h for h in candidates if h.version == version), None)

    def enlist(self, endpoint: Endpoint) -> None:
        """Tell an endpoint where it is called, now and at every change."""
        self._look_up_hosted()
        with self._lock:  # a change meanwhile would not find it, or be undone by the older one
            self._endpoints.add(endpoint)
            endpoint.client.rebind(endpoint)

    def rebind(self) -> None:
        """Look again which endpoints are called directly, and how what is hosted is served. What is
        not at hand is read."""
        if self._app.routes is not None and self._endpoints:
            self._app.routes.open()
        self._look_up_hosted()
        self.follow()

    def follow(self) -> None:
        """The same by what is at hand: this waits for nobody, and is done with a change before that
        is acknowledged."""
        with self._lock:
            for endpoint in list(self._endpoints):
                endpoint.client.rebind(endpoint)
        self._follow_routes()

    def _look_up_hosted(self) -> None:
        """Have at hand what the registry says of what is hosted."""
        if self._app.is_started:
            for hosted in self._app.dispatcher.hosting:
                self._known(hosted.name)

    def _follow_routes(self) -> None:
        """Serve as the registry has it: not what is retired, and through the layers that the
        policies ask for."""
        policies = self._app.policies
        for hosted in self._app.dispatcher.hosting:
            info = self._at_hand(hosted.name) if self._app.is_started else None
            route = info.route if info is not None else None
            hosted.is_retired = route is not None and hosted.version in route.retired

            if policies is None:
                continue

            def layers(
                method: str, hosted: Hosted = hosted, info: ServiceInfo | None = info
            ) -> list[Middleware] | None:
                differs = policies.of(hosted.name, method, info, hosted.service.policy)
                return policies.layers(differs) if differs else None

            self._app.dispatcher.follow(hosted, layers)

    def _at_hand(self, service: str) -> ServiceInfo | None:
        """What is known of a service that is hosted, once that was looked up."""
        if self._app.is_live:
            return self._app.discovery.at_hand(service)
        return self._known(service)  # nothing is kept

    def _known(self, service: str) -> ServiceInfo | None:
        try:
            return self._app.discovery.service(service)
        except FanError:
            return None  # no registry, or not registered


def _routed_version(info: ServiceInfo | None, unrouted: str) -> str | None:
    """The hosted version that a route names alone; None where the calls go elsewhere, or to
    several."""
    if info is None:
        return unrouted  # what is hosted answers
    route = info.route
    if route is None or not route.versions:
        return unrouted
    if route.replaced_by or route.shard:
        return None  # elsewhere, or wherever the key of a call says
    live = [v for v, weight in route.versions.items() if weight > 0]
    return live[0] if len(live) == 1 and not route.overrides else None
