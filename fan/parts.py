"""What an App is made of: the registry, the transports, threads; each created when it is first
used, and anew in a forked child."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fan import plugins
from fan.discovery import Discovery
from fan.drivers import Mailbox
from fan.errors import NO, Unavailable
from fan.mirror import Mirror
from fan.model import Address
from fan.picker import Picker
from fan.policies import Policies, check_config, check_state
from fan.routes import RouteBook, Routes
from fan.runner import LoopThread
from fan.settings import Settings
from fan.settings_places import config_variables, expand
from fan.stores.base import Store
from fan.transports.base import Ledger, Transport

if TYPE_CHECKING:
    from fan.binding import Binding
    from fan.config import Configs
    from fan.consumer import Registration
    from fan.dispatch import Dispatcher
    from fan.events import Subscriber
    from fan.lifecycle import Lifecycle
    from fan.middleware.base import Middleware
    from fan.middleware.metrics import Metrics
    from fan.pool import Pool
    from fan.tracers.base import Tracer
    from fan.version import Versions


class Parts:
    """The parts of an App, which says what they are made from."""

    settings: Settings
    name: str
    is_live: bool
    metrics: Metrics | None
    policies: Policies | None
    _kept: plugins.Kept
    is_started: bool
    _is_closed: bool
    binding: Binding
    dispatcher: Dispatcher
    _lock: threading.RLock
    _given_store: Store | None
    _given_transports: dict[str, Transport]
    _given_routes: type[Routes] | None
    _given_tracer: Tracer | None
    _on_stale: Callable[[float], None] | None

    def _reset(self) -> None:
        """Everything that is created when it is first used."""
        self._store: Store | None = self._given_store
        self._transports: dict[str, Transport] = dict(self._given_transports)
        #: The same by URL: a call looks up no scheme.
        self._by_address: dict[str, Transport] = {}
        self._pool: Pool | None = None
        self._lifecycle: Lifecycle | None = None
        self._config: Configs | None = None
        self._mailboxes: weakref.WeakKeyDictionary[Any, Mailbox] = weakref.WeakKeyDictionary()
        self._subscribers: weakref.WeakSet[Subscriber] = weakref.WeakSet()
        self.runner = LoopThread()
        #: What is used of the registry, as of one generation.
        self.mirror = Mirror(
            lambda: self.store, self.settings.timeout, on_loss=self.settings.on_loss
        )
        if self.policies is not None:
            self.mirror.validate(lambda after: check_state(self.mirror.state, after))
        #: What tells the registry which generation that is; a one-shot App tells nothing.
        self.consumer = self._registration() if self.is_live else None
        self.discovery = Discovery(
            lambda: self.store,
            live=self.is_live,
            timeout=self.settings.timeout,
            on_change=self._on_change,
            mirror=self.mirror,
        )
        self.picker = Picker(self.discovery, self.settings.transports)
        #: The rules for the way of calls; None where there are none.
        self.routes = self._route_book(self._given_routes) if self._given_routes else None

    def _on_change(self) -> None:
        """What is registered or routed changed: a route may name another version by now. Calls go
        by it at once; the rest, which may have to wait for brokers, comes behind that."""
        if self.is_started:
            self.binding.follow()
            if self._lifecycle is not None:
                self._lifecycle.reroute()

    def _registration(self) -> Registration:
        from fan.consumer import Registration

        timeout = self.settings.timeout
        return Registration(self.mirror, lambda: self.store, app=self.name, timeout=timeout)

    def _route_book(self, routes: type[Routes]) -> RouteBook:
        return RouteBook(
            routes,
            deployment=expand(routes.deployment),
            store=lambda: self.store,
            mirror=self.mirror if self.is_live else None,
            on_change=self.binding.follow,  # what was called directly may have another way by now
            check=self._check_transport,
            timeout=self.settings.timeout,
        )

    def _check_transport(self, name: str) -> None:
        """Raise InvalidArgument for a transport that nobody brings, without making one."""
        if plugins.transport_name(name) not in self._given_transports:
            plugins.transport_class(name)

    def _layers(self, settings: Settings) -> list[Middleware]:
        return plugins.default_middleware(
            settings,
            is_live=self.is_live,
            metrics=self.metrics,
            tracer=self.tracer,
            ledger=self._ledger,
            kept=self._kept,
        )

    @property
    def tracer(self) -> Tracer | None:
        """What records spans; None where nothing does."""
        if self._given_tracer is None and self.settings.tracer != "noop":
            self._given_tracer = plugins.tracer_class(self.settings.tracer)(self.settings)  # type: ignore[call-arg]
        return self._given_tracer

    def _ledger(self) -> Ledger:
        """Where `@rpc(dedupe="shared")` keeps its answers: at the broker of the settings, where
        that can, else in the database."""
        transport = self.transport(self.settings.queue)
        if "ledger" not in transport.can:
            transport = self.transport("database")
        return transport.ledger()

    def _check_open(self) -> None:
        """Raise Unavailable: who makes something for a closed App has nobody who closes it."""
        if self._is_closed:
            raise Unavailable("this App is closed", reason="connect_failed", executed=NO)

    @property
    def store(self) -> Store:
        """The registry's store, opened at the first use."""
        with self._lock:
            if self._store is None:
                self._check_open()
                settings = self.settings
                self._store = plugins.open_store(
                    settings.registry_url, settings.namespace, settings, on_stale=self._on_stale
                )
            return self._store

    @property
    def config(self) -> Configs:
        """The configs of services: `app.config["orders/theme"]`, `app.config.bind(...)`."""
        with self._lock:
            if self._config is None:
                self._check_open()
                from fan.config import Configs

                self._config = Configs(
                    lambda: self.store,
                    live=self.is_live,
                    timeout=self.settings.timeout,
                    variables=config_variables,
                    mirror=self.mirror,
                    check=check_config,
                )
            return self._config

    @property
    def versions(self) -> Versions:
        """Which versions take calls: `app.versions.switch({"shop": "2"})`, `.rollback()`."""
        from fan.version import Versions

        return Versions(lambda: self.store, timeout=self.settings.timeout)

    @property
    def pool(self) -> Pool:
        """Threads for what must not block a caller: pushes, plain methods awaited from a task."""
        with self._lock:
            if self._pool is None:
                self._check_open()
                from fan.pool import Pool

                self._pool = Pool(self.settings.workers, "fan-worker")
            return self._pool

    def mailbox(self) -> Mailbox:
        """What brings outcomes to the running event loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        found = self._mailboxes.get(loop)
        if found is None:
            found = self._mailboxes[loop] = Mailbox(loop, lambda: self.pool)
        return found

    def transport(self, name: str) -> Transport:
        """The transport of a name or an address's scheme. Raises InvalidArgument for an unknown
        one."""
        name = plugins.transport_name(name)
        found = self._transports.get(name)
        if found is not None:
            return found
        with self._lock:
            if name not in self._transports:
                self._check_open()
                created = plugins.transport_class(name)(self.settings.resolving())  # type: ignore[call-arg]
                if name == "local":
                    created.serve("", self.dispatcher)
                self._transports[name] = created
            return self._transports[name]

    def transport_for(self, address: Address) -> Transport:
        """The transport that carries to an address."""
        found = self._by_address.get(address.url)
        if found is None:
            found = self._by_address[address.url] = self.transport(address.scheme)
        return found
