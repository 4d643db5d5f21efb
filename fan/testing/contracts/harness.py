"""What the suites by theme stand on: the Apps of a test, and what a transport says of itself."""

from __future__ import annotations

import platform
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import import_module
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

import pytest

from fan.app import App
from fan.message import Request
from fan.model import Address, Instance
from fan.settings import Settings
from fan.stores.memory import MemoryStore
from fan.testing.contracts.callers import AsyncCaller, Caller, Loop, SyncCaller
from fan.testing.contracts.probe import BOUND, OutOfStock, Probe, TooShort, probe
from fan.tracers.base import Tracer
from fan.transports.base import Transport

F = TypeVar("F", bound=Callable[..., Any])


def needs(*abilities: str) -> Callable[[F], F]:
    """Say which abilities (`Transport.can`) a test needs: it may be gated only without them."""

    def mark(test: F) -> F:
        test.__fan_needs__ = frozenset(abilities)  # type: ignore[attr-defined]
        return test

    return mark


class Harness:
    """What a subclass says about its transport. See `TransportContract` for how to use it."""

    #: Scheme of the addresses, and name under which an App finds the transport.
    scheme: ClassVar[str] = ""
    #: What `App.start` is given; empty for the scheme alone.
    bind: ClassVar[str] = ""
    #: `module:attribute` of what makes the transport from the App's settings, where `scheme` is no
    #: plug-in of that name. Text, because server processes need it too.
    make: ClassVar[str] = ""
    #: Whether callers and handlers share an App: a call is a method call then.
    is_local: ClassVar[bool] = False
    #: Whether an address vouches for its peer, so that `principal` arrives.
    is_authenticated: ClassVar[bool] = True
    #: How a server of this protocol could begin a reply that never ends, for behaviour 11.
    drip: ClassVar[bytes] = b""
    #: Test name -> why the behaviour does not apply. Nothing is skipped without standing here.
    gates: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, why in cls.gates.items():
            test = getattr(cls, name, None)
            if not callable(test) or not why:
                raise TypeError(f"{cls.__name__}.gates: {name!r} must be a test, with a reason")
            if name not in vars(cls):  # pytest collects no None
                setattr(cls, name, None)

    def can(self, ability: str) -> bool:
        """Whether the transport has an ability."""
        return ability in self.transport_class().can

    def transport_class(self) -> type[Transport]:
        """The class under test."""
        if self.make:
            return type(made_by(self.make, Settings()))
        from fan.plugins import transport_class

        return transport_class(self.scheme)

    def broker(self, world: World) -> dict[str, Any]:
        """Settings that name the broker of one world, which shares its queues with no other: a
        virtual host, a database or a file of its own. What has to be undone goes to
        `world.on_close`. Asked once per world; server processes get the same."""
        return {}

    def connect(self, address: Address) -> socket.socket:
        """A bare connection to a server, for what no client of fan would send."""
        parts = urlsplit(address.url)
        if parts.scheme == "unix":
            raw = socket.socket(socket.AF_UNIX)
            raw.settimeout(BOUND)
            raw.connect(parts.path)
            return raw
        return socket.create_connection((parts.hostname, parts.port), timeout=BOUND)

    def listen(self, world: World) -> tuple[socket.socket, Address]:
        """A bare listening socket, and the address under which a client reaches it."""
        if self.scheme == "ipc":
            raw = socket.socket(socket.AF_UNIX)
            path = f"{world.folder}/bare.sock"
            raw.bind(path)
            url = f"unix://{path}"
        else:
            raw = socket.socket()
            raw.bind(("127.0.0.1", 0))
            url = f"{self.scheme}://127.0.0.1:{raw.getsockname()[1]}"
        raw.settimeout(BOUND)
        raw.listen()
        return raw, Address(url)

    @pytest.fixture
    def world(self) -> Iterator[World]:
        world = World(self)
        try:
            yield world
        finally:
            world.close()

    @pytest.fixture(params=["sync", "async"])
    def face(self, request: pytest.FixtureRequest) -> Iterator[Callable[[Any], Caller]]:
        """Makes the sync or the async face of an App; the test runs once for each."""
        loop = Loop()
        cls = SyncCaller if request.param == "sync" else AsyncCaller
        yield lambda client: cls(client, loop)
        loop.close()

    @pytest.fixture
    def served(self, world: World) -> Probe:
        """The service that `caller` finds under `probe`."""
        service = probe()
        world.serve(service)
        return service

    @pytest.fixture
    def caller(
        self, world: World, served: Probe, face: Callable[[Any], Caller]
    ) -> Iterator[Caller]:
        """Calls from an App of its own, sync and async."""
        yield face(world.client())
        served.release()


