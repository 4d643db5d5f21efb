"""The ipc transport's connections with one call at a time, on which a caller's own thread does the
socket I/O."""

from __future__ import annotations

import _socket
import contextlib
import os
import select
import threading
import time
from collections.abc import Iterator

import msgspec

from fan import codec
from fan.errors import FanError, InvalidArgument, Unavailable
from fan.message import Request, Response
from fan.transports import ipc_frames as frames
from fan.transports.idle import take_stale
from fan.transports.ipc_failures import draining, fail, garbled, late, refused, too_large
from fan.transports.ipc_frames import (
    CHUNK,
    END,
    EXCLUSIVE,
    GOAWAY,
    HEADER,
    REQUEST,
    RESPONSE,
    Bytes,
    Garbage,
    Gone,
    Wire,
)
from fan.transports.ipc_spin import LOOK, Receiver
from fan.transports.ipc_turns import QUICK, Turns

#: Idle connections kept for one address; more than that are closed after use.
MAX_IDLE = 64
#: Addresses whose turns are kept: servers come and go.
MOST_TURNS = 1000
#: Bytes of arguments above which a call takes no turn: it is none of the short ones.
SHORT = 64 * 1024
# How long to wait for room in a listener's queue, which nothing announces.
_RETRY = 0.002


def encode(request: Request, stream: int, max_body: int) -> bytes:
    """The REQUEST frame. Raises ResourceExhausted (payload_too_large) and InvalidArgument for what
    has no wire form."""
    if len(request.body) > max_body:
        raise too_large("the request", len(request.body), max_body, "no")
    try:
        payload = codec.pack(request)
    except (TypeError, ValueError, OverflowError) as exc:  # a header with a lone surrogate, say
        raise InvalidArgument(f"the request cannot be sent: {exc}", reason="malformed") from exc
    return HEADER.pack(len(payload), REQUEST, stream) + payload


class Exclusive:
    """A connection that carries one call at a time."""

    __slots__ = ("_stream", "_was_told_to_go", "path", "wire")

    def __init__(self, path: str, wire: Wire) -> None:
        self.path = path
        self.wire = wire
        self._stream = 0
        self._was_told_to_go = False

    def send(self, request: Request, max_body: int, deadline: float) -> None:
        """Send a request. Raises Gone or Late, and then it was not received."""
        self._stream = stream = self._stream + 1 & 0xFFFFFFFF
        self.wire.write(encode(request, stream, max_body), deadline)

    def receive(self, deadline: float) -> tuple[int, Bytes]:
        """The next frame of the request that was sent last. Raises Gone, Late, Garbage, TooLong and
        `Refused` when the server says that it will never look at the request."""
        while True:
            kind, stream, payload = self.wire.read(deadline)
            if kind == GOAWAY:
                self._was_told_to_go = True
                if stream < self._stream:
                    raise Refused
            elif stream != self._stream or kind not in _ANSWERS:
                raise Garbage(f"a frame of type {kind} for stream {stream}")
            else:
                return kind, payload

    def grant(self, count: int, deadline: float) -> None:
        """Let the server send `count` chunks more. Raises Gone or Late."""
        self.wire.write(frames.credit(self._stream, count), deadline)

    @property
    def is_reusable(self) -> bool:
        """Whether another call may go over it."""
        return not self._was_told_to_go and not self.wire.pending()

    def is_stale(self) -> bool:
        """Whether an idle connection was closed by its peer, or told to go."""
        poll = select.poll()
        poll.register(self.wire.sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))


_ANSWERS = frozenset({RESPONSE, CHUNK, END})


class Refused(Exception):
    """GOAWAY with a stream id below the request's: it never runs there."""


