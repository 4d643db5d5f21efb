"""One connection to a Redis: made by redis-py in a thread of its own, then read by the loop.

redis-py would wait 5 s for a reply by default, try ten times, and so send a command twice; here it
connects once and sends nothing by itself.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from fan.errors import FanError
from fan.transports.redis_failures import failure_of, refused
from fan.transports.redis_loop import Loop
from fan.transports.redis_place import Place, options_of
from fan.transports.redis_resp import Garbage, Parser, Refusal, Reply, pack

#: Seconds for each step of a connection to be made: well inside the default deadline of a call, so
#: that its caller learns what is wrong.
CONNECT = 2.5
#: Bytes of one receive.
_BUFFER = 256 * 1024
#: Bytes of a foreign server's answer that are told.
_SHOWN = 40
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Owner(Protocol):
    """Who uses a line. All of it is called in the loop's thread."""

    def line_opened(self) -> None:
        """It may be written to."""

    def line_got(self, replies: list[Reply]) -> None:
        """Replies, in the order of the commands."""

    def line_failed(self, why: FanError) -> None:
        """It could not be opened."""

    def line_lost(self, why: str) -> None:
        """It was open, and is closed now."""


class Line:
    """A connection that is opened again after it was lost, by whoever wants it."""

    def __init__(self, loop: Loop, place: Place, owner: Owner) -> None:
        self.place = place
        self.is_open = False
        self.is_opening = False
        #: Redis's number of it, for CLIENT UNBLOCK.
        self.number = 0
        #: When something came last.
        self.heard_at = 0.0
        self._loop = loop
        self._owner = owner
        self._writing = threading.Lock()
        self._out: list[bytes] = []
        self._is_full = False
        self._connection: Any = None
        self._sock: socket.socket | None = None
        self._parser = Parser()
        self._is_closed = False
        self._connector: threading.Thread | None = None

    def __repr__(self) -> str:
        state = "open" if self.is_open else "opening" if self.is_opening else "closed"
        return f"<Line {self.place.url} {state}>"

    def open(self) -> None:
        """Begin to connect, unless it is open or on its way. In the loop's thread."""
        if self.is_open or self.is_opening or self._is_closed:
            return
        self.is_opening = True
        thread = threading.Thread(target=self._connect, name="fan-redis-connect", daemon=True)
        self._connector = thread
        thread.start()

    def write(self, data: bytes) -> None:
        """Send, as far as the socket takes it at once, and the rest when it can. With TLS only the
        loop's thread sends: a session is not for two threads."""
        with self._writing:
            self._out.append(data)
            if not self._is_full and (self._loop.is_here or not self.place.is_tls):
                self._flush()
                return
        self._loop.soon(self._resume)

    def drop(self, why: str) -> None:
        """Close it as if it was lost. In the loop's thread."""
        if self.is_open:
            self._let_go()
            self._owner.line_lost(why)

    def close(self) -> None:
        """Close it for good. In the loop's thread, or when that is over."""
        self._is_closed = True
        self._let_go()

    def abandon(self) -> None:
        """In a forked child: let go of the descriptor, and leave the connection to the parent."""
        self._is_closed = True
        if self._connection is not None:
            self._connection.disconnect()  # which shuts nothing down that another process opened

    def wait_closed(self, timeout: float) -> None:
        """Wait for a thread that was connecting when it was closed."""
        thread = self._connector
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    # In the thread that connects

    def _connect(self) -> None:
        connection: Any = None
        try:
            connection = _make(self.place)
            connection.connect()
            number = _greet(connection, self.place)
        except FanError as exc:
            why = exc
        except Exception as exc:  # redis-py's own, and whatever a resolver or TLS raises
            why = refused(self.place.url, _reason_of(exc, self.place))
        else:
            self._loop.soon(lambda: self._ready(connection, number))
            return
        if connection is not None:
            connection.disconnect()
        self._loop.soon(lambda: self._fail(why))

    # In the loop's thread

    def _fail(self, why: FanError) -> None:
        self.is_opening = False
        if not self._is_closed:
            self._owner.line_failed(why)

    def _ready(self, connection: Any, number: int) -> None:
        self.is_opening = False
        if self._is_closed:
            connection.disconnect()
            return
        sock = connection._sock
        sock.setblocking(False)
        self.number, self.heard_at = number, time.monotonic()
        self._connection, self._sock, self._parser = connection, sock, Parser()
        with self._writing:
            self._out.clear()
            self._is_full = False
            self.is_open = True
        self._loop.watch(sock.fileno(), self._attend)
        self._owner.line_opened()

    def _attend(self, events: int) -> None:
        if self._is_full:
            self._resume()
        sock = self._sock
        try:
            while sock is not None and sock is self._sock:
                data = sock.recv(_BUFFER)
                if not data:
                    self.drop("closed by the server")
                    return
                self.heard_at = time.monotonic()
                replies = self._parser.feed(data)
                if replies:
                    self._owner.line_got(replies)
                if len(data) < _BUFFER and not self.place.is_tls:
                    return
        except _WOULD_BLOCK:
            return
        except Garbage as exc:
            self.drop(f"it answered what is no reply: {exc}")
        except OSError as exc:
            self.drop(str(exc))

    def _resume(self) -> None:
        with self._writing:
            was_full, self._is_full = self._is_full, False
            self._flush()
            if was_full and not self._is_full and self._sock is not None:
                self._loop.want(self._sock.fileno(), write=False)

    def _flush(self) -> None:
        """Send what there is. `_writing` is held."""
        sock = self._sock
        if sock is None or not self.is_open or not self._out:
            return
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        try:
            sent = sock.send(data)
        except _WOULD_BLOCK:
            sent = 0
        except OSError:
            return  # the loop reads it, and sees why
        if sent < len(data):
            self._out.append(data[sent:])
            self._is_full = True
            self._loop.want(sock.fileno(), write=True)

    def _let_go(self) -> None:
        with self._writing:  # nobody writes to a descriptor that may soon be another's
            self.is_open = False
            self._out.clear()
            sock, self._sock = self._sock, None
            connection, self._connection = self._connection, None
            if sock is not None:
                self._loop.forget(sock.fileno())
                connection.disconnect()


