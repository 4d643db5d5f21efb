"""The redis transport: calls, pushes and events through a Redis that all sides reach.

Calls and pushes wait in streams that a consumer group reads, replies come on one list per calling
process. The names are in `redis_keys`, the fields in `redis_fields`, the steps that Redis does in
one go in `redis_scripts`. One thread per process does the socket I/O (`redis_loop`); a process has
one connection for commands, one for replies, one to show that it lives, and one for each group of
streams that it reads. Needs Redis 7.0 or a Valkey.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, ClassVar, Protocol

from fan.errors import InvalidArgument, Unavailable
from fan.message import Request, Response
from fan.model import Address
from fan.transports.base import Handler, Ledger, Listener, Queues, Subscription, Transport
from fan.transports.redis_place import Place, place_of

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from concurrent.futures import Future

    from fan.transports.redis_hub import Hub
    from fan.transports.redis_loop import Loop


class RedisSettings(Protocol):
    """What the transport reads of the settings."""

    @property
    def redis_url(self) -> str:
        """The Redis that is meant where nobody says otherwise."""

    @property
    def namespace(self) -> str:
        """Whose keys they are."""

    @property
    def max_body(self) -> int:
        """Bytes of arguments or result that are accepted."""

    @property
    def workers(self) -> int:
        """Messages that are handled at once."""

    @property
    def deliveries(self) -> int:
        """How often a push or event is given to a worker."""

    @property
    def lease(self) -> float:
        """Seconds that a message stays with a worker that shows no sign of life."""


class RedisTransport(Transport):
    """Calls, pushes and events over Redis; addresses are `redis://host:port/db`, or `rediss://`
    over TLS."""

    scheme: ClassVar[str] = "redis"
    can: ClassVar[frozenset[str]] = frozenset(
        {"call", "push", "subscribe", "serve", "queue", "ledger"}
    )
    is_shared: ClassVar[bool] = True

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._loop: Loop | None = None
        #: By the URL that is asked for.
        self._hubs: dict[str, Hub] = {}
        self._is_closed = False

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{len(set(self._hubs.values()))} places"
        return f"<RedisTransport {state}>"

    def home(self) -> Address:
        return self._home().address

    def call(
        self, address: Address, request: Request, *, marks: dict[str, float] | None = None
    ) -> Response:
        return self._hub(address.url).calls.call(request, marks)

    def submit(self, address: Address, request: Request) -> Future[Response]:
        return self._hub(address.url).calls.submit(request)

    def acall(self, address: Address, request: Request) -> Awaitable[Response]:
        return self._hub(address.url).calls.acall(request)

    def send(self, address: Address, request: Request) -> Response:
        from fan.transports.redis_send import push

        return push(self._hub(address.url), request, self._settings.max_body)

    def publish(self, address: Address, request: Request) -> Response:
        from fan.transports.redis_send import publish

        return publish(self._hub(address.url), request, self._settings.max_body)

    def subscribe(self, address: Address, subscription: Subscription, handler: Handler) -> Listener:
        from fan.transports.redis_events import Subscribed

        listener = Subscribed(self._hub(address.url), subscription, handler, self._settings)
        try:
            listener.open()
        except BaseException:
            listener.close(0.0)
            raise
        return listener

    def queues(self, address: Address) -> Queues:
        from fan.transports.redis_queues import RedisQueues

        hub = self._hub(address.url)
        return RedisQueues(hub.pipe, hub.keys)

    def ledger(self) -> Ledger:
        from fan.transports.redis_ledger import RedisLedger

        hub = self._hub(self._home().url)
        return RedisLedger(hub.pipe, hub.keys)

    def serve(self, bind: str, handler: Handler) -> Listener:
        """`bind` is the URL of a Redis, by default the one of the settings; what it has of a
        password is not registered."""
        from fan.transports.redis_server import RedisServer
        from fan.transports.redis_worker import PATIENCE

        hub = self._hub(bind or self._home().url)
        listener = RedisServer(hub, handler, self._settings)
        try:
            hub.pipe.ask(("PING",), deadline=time.monotonic() + PATIENCE)
        except BaseException:
            listener.close(0.0)
            raise
        return listener

    def close(self) -> None:
        if self._pid != os.getpid():
            self._after_fork()
        with self._lock:
            self._is_closed = True
            hubs, self._hubs = [*{id(hub): hub for hub in self._hubs.values()}.values()], {}
            loop, self._loop = self._loop, None
        if loop is None:
            return
        for hub in hubs:
            loop.soon(hub.close)
        loop.close()
        for hub in hubs:
            hub.wait_closed()

    def _home(self) -> Place:
        return place_of(self._settings.redis_url)

    def _hub(self, url: str) -> Hub:
        if self._pid != os.getpid():
            self._after_fork()
        hub = self._hubs.get(url)
        return hub if hub is not None else self._make_hub(url)

    def _make_hub(self, url: str) -> Hub:
        from fan.transports.redis_hub import Hub
        from fan.transports.redis_keys import Keys
        from fan.transports.redis_loop import Loop

        try:
            home: Place | None = self._home()
        except InvalidArgument:
            home = None  # another Redis than that of the settings may be meant
        place = place_of(url, home)
        with self._lock:
            if self._is_closed:
                raise Unavailable("this transport is closed", reason="connect_failed")
            # One database with two sets of credentials is two places; without any it is the one
            # that is known.
            known = self._hubs.get(place.login) or (
                None if place.has_credentials else self._hubs.get(place.url)
            )
            if known is None:
                if self._loop is None:
                    self._loop = Loop()
                keys = Keys(self._settings.namespace, place.db)
                known = Hub(self._loop, place, keys, self._settings.max_body)
            for name in (url, place.login):
                self._hubs[name] = known
            self._hubs.setdefault(place.url, known)
            return known

    def _after_fork(self) -> None:
        """A forked child must not speak over its parent's connections."""
        hubs, loop = [*{id(hub): hub for hub in self._hubs.values()}.values()], self._loop
        self._hubs, self._loop, self._pid = {}, None, os.getpid()
        self._lock = threading.Lock()  # somebody may have held it at the fork
        for hub in hubs:
            hub.abandon()
        if loop is not None:
            loop.close()
