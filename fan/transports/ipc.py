"""The ipc transport: unix sockets, MessagePack, no server product between.

A sync call does its socket I/O in the caller's thread, over a connection that it has for itself
while the call lasts (`ipc_client`). Tasks of an event loop share one per address, which the loop
reads (`ipc_loop`); `submit` shares one too, and one thread (`ipc_shared`). The serving side is
`ipc_server`; the frames are described in `ipc_frames`. What a one-shot call does not need is
imported by the method that needs it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Iterator
from typing import TYPE_CHECKING, ClassVar, Protocol

from fan.errors import InvalidArgument
from fan.message import Request, Response
from fan.model import Address
from fan.transports.base import Handler, Listener, Transport
from fan.transports.ipc_client import Pool, chunks

if TYPE_CHECKING:
    from concurrent.futures import Future

    from fan.transports.ipc_loop import Loops
    from fan.transports.ipc_shared import Shared

_PREFIX = "unix://"


class IpcSettings(Protocol):
    """What the transport reads of the settings."""

    @property
    def max_body(self) -> int:
        """Bytes of arguments or result that are accepted."""

    @property
    def runtime_dir(self) -> str | os.PathLike[str]:
        """The folder of sockets that were given no path."""


class IpcTransport(Transport):
    """Calls over unix sockets on one machine; addresses are `unix:///path/to.sock`."""

    scheme: ClassVar[str] = "ipc"
    can: ClassVar[frozenset[str]] = frozenset({"call", "push", "stream", "cancel", "serve"})
    submits: ClassVar[frozenset[str]] = frozenset({"call", "push"})

    def __init__(self, settings: IpcSettings) -> None:
        self._settings = settings
        self._max_body = settings.max_body
        self._pool = Pool(self._max_body)
        self._shared: Shared | None = None
        self._loops: Loops | None = None
        self._lock = threading.Lock()

    def call(
        self, address: Address, request: Request, *, marks: dict[str, float] | None = None
    ) -> Response:
        pool = self._pool
        if pool.pid != os.getpid():
            pool = self._after_fork()
        url = address.url
        if not url.startswith(_PREFIX):
            raise _unknown_address(address)
        return pool.call(url[7:], request, marks)

    def send(self, address: Address, request: Request) -> Response:
        """Push: the server's handler answers once it has accepted it."""
        return self.call(address, request)

    def submit(self, address: Address, request: Request) -> Future[Response]:
        shared = self._shared
        if shared is None or shared.pid != os.getpid():
            shared = self._open_shared()
        return shared.submit(path_of(address), request)

    def acall(self, address: Address, request: Request) -> Awaitable[Response]:
        loops = self._loops
        if loops is None or loops.pid != os.getpid():
            loops = self._open_loops()
        return loops.here().call(path_of(address), request)

    def stream(self, address: Address, request: Request) -> Iterator[Response]:
        pool = self._pool
        if pool.pid != os.getpid():
            pool = self._after_fork()
        return chunks(pool, path_of(address), request)

    def serve(self, bind: str, handler: Handler) -> Listener:
        from fan.transports.ipc_server import listen

        return listen(bind, handler, os.fspath(self._settings.runtime_dir), self._max_body)

    def close(self) -> None:
        self._pool.close()
        shared = self._shared
        if shared is not None:
            shared.close()
        if self._loops is not None:
            self._loops.close()

    def abandon(self) -> None:
        self.close()  # which tells from the process id that nothing is ours

    def __repr__(self) -> str:
        state = "closed" if self._pool.is_closed else f"{self._pool.count()} idle connections"
        return f"<IpcTransport {state}>"

    def _after_fork(self) -> Pool:
        """A forked child must not speak over its parent's connections."""
        inherited, shared, loops = self._pool, self._shared, self._loops
        self._pool, self._shared, self._loops = Pool(self._max_body), None, None
        self._lock = threading.Lock()  # somebody may have held it at the fork
        inherited.close()
        if shared is not None:
            shared.close()
        if loops is not None:
            loops.close()
        return self._pool

    def _open_shared(self) -> Shared:
        from fan.transports.ipc_shared import Shared

        if self._pool.pid != os.getpid():
            self._after_fork()
        with self._lock:
            if self._shared is None:
                self._shared = Shared(self._max_body, is_closed=self._pool.is_closed)
            return self._shared

    def _open_loops(self) -> Loops:
        from fan.transports.ipc_loop import Loops

        if self._pool.pid != os.getpid():
            self._after_fork()
        with self._lock:
            if self._loops is None:
                self._loops = Loops(self._max_body, is_closed=self._pool.is_closed)
            return self._loops


def path_of(address: Address) -> str:
    """`/run/x.sock` of `unix:///run/x.sock`. Raises InvalidArgument for another kind of address."""
    if not address.url.startswith(_PREFIX):
        raise _unknown_address(address)
    return address.url[len(_PREFIX) :]


def _unknown_address(address: Address) -> InvalidArgument:
    return InvalidArgument(
        f"{address.url!r} is no address of the ipc transport; write unix:///path/to.sock",
        reason="bad_address",
    )
