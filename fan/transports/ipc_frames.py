"""Frames of the ipc transport, and one end of a connection that reads and writes them.

Each side begins with a hello of eight bytes: ``fanipc``, u8 version (1), u8 mode (0 from a server;
from a client 1 for a connection with one call at a time, 2 for a shared one). Then come frames::

    u32 length of the payload | u8 type | u32 stream | payload          (big endian)

| type | name | way | payload |
|---|---|---|---|
| 1 | REQUEST | to the server | MessagePack map of a `Request`; the stream id is new and rises |
| 2 | RESPONSE | to the client | map of a `Response`: an answer, a push accepted, or a refusal |
| 3 | CHUNK | to the client | map of a `Response` of kind "chunk" |
| 4 | END | to the client | map of a `Response` of kind "end" |
| 5 | CANCEL | to the server | empty: the caller gave up |
| 6 | CREDIT | to the server | u32: so many chunks more may be sent (`WINDOW` at the start) |
| 7 | GOAWAY | to the client | empty; the stream id is the last accepted: a later one never runs |

The payload is the envelope with the body under its key ``body``. A frame of more than `HUGE` bytes,
of another type or before a hello is garbage: the connection is closed. One above the limit of a
side is read past and answered, so that the connection survives.
"""

from __future__ import annotations

import _socket  # `socket` costs a one-shot call 3 ms more than this, for enums nobody reads here
import contextlib
import select
import struct
import time

from fan.transports.ipc_spin import LOOK, Receiver

MAGIC = b"fanipc"
VERSION = 1
SERVER, EXCLUSIVE, SHARED = 0, 1, 2
HELLO = 8

REQUEST, RESPONSE, CHUNK, END, CANCEL, CREDIT, GOAWAY = range(1, 8)
LAST_TYPE = GOAWAY

HEADER = struct.Struct(">IBI")
_COUNT = struct.Struct(">I")
SIZE = HEADER.size
#: No honest frame is longer. Text that is taken for a length ("GET ") always is.
HUGE = 1 << 30
#: Chunks that may be under way before the reader has asked for more.
WINDOW = 16
#: Room of the envelope besides the body, in bytes.
ENVELOPE = 256 * 1024
#: Seconds that a peer without a deadline of its own may take for the rest of a frame.
PATIENCE = 30.0
#: Bytes that one receive takes at most, and the size of a connection's buffer.
BUFFER = 32 * 1024

# A receive blocks this long before it falls back to poll, which alone keeps exact time under
# signals. A quick answer so costs one system call. Struct timeval, 10 ms.
_FIRST_WAIT = struct.pack("@ll", 0, 10_000)
_DONTWAIT = _socket.MSG_DONTWAIT
_SEND = _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL
_TO_READ = select.POLLIN
_TO_WRITE = select.POLLOUT

Bytes = bytes | memoryview


class Gone(Exception):
    """The peer closed the connection."""


class Late(Exception):
    """The deadline passed first."""


class Garbage(Exception):
    """What came is not of this protocol."""


class TooLong(Exception):
    """A frame above the limit came, and was read past."""

    def __init__(self, kind: int, stream: int, length: int) -> None:
        super().__init__(length)
        self.kind = kind
        self.stream = stream
        self.length = length


def hello(mode: int) -> bytes:
    """What a side says first."""
    return MAGIC + bytes((VERSION, mode))


def check_hello(data: Bytes) -> int:
    """The mode that a peer's hello asks for. Raises Garbage for a foreign peer or version."""
    if bytes(data[:6]) != MAGIC:
        raise Garbage(f"the peer does not speak fan's ipc: it said {bytes(data[:HELLO])!r}")
    if data[6] != VERSION:
        raise Garbage(f"the peer speaks version {data[6]} of fan's ipc, this side {VERSION}")
    return data[7]


