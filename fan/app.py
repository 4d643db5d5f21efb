"""One application: its settings, its registry, the services it hosts and the calls it makes.

Everything hangs off an App; several can live in one process. All of it is created when it is first
used, and anew in a forked child.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from fan import plugins
from fan.client import Client
from fan.context import current
from fan.discovery import Discovery
from fan.dispatch import Dispatcher
from fan.drivers import Mailbox
from fan.endpoint import Endpoint, Rpc
from fan.errors import ErrorTypes, FanError
from fan.hosting import Hosted, instance_of
from fan.middleware.base import Middleware
from fan.mirror import Mirror
from fan.model import Address, ServiceInfo
from fan.picker import Picker
from fan.policies import Policies, check_config, check_state
from fan.routes import RouteBook, Routes
from fan.runner import LoopThread
from fan.service import Service, check_topic
from fan.settings import Settings, config_variables, expand, load_settings
from fan.stores.base import Store
from fan.transports.base import Ledger, Transport

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from fan.config import Configs
    from fan.consumer import Registration
    from fan.events import Subscriber
    from fan.lifecycle import Lifecycle
    from fan.middleware.metrics import Metrics
    from fan.operations import Operations
    from fan.tracers.base import Tracer
    from fan.version import Versions


class App:
    """Hosts services and calls others.

        with App(Greeter()) as app:
            app.call("greeter.hello", name="Ada")      # in process: a method call
            app.start(["ipc", "http=127.0.0.1:8080"])  # registered, and reachable from elsewhere

    `store`, `transports` and `tracer` replace what the settings name; `middleware` replaces the
    layers of `plugins.default_middleware`; `policies` says how single services and methods are
    treated (`fan.policies`), `routes` which way they take (`fan.routes`); `errors` are exception
    classes that come back as themselves. Without `live` nothing is watched: every look-up reads the
    registry, as a one-shot command wants it; with `on_stale` what was read last answers while the
    registry is down, and it is told the age in seconds. `name` is what services see as `caller`
    outside of any service.
    """

    def __init__(
        self,
        *services: Service,
        settings: Settings | None = None,
        store: Store | None = None,
        transports: dict[str, Transport] | None = None,
        middleware: Sequence[Middleware] | None = None,
        policies: Mapping[str, Mapping[str, Any]] | None = None,
        routes: type[Routes] | None = None,
        tracer: Tracer | None = None,
        errors: Iterable[type[BaseException]] = (),
        live: bool = True,
        on_stale: Callable[[float], None] | None = None,
        name: str = "app",
    ) -> None:
        #: As given, else as the environment and the files of this place say.
        self.settings = settings if settings is not None else load_settings().settings
        self.name = name
        #: Id of this App as a caller; instances of hosted services have their own.
        self.instance_id = instance_of(name)
        self.errors = ErrorTypes()
        for cls in errors:
            self.errors.register(cls)
        self._given_tracer = tracer
        self._on_stale = on_stale
        self._is_live = live
        #: What was called and served so far; a one-shot App counts nothing.
        self.metrics = _metrics() if live else None
        has_tracer = tracer is not None or self.settings.tracer != "noop"
        #: Share of the traces begun here that are recorded.
        self.sample = self.settings.sample if has_tracer else 0.0
        #: Which calls are treated otherwise; a list of layers that was given is for all of them.
        self.policies = (
            Policies(self.settings, policies or {}, self._layers) if middleware is None else None
        )
        #: Every bound endpoint of every client, told when what is hosted or routed changes.
        self.endpoints: weakref.WeakSet[Endpoint] = weakref.WeakSet()
        self._given_routes = routes
        self._lock = threading.RLock()
        #: Held while endpoints are told where they are called.
        self._binding = threading.RLock()
        self._given_store = store
        self._given_transports = dict(transports or {})
        self._is_closed = False
        self.is_started = False
        self._reset()
        # Last of what may refuse what was given: layers have to be closed.
        self.middleware = (
            list(middleware) if middleware is not None else self._layers(self.settings)
        )
        self.dispatcher = Dispatcher(self)
        self.client = Client(self)
        for service in services:
            self.add(service)
        _APPS.add(self)

    def _reset(self) -> None:
        """Everything that is created when it is first used."""
        self._store: Store | None = self._given_store
        self._transports: dict[str, Transport] = dict(self._given_transports)
        #: The same by URL: a call looks up no scheme.
        self._by_address: dict[str, Transport] = {}
        self._pool: ThreadPoolExecutor | None = None
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
        self.consumer = self._registration() if self._is_live else None
        self.discovery = Discovery(
            lambda: self.store,
            live=self._is_live,
            timeout=self.settings.timeout,
            on_change=self._on_change,
            mirror=self.mirror,
        )
        self.picker = Picker(self.discovery, self.settings.transports)
        #: The rules for the way of calls; None where there are none.
        self.routes = self._route_book(self._given_routes) if self._given_routes else None

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "started" if self.is_started else "open"
        return f"<App {self.name} {state} services={[h.name for h in self.dispatcher.hosting]}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self, _warn: Any = None) -> None:
        if getattr(self, "is_started", False) and not self._is_closed:
            import warnings

            warnings.warn(f"{self!r} was not closed", ResourceWarning, stacklevel=2, source=self)

    def _registration(self) -> Registration:
        from fan.consumer import Registration

        timeout = self.settings.timeout
        return Registration(self.mirror, lambda: self.store, app=self.name, timeout=timeout)

    def _route_book(self, routes: type[Routes]) -> RouteBook:
        return RouteBook(
            routes,
            deployment=expand(routes.deployment),
            store=lambda: self.store,
            mirror=self.mirror if self._is_live else None,
            on_change=self.rebind,  # what was called directly may have another way by now
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
            is_live=self._is_live,
            metrics=self.metrics,
            tracer=self.tracer,
            ledger=self._ledger,
        )

    # What it is made of

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

    @property
    def store(self) -> Store:
        """The registry's store, opened at the first use."""
        with self._lock:
            if self._store is None:
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
                from fan.config import Configs

                self._config = Configs(
                    lambda: self.store,
                    live=self._is_live,
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
    def operations(self) -> Operations:
        """What an operator does: `app.operations.override(...)`, `lift`, `deregister`, ..."""
        from fan.operations import Operations

        return Operations(self)

    @property
    def pool(self) -> ThreadPoolExecutor:
        """Threads for what must not block a caller: pushes, plain methods awaited from a task."""
        with self._lock:
            if self._pool is None:
                from concurrent.futures import ThreadPoolExecutor

                self._pool = ThreadPoolExecutor(self.settings.workers, "fan-worker")
            return self._pool

    def mailbox(self) -> Mailbox:
        """What brings outcomes to the running event loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        found = self._mailboxes.get(loop)
        if found is None:
            found = self._mailboxes[loop] = Mailbox(loop)
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

    # What it hosts

    @property
    def services(self) -> list[Hosted]:
        """The services it hosts, in the order they were added."""
        return list(self.dispatcher.hosting)

    def add(self, service: Service, instance_id: str | None = None) -> Hosted:
        """Host a service object. Its instance id is `NAME-<12 hex digits>` unless given."""
        hosted = Hosted(service, instance_id or "")
        hosted.settle(self)
        for method in hosted.table.values():
            for cls in method.raises:
                self.errors.register(cls)
        self.dispatcher.hosting.add(hosted)
        self.rebind()
        return hosted

    def remove(self, instance_id: str) -> None:
        """Host it no longer."""
        self.dispatcher.hosting.remove(instance_id)
        self.rebind()

    def hosted_for(self, service: str, want: str) -> Hosted | None:
        """The hosted service that a call of `service@want` goes to directly; None where it goes
        through the registry: it is not hosted, or the route names another version, or several."""
        candidates = self.dispatcher.hosting.of(service)
        if not candidates:
            return None
        version: str | None
        if want:
            from fan.versions import best

            version = best(want, [h.version for h in candidates]) if want != "canary" else None
        elif not self.is_started:
            return candidates[0]
        else:
            version = self._routed_version(service, candidates[0].version)
        return next((h for h in candidates if h.version == version), None)

    def _routed_version(self, service: str, unrouted: str) -> str | None:
        info = self.discovery.at_hand(service) or self._known(service)
        if info is None:
            return unrouted  # what is hosted answers
        route = info.route
        if route is None or not route.versions:
            return unrouted
        if route.replaced_by or route.shard:
            return None  # elsewhere, or wherever the key of a call says
        live = [v for v, weight in route.versions.items() if weight > 0]
        return live[0] if len(live) == 1 and not route.overrides else None

    def rebind(self) -> None:
        """Look again which endpoints are called directly."""
        if self.routes is not None and self.endpoints:
            self.routes.open()
        self._look_up_hosted()
        with self._binding:
            for endpoint in list(self.endpoints):
                endpoint.client.rebind(endpoint)
        self._follow_routes()

    def _look_up_hosted(self) -> None:
        """Have what is hosted at hand: reading it under `_binding` could wait for the mirror, which
        waits for `_binding` when it tells of a change."""
        if self.is_started:
            for hosted in self.dispatcher.hosting:
                self._known(hosted.name)

    def _follow_routes(self) -> None:
        """Serve as the registry has it: not what is retired, and through the layers that the
        policies ask for."""
        policies = self.policies
        for hosted in self.dispatcher.hosting:
            info = self._known(hosted.name) if self.is_started else None
            route = info.route if info is not None else None
            hosted.is_retired = route is not None and hosted.version in route.retired

            if policies is None:
                continue

            def layers(
                method: str, hosted: Hosted = hosted, info: ServiceInfo | None = info
            ) -> list[Middleware] | None:
                differs = policies.of(hosted.name, method, info, hosted.service.policy)
                return policies.layers(differs) if differs else None

            self.dispatcher.follow(hosted, layers)

    def _known(self, service: str) -> ServiceInfo | None:
        try:
            return self.discovery.service(service)
        except FanError:
            return None  # no registry, or not registered

    def _on_change(self) -> None:
        """What is registered or routed changed: a route may name another version by now."""
        if self.is_started:
            self.rebind()
            if self._lifecycle is not None:
                self._lifecycle.reroute()

    def enlist(self, endpoint: Endpoint) -> None:
        """Tell an endpoint where it is called, now and at every change."""
        self._look_up_hosted()
        with self._binding:  # a change meanwhile would not find it, or be undone by the older one
            self.endpoints.add(endpoint)
            endpoint.client.rebind(endpoint)

    # Its life

    @property
    def lifecycle(self) -> Lifecycle:
        """What starts, drains and stops it."""
        with self._lock:
            if self._lifecycle is None:
                from fan.lifecycle import Lifecycle

                self._lifecycle = Lifecycle(self)
            return self._lifecycle

    def start(
        self, transports: Sequence[str] = ("ipc",), *, adopt: bool = False, standby: bool = False
    ) -> None:
        """Serve what is hosted over the transports (`ipc`, `http=127.0.0.1:8080`), register it, and
        start it. `adopt` moves the routes to these versions; with `standby` a place that is taken
        is waited for. Raises FanError; nothing is left behind."""
        self.lifecycle.start(transports, adopt, standby)

    def drain(self, timeout: float | None = None) -> bool:
        """Take no new calls and wait for those in flight; False when `timeout` seconds pass
        first."""
        drained: bool = self.lifecycle.drain(
            self.settings.drain_timeout if timeout is None else timeout
        )
        return drained

    def stop(self, timeout: float = 5.0) -> None:
        """Drain, stop the services in reverse order, deregister and release everything."""
        if self._lifecycle is not None:
            self._lifecycle.stop(timeout)
        self.is_started = False

    def close(self) -> None:
        """Stop if it was started, and release every connection, thread and file. Twice does no
        harm."""
        if self._is_closed:
            return
        self._is_closed = True
        self.stop()
        for subscriber in list(self._subscribers):
            subscriber.close()
        self.discovery.close()
        if self._config is not None:
            self._config.close()
        self.mirror.close()
        if self.consumer is not None:
            self.consumer.close()
        for transport in self._transports.values():
            transport.close()
        self.runner.close()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        for layer in self.middleware:
            layer.close()
        if self.policies is not None:
            self.policies.close()
        if self._given_tracer is not None:
            self._given_tracer.close()
        if self._store is not None and self._store is not self._given_store:
            self._store.close()

    # Calls: see Client

    @property
    def rpc(self) -> Rpc:
        """`app.rpc.greeter.hello(name="Ada")`."""
        found = self.__dict__.get("_rpc")
        if found is None:
            found = self.__dict__["_rpc"] = Rpc(self.client)
        return found

    def using(self, **options: Any) -> Client:
        """Call with other options: `app.using(timeout=0.3, want="2").call(...)`; see `Options`."""
        return self.client.using(**options)

    def bind(self, target: str) -> Callable[..., Any]:
        """A callable for one target."""
        return self.client.bind(target)

    def call(self, target: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call `service.method` and wait for the result."""
        return self.client.call(target, *args, **kwargs)

    async def acall(self, target: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call from a coroutine."""
        return await self.client.acall(target, *args, **kwargs)

    def submit(self, target: str, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call in the background."""
        return self.client.submit(target, *args, **kwargs)

    def push(self, target: str, /, *args: Any, **kwargs: Any) -> None:
        """Hand a message over; return once it is accepted."""
        self.client.push(target, *args, **kwargs)

    async def apush(self, target: str, /, *args: Any, **kwargs: Any) -> None:
        """Hand a message over from a coroutine."""
        await self.client.apush(target, *args, **kwargs)

    def publish(self, topic: str, /, *args: Any, **kwargs: Any) -> None:
        """Tell an event to all who subscribed to its topic; return once the broker has it."""
        self.client.publish(topic, *args, **kwargs)

    async def apublish(self, topic: str, /, *args: Any, **kwargs: Any) -> None:
        """Tell an event from a coroutine."""
        await self.client.apublish(topic, *args, **kwargs)

    def subscribe(
        self,
        topic: str,
        handle: Callable[..., Any],
        *,
        group: str = "",
        transport: str = "",
        peer: str = "",
    ) -> Subscriber:
        """Have `handle` called with the events of a topic, until the subscription is closed. Each
        event goes to one member of a `group`; without one, to every subscriber that is there.
        `transport` is one over a broker, `peer` the URL of one; by default the settings' `queue`.
        Raises ValueError for what is no topic, and what `Transport.subscribe` raises."""
        from fan.events import Subscriber

        check_topic(topic)
        if peer:
            address = Address(peer)
            carrier = self.transport_for(address)
        else:
            carrier = self.transport(transport or self.settings.queue)
            address = carrier.home()
        subscriber = Subscriber(self, topic, handle)
        subscriber.open(carrier, address, group)
        self._subscribers.add(subscriber)
        return subscriber

    def stream(self, target: str, /, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """The items of a streaming method."""
        return self.client.stream(target, *args, **kwargs)

    def astream(self, target: str, /, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """The items of a streaming method, awaited."""
        return self.client.astream(target, *args, **kwargs)

    @property
    def context(self) -> Any:
        """The context of the call that is being served here, None outside of any."""
        return current()


def _metrics() -> Metrics:
    from fan.middleware.metrics import Metrics

    return Metrics()


#: The Apps that a fork has to pass by.
_APPS: weakref.WeakSet[App] = weakref.WeakSet()


def _forked() -> None:
    """A child shares nothing with its parent but what it is told here: its Apps start over."""
    for app in tuple(_APPS):
        if app._is_closed:
            continue
        app._lock = threading.RLock()
        app._binding = threading.RLock()
        app.is_started = False
        for transport in app._transports.values():
            transport.abandon()
        app._given_transports = {}
        app._reset()
        app.instance_id = instance_of(app.name)
        app.dispatcher.start_over()
        for hosted in app.services:
            hosted.settle(app)
        app.rebind()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
