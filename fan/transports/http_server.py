"""The http server: uvicorn with httptools, on a loop in a thread of its own.

`http_app` answers the requests; here are the place, the thread, the drain and the stop.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
import time
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, Final, cast

import uvicorn

from fan.errors import AlreadyExists, InvalidArgument, Unavailable
from fan.model import Address
from fan.quiet import quieten
from fan.transports.base import Handler, Listener
from fan.transports.http_app import Application
from fan.transports.http_gate import Gate
from fan.transports.http_protocol import Protocol

if TYPE_CHECKING:
    from fan.settings import Settings

#: Seconds that an unused connection is kept: longer than a client's 30, or they would race.
KEEP_ALIVE: Final = 75
_SEND_BUFFER: Final = 256 * 1024


#: Seconds that a stop leaves to connections whose next request is to be refused, not cut off.
FAREWELL = 0.1


class HttpListener(Listener):
    """A server in a thread beside others. `bind` is `HOST:PORT`, `PORT` or empty."""

    def __init__(
        self,
        bind: str,
        handler: Handler,
        settings: Settings | None = None,
        *,
        protocol: type[Protocol] = Protocol,
    ) -> None:
        self._is_closed = False
        self._sock = _listen(*_place(bind))
        host, port = self._sock.getsockname()[:2]
        gate = Gate(host, port, settings.http_hosts if settings is not None else ())
        self.address = Address(f"http://{gate.authority}")
        self._app = Application(handler, gate, settings)
        self._server = _Server(
            uvicorn.Config(
                self._app,
                http=protocol,
                ws="none",
                lifespan="off",
                loop="asyncio",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE,
            )
        )
        self._thread = threading.Thread(target=self._run, name="fan-http", daemon=True)
        self._thread.start()
        self._server.ready.wait()
        if self._server.failure is not None:
            self.close()
            raise Unavailable(f"the http server did not start: {self._server.failure}")

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "draining" if self._app.is_draining else "open"
        return f"<HttpListener {self.address.url} {state}>"

    def _run(self) -> None:
        # It warns of every scanner that talks garbage; what matters is answered or raised.
        quieten("uvicorn.error")
        try:
            asyncio.run(self._server.serve(sockets=[self._sock]))
        except BaseException as exc:
            self._server.failure = exc
        finally:
            self._server.ready.set()

    @property
    def is_idle(self) -> bool:
        """Whether no request is in flight, or waits for a thread."""
        return not self._app.flying

    def drain(self) -> None:
        """Answer new requests with unavailable/draining; those in flight go on."""
        self._app.is_draining = True

    def close(self, timeout: float = 5.0) -> None:
        """Stop: see `Listener.close`."""
        if self._is_closed:
            return
        self._app.is_draining = self._is_closed = True
        self._server.stop(timeout)
        # uvicorn looks at its connections ten times a second.
        self._thread.join(timeout + 2.0)
        self._app.close()
        self._sock.close()

    def abandon(self) -> None:
        self._is_closed = True
        self._server.abandon()
        self._sock.close()


class _Server(uvicorn.Server):
    """uvicorn, woken to stop instead of asking itself ten times a second whether to."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self.failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        await super().startup(sockets=sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        await self.on_tick(1)
        if self._stop is not None:
            await self._stop.wait()
            await self._farewell()

    async def _farewell(self) -> None:
        """Let the connections that are in use end with their refusal. HTTP/1 cannot take a
        connection back: a request that is under way when it is closed may have run, for all its
        sender knows."""
        await asyncio.sleep(0)  # accept whoever is in the queue: closing it would cut them off
        for server in self.servers:
            server.close()
        until = time.monotonic() + FAREWELL
        # uvicorn tells nobody when a connection goes.
        while self.server_state.connections and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(FAREWELL / 20)

    def stop(self, timeout: float) -> None:
        """End, from another thread: wait at most `timeout` seconds for what is in flight."""
        self.should_exit = True
        # An int by its annotation; asyncio, which gets it, takes seconds of any kind.
        self.config.timeout_graceful_shutdown = cast(int, timeout)
        if self._loop is not None and self._stop is not None:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._stop.set)

    def abandon(self) -> None:
        """In a forked child: let go of the connections. Their transports stay as they are: what
        they watch for events is shared with the parent."""
        for protocol in tuple(self.server_state.connections):
            watched = getattr(protocol, "transport", None)
            shared = watched.get_extra_info("socket") if watched is not None else None
            if shared is not None:
                shared._sock.close()

    def capture_signals(self) -> Any:
        """Leave signals to whoever runs the process."""
        return nullcontext()


def _place(bind: str) -> tuple[str, int]:
    host, colon, port = bind.rpartition(":")
    if not bind:
        host, port = "127.0.0.1", "0"
    elif not colon and not port.isdigit():  # a host alone
        host, port = port, "0"
    is_port = port.isascii() and port.isdigit() and len(port) < 6 and int(port) < 65536
    if not is_port or "/" in host:
        raise InvalidArgument(
            f"{bind!r} is no place for an http server: HOST:PORT, as 127.0.0.1:8080",
            reason="bad_setting",
        )
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, proto, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "not a host name"
        raise InvalidArgument(
            f"{host!r} is no address of this machine: {why}", reason="bad_setting"
        ) from exc
    # asyncio turns Nagle's algorithm off only on sockets that say they are TCP; with it on, the two
    # writes of an answer take 44 ms.
    sock = socket.socket(family, kind, proto or socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Unset, it grows to 4 MB, and a stream runs that far ahead of a reader who has stopped.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        sock.bind(place)
        sock.listen(1024)
    except OSError as exc:
        sock.close()
        where = f"{host}:{port}"
        if exc.errno == errno.EADDRINUSE:
            raise AlreadyExists(
                f"{where} is in use by another server", reason="address_in_use"
            ) from exc
        raise Unavailable(f"{where} cannot be had: {exc.strerror}", reason="bind_failed") from exc
    sock.setblocking(False)
    return sock