def _make(place: Place) -> Any:
    """redis-py's connection, not yet open."""
    # The package before its parts: threads that begin with a part each may lock each other out.
    from redis import Connection, SSLConnection
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    make: Callable[..., Any] = SSLConnection if place.is_tls else Connection
    return make(
        host=place.host,
        port=place.port,
        socket_timeout=CONNECT,
        socket_connect_timeout=CONNECT,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        protocol=2,
        redis_connect_func=lambda connection: None,  # `_greet` says what there is to say
        **options_of(place),
    )


def _greet(connection: Any, place: Place) -> int:
    """Say who we are and which database is meant, and ask for the number of the connection and
    whether commands are taken. Raises FanError for what Redis does not like about it."""
    who = [text for text in (connection.username, connection.password) if text]
    said = [pack("AUTH", *who)] if who else []
    if place.db:
        said.append(pack("SELECT", place.db))
    said += [pack("CLIENT", "ID"), pack("PING")]
    sock: socket.socket = connection._sock
    until = time.monotonic() + CONNECT
    sock.settimeout(CONNECT)
    sock.sendall(b"".join(said))
    parser = Parser()
    got: list[Reply] = []
    heard = b""
    while len(got) < len(said):
        sock.settimeout(max(0.001, until - time.monotonic()))
        data = sock.recv(_BUFFER)
        heard += data[:_SHOWN]
        if not data:
            raise refused(place.url, _foreign(heard) if heard else _closed(place))
        try:
            got += parser.feed(data)
        except Garbage:
            raise refused(place.url, _foreign(heard)) from None
        for reply in got:
            if isinstance(reply, Refusal) and reply.code != "NOPERM":
                raise failure_of(reply, place.url)
    number = got[-2]
    return number if type(number) is int else 0


def _foreign(heard: bytes) -> str:
    """What is said of a server that answers something else."""
    line = heard.partition(b"\n")[0][:_SHOWN].decode("ascii", "replace").strip()
    return f"it does not speak Redis's protocol, and said {line!r}"


def _closed(place: Place) -> str:
    """What is said of a server that hangs up."""
    return "it closed the connection" + ("" if place.is_tls else ": does it want TLS (rediss://)?")


def _reason_of(exc: BaseException, place: Place) -> str:
    """What is wrong, from an exception of redis-py, which has the cause in its context."""
    cause = exc.__context__ if isinstance(exc.__context__, OSError) else exc
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        said = (cause.reason or str(cause)).lower().replace("_", " ")
        return f"TLS failed ({said}): is it a port without TLS (redis://)?"
    if isinstance(cause, TimeoutError):
        if place.is_tls:
            return "nothing answers TLS there: is it a port without TLS (redis://)?"
        return "nothing answers there"
    if isinstance(cause, ConnectionRefusedError):
        return "nobody listens there"
    if isinstance(cause, ConnectionResetError | BrokenPipeError):
        return _closed(place)
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(exc) or type(exc).__name__
