"""Queues without a server: pushes and events in an SQLite file, for the processes of one machine.

Addresses are `database:/path/to/queues.db`. What was accepted is on the disk before the sender goes
on. It calls nobody: a call needs an answer at once. The parts: `database_desk` takes messages and
puts back what became of them, with what `database_session` knows of the living;
`database_consumer` has one handled, `database_rows` holds the statements, `database_care` looks
after queues and answers. Opening the file, forks and errors are those of `fan.sqlite`.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, ClassVar, NoReturn, Protocol

from fan import forks
from fan.codec import pack
from fan.errors import InvalidArgument, ResourceExhausted, Unimplemented
from fan.message import Request, Response
from fan.model import Address, QueueName
from fan.sqlite.channel import Channel
from fan.transports import database_rows as rows
from fan.transports.base import (
    Handler,
    Ledger,
    Listener,
    Queues,
    Subscription,
    Transport,
    deadline_of,
)
from fan.transports.database_schema import QUEUE_DATABASE

if TYPE_CHECKING:
    from concurrent.futures import Future

    from fan.transports.database_desk import Desk

_PREFIX = "database:"

#: The transports that a fork has to pass by.
_TRANSPORTS: weakref.WeakSet[DatabaseTransport] = weakref.WeakSet()


class DatabaseSettings(Protocol):
    """What the transport reads of the settings."""

    @property
    def queue_database(self) -> str:
        """`sqlite:PATH` of the database in force."""

    @property
    def database_url(self) -> str:
        """The same as somebody set it; empty for the default, whose folder is ours to make."""

    @property
    def max_body(self) -> int:
        """Bytes of arguments that are accepted."""

    @property
    def workers(self) -> int:
        """Messages that one process handles at a time."""

    @property
    def deliveries(self) -> int:
        """How often a message is delivered at most."""

    @property
    def lease(self) -> float:
        """Seconds that a message stays with a worker that shows no sign of life."""

    @property
    def timeout(self) -> float:
        """Seconds that beginning to take may take."""


class DatabaseTransport(Transport):
    """Pushes and events over an SQLite file."""

    scheme: ClassVar[str] = "database"
    can: ClassVar[frozenset[str]] = frozenset({"push", "subscribe", "serve", "queue", "ledger"})
    is_shared: ClassVar[bool] = True

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        #: What callers' threads write and read with, by path.
        self._channels: dict[str, Channel] = {}
        self._desks: dict[str, Desk] = {}
        _TRANSPORTS.add(self)

    def __repr__(self) -> str:
        return f"<DatabaseTransport files={len(self._channels)} desks={len(self._desks)}>"

    def call(
        self, address: Address, request: Request, *, marks: dict[str, float] | None = None
    ) -> NoReturn:
        """Raises Unimplemented: nobody answers here."""
        raise Unimplemented(
            f"a database queue carries pushes and events: call {request.service}.{request.method}"
            " over another transport, or push it",
            reason="unknown_method",
        )

    def submit(self, address: Address, request: Request) -> Future[Response]:
        """Raises Unimplemented as `call` does."""
        self.call(address, request)

    def home(self) -> Address:
        """The database of the settings."""
        url = self._settings.queue_database
        if not url.startswith("sqlite:"):
            raise InvalidArgument(
                f"database_url: {url.partition(':')[0]!r} is no database for queues: sqlite:PATH",
                reason="bad_setting",
            )
        return Address(_PREFIX + os.path.abspath(url.removeprefix("sqlite:")))

    def send(self, address: Address, request: Request) -> Response:
        """Push: return once it is on the disk."""
        body, channel = self._packed(request), self._channel(address)
        queue = str(QueueName(request.service))
        with channel.writing(deadline_of(request), is_durable=True) as db:
            rows.accept(db, queue, body, time.time(), _expiry(request))
        return Response(id=request.id, executed="maybe")

    def publish(self, address: Address, request: Request) -> Response:
        body, channel = self._packed(request), self._channel(address)
        with channel.writing(deadline_of(request), is_durable=True) as db:
            groups = rows.tell(db, request.topic, body, time.time(), _expiry(request))
        return Response(id=request.id, executed="maybe", details={"groups": groups})

    def subscribe(self, address: Address, subscription: Subscription, handler: Handler) -> Listener:
        from fan.transports.database_listener import SubscriptionListener

        desk = self._desk(address)
        return SubscriptionListener(desk, address, subscription, handler, self._settings.timeout)

    def serve(self, bind: str, handler: Handler) -> Listener:
        from fan.transports.database_listener import ServiceListener

        address = Address(_PREFIX + os.path.abspath(os.path.expanduser(bind))) if bind else (
            self.home()
        )  # fmt: skip
        desk = self._desk(address)
        return ServiceListener(desk, address, handler, self._settings.timeout)

    def queues(self, address: Address) -> Queues:
        from fan.transports.database_care import DatabaseQueues

        return DatabaseQueues(self._channel(address))

    def ledger(self) -> Ledger:
        from fan.transports.database_care import DatabaseLedger

        return DatabaseLedger(self._channel(self.home()))

    def close(self) -> None:
        with self._lock:
            desks, self._desks = list(self._desks.values()), {}
            channels, self._channels = list(self._channels.values()), {}
        for desk in desks:
            desk.close()
        for channel in channels:
            channel.close()

    def _packed(self, request: Request) -> bytes:
        if len(request.body) > self._settings.max_body:
            raise ResourceExhausted(
                f"{request.topic or f'{request.service}.{request.method}'}: {len(request.body)}"
                f" bytes are more than the {self._settings.max_body} that are accepted (max_body)",
                reason="payload_too_large",
                executed="no",
            )
        return pack(request)

    def _channel(self, address: Address) -> Channel:
        path = path_of(address)
        with self._lock:
            found = self._channels.get(path)
            if found is None:
                found = Channel(path, QUEUE_DATABASE, makes_folder=self._makes_folder(address))
                self._channels[path] = found
            return found

    def _desk(self, address: Address) -> Desk:
        from fan.transports.database_desk import Desk

        path = path_of(address)
        with self._lock:
            found = self._desks.get(path)
            if found is None:
                found = self._desks[path] = Desk(
                    path,
                    workers=self._settings.workers,
                    deliveries=self._settings.deliveries,
                    lease=self._settings.lease,
                    makes_folder=self._makes_folder(address),
                )
            return found

    def _makes_folder(self, address: Address) -> bool:
        """Only the default's folder is ours to make: elsewhere a missing one is a mistake."""
        return not self._settings.database_url and address == self.home()

    def abandon(self) -> None:
        """Leave the messages in hand, and the session, to the parent."""
        self._lock = threading.Lock()
        for desk in self._desks.values():
            desk.after_fork_in_child()
        self._desks = {}


def path_of(address: Address) -> str:
    """`/data/queues.db` of `database:/data/queues.db`. Raises InvalidArgument for another kind of
    address."""
    path = address.url.removeprefix(_PREFIX).removeprefix("//")
    if not address.url.startswith(_PREFIX) or not path or path.endswith("/"):
        raise InvalidArgument(
            f"{address.url!r} is no address of a queue database; write database:/path/to/queues.db",
            reason="bad_address",
        )
    return os.path.abspath(os.path.expanduser(path))


def _expiry(request: Request) -> float | None:
    """The point of `time.time()` after which it is not worth delivering."""
    return None if request.ttl_ms is None else time.time() + request.ttl_ms / 1000


def _forked() -> None:
    for transport in tuple(_TRANSPORTS):
        transport.abandon()


forks.in_child("transports", _forked)