def frame(kind: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return HEADER.pack(len(payload), kind, stream) + payload


def credit(stream: int, count: int) -> bytes:
    """A CREDIT frame."""
    return HEADER.pack(4, CREDIT, stream) + _COUNT.pack(count)


def credited(payload: Bytes) -> int:
    """The count in a CREDIT frame. Raises Garbage."""
    if len(payload) != 4:
        raise Garbage("a CREDIT frame of the wrong size")
    return int(_COUNT.unpack(payload)[0])


def check_header(length: int, kind: int) -> None:
    """Raises Garbage for a header that no peer of this protocol sends."""
    if length > HUGE or not 0 < kind <= LAST_TYPE:
        raise Garbage(f"not a frame: type {kind}, {length} bytes")


class Wire:
    """One end of a connection, for one reader at a time; writers need a lock among themselves.

    `limit` is the longest payload that is accepted, in bytes. Deadlines are points of
    `time.monotonic()`, None for none. A reader blocks; see `_FIRST_WAIT`.
    """

    __slots__ = ("_buffer", "_end", "_start", "_view", "limit", "sock", "spin")

    def __init__(self, sock: _socket.socket, limit: int) -> None:
        self.sock = sock
        self.limit = limit
        #: The busy wait that a read begins with, where one call comes at a time.
        self.spin: Receiver | None = None
        self._buffer = bytearray(BUFFER)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0

    def wait_briefly(self) -> None:
        """Let receives with a deadline begin with a short block instead of a poll."""
        self.sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, _FIRST_WAIT)

    def write(self, data: Bytes, deadline: float | None) -> None:
        """Send all of `data`. Raises Gone or Late: the peer has then no whole frame of it. Without
        a deadline the peer has `PATIENCE` seconds to make room."""
        try:
            sent = self.sock.send(data, _SEND)
        except BlockingIOError:
            sent = 0
        except OSError as exc:
            raise Gone(str(exc)) from exc
        if sent != len(data):
            rest = memoryview(data)[sent:]
            self._write_rest(rest, time.monotonic() + PATIENCE if deadline is None else deadline)

    def write_some(self, data: Bytes) -> int:
        """Send what fits without waiting; how much that was. Raises Gone."""
        try:
            return self.sock.send(data, _SEND)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise Gone(str(exc)) from exc

    def read(self, deadline: float | None) -> tuple[int, int, Bytes]:
        """The next frame: type, stream, payload. The payload is good until the next read.

        Without a deadline a frame may take `PATIENCE` seconds once its first bytes are there.
        Raises Gone (also in the middle of a frame), Late, Garbage, TooLong.
        """
        start, end = self._start, self._end
        if start == end:
            start, end = 0, self._receive(self._view, deadline)
            self._start, self._end = 0, end
        if end - start < SIZE:
            start, end = self._fill(SIZE, deadline)
        length, kind, stream = HEADER.unpack_from(self._buffer, start)
        start += SIZE
        if length <= end - start and 0 < kind <= LAST_TYPE and length <= self.limit:
            self._start = start + length
            return kind, stream, self._view[start : start + length]
        self._start = start
        check_header(length, kind)
        if deadline is None:
            deadline = time.monotonic() + PATIENCE
        if length > self.limit:
            self._skip(length, deadline)
            raise TooLong(kind, stream, length)
        return kind, stream, self._long(length, deadline)

    def look(self, seconds: float) -> bool:
        """Look so long for the next frame without going to sleep; whether it has begun to come."""
        if self._start != self._end:
            return True
        spin, count = self.spin, -1
        if spin is None:
            return False
        if seconds < LOOK or spin.is_due():
            with contextlib.suppress(OSError):  # as who reads next finds
                count = spin.receive(self.sock, self._view, seconds)
        if count <= 0:
            spin.sit_out()  # the read to come is of the same time
            return False
        self._start, self._end = 0, count
        return True

    def read_hello(self, deadline: float | None) -> int:
        """The mode of the peer's hello. Raises Gone, Late, Garbage."""
        start, _ = self._fill(HELLO, deadline)
        self._start = start + HELLO
        return check_hello(self._view[start : start + HELLO])

    def pending(self) -> bool:
        """Whether something was received that nobody read yet."""
        return self._start != self._end

    def has_frame(self) -> bool:
        """Whether a whole frame was received that nobody read yet."""
        have = self._end - self._start
        if have < SIZE:
            return False
        return have >= SIZE + int(HEADER.unpack_from(self._buffer, self._start)[0])

    def peeked(self) -> int:
        """The type of the frame that waits to be read, 0 for none or half a one. Never blocks."""
        data: Bytes = self._view[self._start : self._end]
        if not data:
            try:
                data = self.sock.recv(SIZE, _socket.MSG_PEEK | _DONTWAIT)
            except OSError:
                return 0
        return data[4] if len(data) > 4 else 0

    def close(self, *, is_ours: bool = True) -> None:
        """Close. A forked child that is not the owner leaves its parent's connection alone."""
        if is_ours:
            # A copy that some child inherited must not keep the peer waiting.
            with contextlib.suppress(OSError):
                self.sock.shutdown(_socket.SHUT_RDWR)
        self.sock.close()

    def _receive(self, into: memoryview, deadline: float | None) -> int:
        try:
            spin, count = self.spin, -1
            if spin is not None and spin.is_due():
                count = spin.receive(self.sock, into)
            if count < 0:
                count = self.sock.recv_into(into)
        except BlockingIOError:
            count = self._receive_late(into, deadline)
        except OSError as exc:
            raise Gone(str(exc)) from exc
        if not count:
            raise Gone("the peer closed the connection")
        return count

    def _receive_late(self, into: memoryview, deadline: float | None) -> int:
        while True:
            self._poll(_TO_READ, deadline)
            try:
                return self.sock.recv_into(into, 0, _DONTWAIT)
            except BlockingIOError:
                continue
            except OSError as exc:
                raise Gone(str(exc)) from exc

    def _receive_by(self, into: memoryview, deadline: float) -> int:
        """Receive where time counts from the first byte on: every piece is polled for."""
        count = self._receive_late(into, deadline)
        if not count:
            raise Gone("the peer closed the connection in the middle of a frame")
        return count

    def _poll(self, event: int, deadline: float | None) -> None:
        poll = select.poll()
        poll.register(self.sock.fileno(), event)
        if deadline is None:
            poll.poll()
            return
        left = deadline - time.monotonic()
        # poll rounds up to whole milliseconds
        if left <= 0 or not poll.poll(left * 1000):
            raise Late

    def _fill(self, size: int, deadline: float | None) -> tuple[int, int]:
        """Have `size` bytes in the buffer, which is far longer."""
        start, end = self._start, self._end
        if BUFFER - start < size:
            self._buffer[: end - start] = self._buffer[start:end]
            start, end = 0, end - start
        if deadline is None:
            deadline = time.monotonic() + PATIENCE
        while end - start < size:
            self._start, self._end = start, end
            end += self._receive_by(self._view[end:], deadline)
        self._start, self._end = start, end
        return start, end

    def _long(self, length: int, deadline: float) -> Bytes:
        """A payload of which a part is in the buffer, or none."""
        have = self._end - self._start
        if length <= BUFFER - SIZE:
            start, _ = self._fill(length, deadline)
            self._start = start + length
            return self._view[start : start + length]
        view = memoryview(bytearray(length))
        view[:have] = self._view[self._start : self._end]
        self._start = self._end = 0
        while have < length:
            have += self._receive_by(view[have:], deadline)
        return view

    def _skip(self, length: int, deadline: float) -> None:
        length -= self._end - self._start
        if length < 0:
            self._start = self._end + length
            return
        self._start = self._end = 0
        while length:
            length -= self._receive_by(self._view[: min(length, BUFFER)], deadline)

    def _write_rest(self, rest: memoryview, deadline: float) -> None:
        while rest:
            self._poll(_TO_WRITE, deadline)
            rest = rest[self.write_some(rest) :]