class Pool:
    """Idle connections by path, the one used last on top. Of one process and thread-safe."""

    def __init__(self, max_body: int) -> None:
        self.max_body = max_body
        self._idle: dict[str, list[Exclusive]] = {}
        self._turns: dict[str, Turns] = {}
        #: Held by whoever adds to a list or takes one away; `open` takes out of them without.
        self._lock = threading.Lock()
        self.pid = os.getpid()
        self.is_closed = False

    def call(self, path: str, request: Request, marks: dict[str, float] | None) -> Response:
        """One request and its one answer; `Transport.call` and `.send`."""
        deadline = time.monotonic() + request.timeout_ms / 1000
        turns = self._take_turn(path, request)
        try:
            connection = self.open(path, request, deadline, marks)
        except BaseException:
            if turns is not None:
                turns.end(was_quick=False)
            raise
        try:
            return self._answer(connection, request, deadline, turns)
        except Refused:
            pass  # it counts as not sent: one more try, with a connection of its own
        connection = self._open_new(path, request, deadline, marks)
        try:
            return self._answer(connection, request, deadline)
        except Refused as exc:
            raise draining(path) from exc

    def open(
        self, path: str, request: Request, deadline: float, marks: dict[str, float] | None = None
    ) -> Exclusive:
        """A connection over which `request` was sent. Raises FanErrors, none of them after it was
        received."""
        idle = self._idle.get(path)
        while idle:
            try:
                connection = idle.pop()
            except IndexError:  # another thread was quicker
                break
            if marks is not None:
                marks["connected"] = time.monotonic()
            try:
                connection.send(request, self.max_body, deadline)
            except Gone:
                connection.wire.close()
                continue
            except BaseException as exc:
                self._give_up(connection, exc)
                fail(exc, path, request.timeout_ms, self.max_body, "no")
            if marks is not None:
                marks["sent"] = time.monotonic()
            return connection
        return self._open_new(path, request, deadline, marks)

    def release(self, connection: Exclusive) -> None:
        """Keep a connection whose call is over for the next one, unless there are enough, or the
        pool is closed."""
        if connection.is_reusable and not self.is_closed:
            with self._lock:  # a list that `sweep` or `close` took away meanwhile would lose it
                idle = self._idle.get(connection.path)
                if idle is None:
                    idle = self._idle[connection.path] = []
                if len(idle) < MAX_IDLE and not self.is_closed:
                    idle.append(connection)
                    return
        connection.wire.close()

    def sweep(self) -> None:
        """Close idle connections whose server is gone; called at a dial, which is rare."""
        with self._lock:
            stale = take_stale(self._idle)
        for connection in stale:
            connection.wire.close()

    def close(self) -> None:
        """Close all that is idle; what is in use closes when it comes back."""
        self.is_closed = True
        is_ours = self.pid == os.getpid()
        # In a forked child, who held the lock at the fork is not there to release it.
        with self._lock if is_ours else contextlib.nullcontext():
            lists, self._idle = list(self._idle.values()), {}
        for idle in lists:
            while idle:
                try:
                    idle.pop().wire.close(is_ours=is_ours)
                except IndexError:  # another thread was quicker
                    break

    def count(self) -> int:
        """Idle connections."""
        return sum(len(idle) for idle in list(self._idle.values()))

    def _take_turn(self, path: str, request: Request) -> Turns | None:
        """The turns of a path where this call has the turn, None where it goes without."""
        turns = self._turns.get(path) or self._new_turns(path)
        is_short = len(request.body) <= SHORT
        return turns if is_short and turns.take(request.timeout_ms / 1000) else None

    def _new_turns(self, path: str) -> Turns:
        if len(self._turns) >= MOST_TURNS:  # who has one now keeps it
            self._turns.clear()
        return self._turns.setdefault(path, Turns())

    def _answer(
        self, connection: Exclusive, request: Request, deadline: float, turns: Turns | None = None
    ) -> Response:
        """The answer to a request that was sent; the call's turn ends with it, if not before."""
        try:
            if turns is not None and not connection.wire.look(QUICK if turns.is_wanted else LOOK):
                mine, turns = turns, None  # first: a turn that ends twice is somebody else's
                mine.end(was_quick=False)
            kind, payload = connection.receive(deadline)
            if kind != RESPONSE:
                raise Garbage(f"a frame of type {kind} for a call")
            response = codec.unpack_response(payload)
        except BaseException as exc:
            connection.wire.close()
            fail(exc, connection.path, request.timeout_ms, self.max_body)
        else:  # from here on it may be another thread's, and is not ours to close
            self.release(connection)  # before the turn ends: the next call is to go over it, too
            return response
        finally:
            if turns is not None:
                turns.end(was_quick=True)

    def _open_new(
        self, path: str, request: Request, deadline: float, marks: dict[str, float] | None
    ) -> Exclusive:
        if self.is_closed:
            raise Unavailable("this transport is closed", reason="connect_failed")
        if self._idle:
            self.sweep()
        connection = dial(path, deadline, request.timeout_ms, self.max_body)
        if marks is not None:
            marks["connected"] = time.monotonic()
        try:
            connection.send(request, self.max_body, deadline)
        except BaseException as exc:
            self._give_up(connection, exc)
            fail(exc, path, request.timeout_ms, self.max_body, "no")
        if marks is not None:
            marks["sent"] = time.monotonic()
        return connection

    def _give_up(self, connection: Exclusive, exc: BaseException) -> None:
        # What was refused before its first byte leaves the connection as it was.
        if isinstance(exc, FanError):
            self.release(connection)
        else:
            connection.wire.close()