class World:
    """The Apps of one test, servers and clients, on one registry. They are closed with it."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.folder = tempfile.mkdtemp(prefix="fan-")
        self.store = MemoryStore("contract")
        #: A registry in a file, for servers in processes of their own.
        self.registry = f"sqlite:{self.folder}/registry.db"
        self._stack = ExitStack()
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self._stack.callback(self.store.close)
        self._local: App | None = None
        #: What records the spans of the Apps that are made from here on.
        self.tracer: Tracer | None = None
        #: Settings that name the broker, for those transports that have one.
        self.broker: dict[str, Any] = {}
        try:
            if harness.transport_class().is_shared:
                self.broker["queue"] = harness.scheme
            self.broker.update(harness.broker(self))
        except BaseException:
            self.close()
            raise

    def on_close(self, undo: Callable[[], object]) -> None:
        """Have something done when this world is closed, before what was asked for earlier."""
        self._stack.callback(undo)

    def settings(self, **changes: Any) -> Settings:
        """Settings of this world, strict about local calls."""
        usual: dict[str, Any] = {"runtime_dir": f"{self.folder}/run", "strict_local": True}
        return Settings(**{**usual, **self.broker, **changes})

    def app(self, *services: Probe, on_file: bool = False, **settings: Any) -> App:
        """An App that knows the transport under test and the errors of the probes. `on_file` puts
        it on the registry that server processes share."""
        harness = self.harness
        chosen = self.settings(registry=self.registry, **settings)
        app = App(
            *services,
            settings=chosen,
            store=None if on_file else self.store,
            transports={harness.scheme: made_by(harness.make, chosen)} if harness.make else None,
            tracer=self.tracer,
            errors=(OutOfStock, TooShort),
        )
        self._stack.callback(app.close)
        return app

    def serve(self, *services: Probe, **settings: Any) -> App:
        """An App that serves `services`; for a local transport, the one App of this world."""
        if self.harness.is_local and self._local is not None:
            for service in services:
                self._local.add(service)
            app = self._local
        else:
            app = self.app(*services, **settings)
            app.start(() if self.harness.is_local else (self.harness.bind or self.harness.scheme,))
            self._local = app
            self._stack.callback(app.stop, BOUND)
        for service in services:
            self._stack.callback(service.release)
        return app

    def client(self, **settings: Any) -> App:
        """An App that only calls; for a local transport, the App that serves."""
        if self.harness.is_local and self._local is not None:
            return self._local
        return self.app(**settings)

    def ghost(self, service: str = "probe", version: str = "1.0.0", id: str = "ghost") -> Instance:
        """Register an instance at an address where nobody listens, as a stale entry would be."""
        raw, address = self.harness.listen(self)
        raw.close()
        app = self.app(probe(service, version))
        instance = Instance(
            id=id,
            service=service,
            version=version,
            addresses=(address,),
            nonce=id,
            host=platform.node(),
        )
        register(app, instance)
        return instance

    def request(self, target: str, body: bytes = b"{}", **fields: Any) -> Request:
        """A bare request, for what a client of fan would not send."""
        service, _, method = target.rpartition(".")
        usual: dict[str, Any] = {"id": "bare", "timeout_ms": 5000, "caller": "contract"}
        return Request(service=service, method=method, body=body, **{**usual, **fields})

    def send(self, client: App, request: Request) -> Any:
        """Send a bare request to an instance of its service; the Response."""
        address = client.client.resolve(request.service, request.method).address
        return client.transport(self.harness.scheme).call(address, request)

    def close(self) -> None:
        """Stop and close everything, newest first."""
        self._stack.close()


def made_by(path: str, settings: Settings) -> Transport:
    """The transport that `module:attribute` makes."""
    module, _, name = path.partition(":")
    transport: Transport = getattr(import_module(module), name)(settings)
    return transport


def register(app: App, instance: Instance) -> None:
    """Put an instance into the registry without serving it."""
    from fan.interface import interface_of

    app.discovery.register(instance, interface_of(probe(instance.service, instance.version)))
