"""HTTP/1.1 on kept connections, for callers that block.

httpx measures its timeouts per operation, takes 0.2 s to import and 0.5 ms a call; here a call has
one deadline, and httptools (llhttp) reads the replies. `http_proxy` has httpx for what needs it.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import httptools

from fan.errors import NO, YES, DeadlineExceeded, FanError, ResourceExhausted, Unavailable
from fan.transports.http_wire import Origin, malformed

if TYPE_CHECKING:
    import ssl

#: Seconds after which an unused connection is not used again: well below our server's 75.
IDLE_LIMIT: Final = 30.0
#: Unused connections kept for one server.
IDLE_CONNECTIONS: Final = 128
#: Bytes of header that a reply may have.
MAX_HEAD: Final = 64 * 1024
_READ: Final = 256 * 1024
_STREAM_BUFFER: Final = 64 * 1024


class Reply:
    """One HTTP response as it is read: httptools calls the `on_` methods."""

    def __init__(self, max_body: int) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.chunks: list[bytes] = []
        self.size = 0
        self.has_head = False
        self.is_complete = False
        #: What is wrong with it, once something is.
        self.fault: FanError | None = None
        #: Whether more follows than was asked for: the connection cannot be used again.
        self.has_extra = False
        #: Whether the server lets the connection be used again.
        self.keeps_alive = False
        self._has_length = False
        self._head = 0
        self._max_body = max_body
        self.parser: Any = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        """A response starts; one with a status below 200 went before it."""
        if self.is_complete:
            self.has_extra = True
        else:
            self.headers = []
            self._has_length = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or trailer."""
        if self.is_complete:
            return
        self._head += len(name) + len(value)
        if self._head > MAX_HEAD:
            self.fault = malformed(f"its headers have over {MAX_HEAD} bytes")
        elif not self.has_head:
            self._has_length |= name.lower() in (b"content-length", b"transfer-encoding")
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is there."""
        if not self.is_complete:
            self.status = self.parser.get_status_code()
            self.has_head = self.status >= 200

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        if not self.is_complete:
            self.size += len(data)
            if self.size > self._max_body:
                self.fault = ResourceExhausted(
                    f"the reply is larger than {self._max_body} bytes",
                    reason="payload_too_large",
                    executed=YES,
                )
            else:
                self.chunks.append(data)

    def on_message_complete(self) -> None:
        """The response is all there."""
        if self.has_head and not self.is_complete:
            self.is_complete = True
            self.keeps_alive = self.parser.should_keep_alive()

    @property
    def is_reusable(self) -> bool:
        """Whether the connection is at the start of a next response."""
        return self.is_complete and self.keeps_alive and not self.has_extra

    def feed(self, data: bytes) -> None:
        """Take in what was received; b"" is the end of the connection. Raises Internal
        (malformed_reply), ResourceExhausted, Unavailable (connection_lost)."""
        if not data:
            if not self.has_head or self._has_length:
                raise lost()
            self.is_complete = self.has_extra = True  # the end of the connection ends the body
            return
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            if not self.is_complete:
                raise malformed(f"it is not HTTP: {exc}") from None
            self.has_extra = True
        if self.fault is not None:
            raise self.fault

    def take(self) -> bytes:
        """The part of the body that was read since the last time."""
        data = b"".join(self.chunks)
        self.chunks.clear()
        return data


class Link:
    """One connection, used for one exchange at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.idle_since = 0.0
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN)

    def is_stale(self) -> bool:
        """Whether the server closed it, or said something unasked, while nobody used it."""
        return time.monotonic() - self.idle_since > IDLE_LIMIT or bool(self._poll.poll(0))

    def send(self, head: bytes, body: bytes, deadline: float) -> None:
        """Send a request. An OSError other than TimeoutError means that it is not all with the
        server, so that nothing was executed."""
        self._arm(deadline)
        if len(body) <= _READ:
            self.sock.sendall(head + body)
        else:
            self.sock.sendall(head)
            self._arm(deadline)
            self.sock.sendall(body)

    def receive(self, deadline: float) -> bytes:
        """Bytes from the server, b"" once it closed. Raises TimeoutError, Unavailable."""
        self._arm(deadline)
        try:
            return self.sock.recv(_READ)
        except TimeoutError:
            raise
        except OSError as exc:
            raise lost() from exc

    def _arm(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.sock.settimeout(left)

    def narrow(self) -> None:
        """Let little wait in the kernel, so that a reader who stops soon stops the server."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _STREAM_BUFFER)

    def abort(self) -> None:
        """End it from another thread: whoever waits on it wakes."""
        with suppress(OSError):  # it had ended
            # Not by a TLS socket's own `shutdown`: what is sent after that goes unencrypted.
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it. Twice does no harm."""
        self.sock.close()


class Links:
    """The connections of one transport: kept per server, most recently used first.

    A fork begins with none: two processes on one connection would read each other's replies."""

    def __init__(self) -> None:
        self._idle: dict[Origin, list[Link]] = {}
        #: Held by whoever adds to a list or takes one away; `take` takes out of them without.
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._is_closed = False
        self._tls: ssl.SSLContext | None = None

    def __repr__(self) -> str:
        return f"<Links {'closed' if self._is_closed else 'open'}, {self.idle} idle>"

    @property
    def idle(self) -> int:
        """Connections that nobody uses now."""
        return sum(map(len, list(self._idle.values())))

    @property
    def is_closed(self) -> bool:
        """Whether no connection is made or kept any more."""
        return self._is_closed

    def take(self, origin: Origin) -> Link | None:
        """A kept connection to the server that still stands, or None."""
        if self._pid != os.getpid():
            self._forget()
        links = self._idle.get(origin)
        while links:
            try:
                link = links.pop()
            except IndexError:  # another thread was quicker
                return None
            if not link.is_stale():
                return link
            link.close()
        return None

    def give(self, origin: Origin, link: Link) -> None:
        """Keep a connection for the next exchange."""
        link.idle_since = time.monotonic()
        with self._lock:  # a list that `sweep` takes away meanwhile would lose it
            links = self._idle.setdefault(origin, [])
            is_kept = not self._is_closed and len(links) < IDLE_CONNECTIONS
            if is_kept:
                links.append(link)
        if not is_kept:
            link.close()

    def sweep(self) -> None:
        """Close what nobody used for long, and what its server closed; called where a connection
        is made, which is rare: else what leads to a server that is gone would stay for good."""
        from fan.transports.idle import take_stale

        with self._lock:
            stale = take_stale(self._idle)
        self._drop(stale)

    def connect(self, origin: Origin, deadline: float) -> Link:
        """A new connection. Raises Unavailable (connect_failed), DeadlineExceeded (executed no)."""
        if self._is_closed:
            raise Unavailable("the http transport is closed", reason="connect_failed")
        if self._idle:
            self.sweep()
        try:
            sock = _connect(origin.host, origin.port, deadline)
            if origin.scheme == "https":
                sock = self._secure(sock, origin.host, deadline)
        except TimeoutError as exc:
            raise DeadlineExceeded(
                f"no connection to {origin.authority} within the deadline",
                reason="client_timer",
                executed=NO,
            ) from exc
        except (OSError, UnicodeError) as exc:
            why = getattr(exc, "strerror", None) or str(exc)
            raise Unavailable(
                f"{origin.authority} cannot be reached: {why}", reason="connect_failed"
            ) from exc
        return Link(sock)

    def _secure(self, sock: socket.socket, host: str, deadline: float) -> socket.socket:
        try:
            if self._tls is None:
                self._tls = trusting()
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            return self._tls.wrap_socket(sock, server_hostname=host)
        except BaseException:
            sock.close()
            raise

    def _forget(self) -> None:
        """Leave the parent's connections to it: closing our copies tells the server nothing."""
        self._lock = threading.Lock()  # who held it at the fork is not there to release it
        idle, self._idle, self._pid = self._idle, {}, os.getpid()
        for links in idle.values():
            self._drop(links)

    @staticmethod
    def _drop(links: list[Link]) -> None:
        while links:
            try:
                links.pop(0).close()
            except IndexError:
                return

    def close(self) -> None:
        """Close what is kept, and what is given back from now on. Twice does no harm."""
        if self._pid != os.getpid():
            self._forget()
        self._is_closed = True
        with self._lock:
            lists, self._idle = list(self._idle.values()), {}
        for links in lists:
            self._drop(links)


def trusting() -> ssl.SSLContext:
    """Trusts what OpenSSL trusts: SSL_CERT_FILE and SSL_CERT_DIR name other authorities."""
    import ssl  # and its certificates: 30 ms, for those who need them

    return ssl.create_default_context()


def _connect(host: str, port: int, deadline: float) -> socket.socket:
    failure: OSError = OSError(f"{host} has no address")
    for family, place in _places(host, port, deadline):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            sock.settimeout(left)
            sock.connect(place)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except TimeoutError:
            sock.close()
            raise
        except OSError as exc:
            sock.close()
            failure = exc
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure


def _places(host: str, port: int, deadline: float) -> list[tuple[int, tuple[Any, ...]]]:
    """Addresses of a name. The resolver knows no deadline, so it works in a thread."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return [(family, (host, port))]
    found: list[Any] = []

    def resolve() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as exc:
            found.append(exc)

    thread = threading.Thread(target=resolve, name="fan-http-resolve", daemon=True)
    thread.start()
    thread.join(max(0.0, deadline - time.monotonic()))
    if not found:
        raise TimeoutError
    if isinstance(found[0], Exception):
        raise found[0]
    return [(family, place) for family, _, _, _, place in found[0]]


def lost() -> Unavailable:
    """The error for a connection that ended before the answer did."""
    return Unavailable(
        "the connection was lost before the answer was complete", reason="connection_lost"
    )