def dial(path: str, deadline: float, timeout_ms: int, max_body: int) -> Exclusive:
    """A new connection, greeted. Raises Unavailable (connect_failed), DeadlineExceeded (not
    executed) or Internal (malformed_reply) for a peer that speaks something else."""
    sock = connect(path, deadline, timeout_ms)
    wire = Wire(sock, max_body + frames.ENVELOPE)
    try:
        sock.settimeout(None)
        wire.wait_briefly()
        wire.spin = Receiver("answer")
        wire.write(frames.hello(EXCLUSIVE), deadline)
        wire.read_hello(deadline)
    except Gone as exc:
        wire.close()
        raise Unavailable(f"cannot connect to {path}: it hung up", reason="connect_failed") from exc
    except Garbage as exc:
        wire.close()
        raise garbled(path, exc, "no") from exc
    except BaseException as exc:
        wire.close()
        fail(exc, path, timeout_ms, max_body, "no")
    return Exclusive(path, wire)


def connect(path: str, deadline: float, timeout_ms: int) -> _socket.socket:
    """A connected socket that does not block."""
    while True:
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0)
        try:
            if time.monotonic() >= deadline:
                raise late(path, timeout_ms, was_sent=False)
            sock.settimeout(0)
            sock.connect(path)
            return sock
        except BlockingIOError:  # the listener's queue is full
            sock.close()
            time.sleep(_RETRY)
        except (OSError, ValueError) as exc:  # the latter for a path that is none
            sock.close()
            raise refused(path, exc) from exc
        except BaseException:
            sock.close()
            raise


def chunks(pool: Pool, path: str, request: Request) -> Iterator[Response]:
    """The chunks of a streamed answer and its end; `Transport.stream`."""
    patience = request.timeout_ms / 1000
    deadline = time.monotonic() + patience
    connection = pool.open(path, request, deadline)
    is_over = False
    unasked = 0
    try:
        while not is_over:
            kind, payload = connection.receive(deadline)
            response = codec.unpack_response(payload)
            if kind == CHUNK:
                yield response
                deadline = time.monotonic() + patience
                unasked += 1
                if unasked >= frames.WINDOW // 2:
                    connection.grant(unasked, deadline)
                    unasked = 0
                continue
            is_over = True
            pool.release(connection)
            if kind == RESPONSE and response.code == "ok":  # a plain method, asked for as a stream
                yield msgspec.structs.replace(response, kind="chunk")
                response = Response(id=response.id, served=response.served)
            yield msgspec.structs.replace(response, kind="end")
    except Refused as exc:
        raise draining(path) from exc
    except BaseException as exc:
        fail(exc, path, request.timeout_ms, pool.max_body)
    finally:
        if not is_over:
            # The server sees it and closes the generator; not when a forked child drops its copy.
            connection.wire.close(is_ours=pool.pid == os.getpid())
