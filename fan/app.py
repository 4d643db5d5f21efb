"""One application: its settings, its registry, the services it hosts and the calls it makes.

Everything hangs off an App; several can live in one process. All of it is created when it is first
used, and anew in a forked child.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from fan import forks
from fan.binding import Binding
from fan.calls import Calls
from fan.client import Client
from fan.dispatch import Dispatcher
from fan.error_types import ErrorTypes
from fan.hosting import Hosted, instance_of
from fan.middleware.base import Middleware
from fan.model import Address
from fan.parts import Parts
from fan.plugins import Kept
from fan.policies import Policies
from fan.routes import Routes
from fan.service import Service, check_topic
from fan.settings import Settings, load_settings
from fan.stores.base import Store
from fan.transports.base import Transport

if TYPE_CHECKING:
    from fan.events import Subscriber
    from fan.lifecycle import Lifecycle
    from fan.middleware.metrics import Metrics
    from fan.operations import Operations
    from fan.tracers.base import Tracer


class App(Parts, Calls):
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
        #: Whether the registry is watched.
        self.is_live = live
        #: What was called and served so far; a one-shot App counts nothing.
        self.metrics = _metrics() if live else None
        has_tracer = tracer is not None or self.settings.tracer != "noop"
        #: Share of the traces begun here that are recorded.
        self.sample = self.settings.sample if has_tracer else 0.0
        #: The layers that all lists of layers share.
        self._kept = Kept()
        #: Which calls are treated otherwise; a list of layers that was given is for all of them.
        self.policies = (
            Policies(self.settings, policies or {}, self._layers) if middleware is None else None
        )
        self._given_routes = routes
        self._lock = threading.RLock()
        #: Which endpoints are called directly.
        self.binding = Binding(self)
        self._given_store = store
        self._given_transports = dict(transports or {})
        self._is_closing = self._is_closed = False
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
                self.errors.register(cls, may_share=True)
        self.dispatcher.hosting.add(hosted)
        self.binding.rebind()
        return hosted

    def remove(self, instance_id: str) -> None:
        """Host it no longer."""
        self.dispatcher.hosting.remove(instance_id)
        self.binding.rebind()

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

    @property
    def operations(self) -> Operations:
        """What an operator does: `app.operations.override(...)`, `lift`, `deregister`, ..."""
        from fan.operations import Operations

        return Operations(self)

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
        with self._lock:
            if self._is_closing:
                return
            self._is_closing = True
        with contextlib.ExitStack() as steps:  # from the last to the first; each whatever others do
            if self._store is not None and self._store is not self._given_store:
                steps.callback(self._store.close)
            steps.callback(self._close_parts)
            steps.callback(self.stop)

    def _close_parts(self) -> None:
        self._is_closed = True
        self.binding.close()
        with contextlib.ExitStack() as steps:
            if self._given_tracer is not None:
                steps.callback(self._given_tracer.close)
            if self.policies is not None:
                steps.callback(self.policies.close)
            for layer in reversed(self.middleware):
                steps.callback(layer.close)
            if self._pool is not None:
                steps.callback(partial(self._pool.shutdown, wait=False, cancel_futures=True))
            steps.callback(self.runner.close)
            steps.callback(self.dispatcher.close)
            for transport in reversed(self._transports.values()):
                steps.callback(transport.close)
            if self.consumer is not None:
                steps.callback(self.consumer.close)
            steps.callback(self.mirror.close)
            if self._config is not None:
                steps.callback(self._config.close)
            steps.callback(self.discovery.close)
            for subscriber in self._subscribers:
                steps.callback(subscriber.close)


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
        app.binding.start_over()
        app.is_started = False
        if app._lifecycle is not None:
            app._lifecycle.abandon()
        for subscriber in tuple(app._subscribers):
            subscriber.abandon()
        for transport in app._transports.values():
            transport.abandon()
        app._given_transports = {}
        app._reset()
        app.instance_id = instance_of(app.name)
        app._kept.start_over()
        for layer in app.middleware:
            layer.start_over()
        if app.policies is not None:
            app.policies.start_over()
        app.dispatcher.start_over()
        for hosted in app.services:
            hosted.settle(app)
        app.binding.follow()  # what has to be read is read by the first call


forks.in_child("apps", _forked)
