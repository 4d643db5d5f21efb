"""One shared connection of the ipc transport, for many calls at a time.

`ipc_shared` has a thread for such connections, `ipc_loop` does without.
"""

from __future__ import annotations

import _socket
import select
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from fan import codec
from fan.errors import FanError, Unavailable
from fan.transports import ipc_frames as frames
from fan.transports.ipc_client import encode
from fan.transports.ipc_failures import draining, garbled, late, lost, refused, too_large
from fan.transports.ipc_frames import (
    CANCEL,
    GOAWAY,
    HEADER,
    HELLO,
    RESPONSE,
    SIZE,
    Bytes,
    Garbage,
    check_header,
    check_hello,
    frame,
)
from fan.transports.ipc_waiting import Owner, Waiter

#: Bytes of one receive, into a buffer that connections may share.
BUFFER = 256 * 1024
#: Seconds between tries where a listener's queue is full: nothing announces room in it.
RETRY = 0.005
#: The deadline of what has none.
NEVER = float("inf")
#: Seconds of one wait, at most: the kernel takes no more than 24 days.
LONGEST_WAIT = 3600.0
# Bytes of one send.
_BATCH = 256 * 1024
_SEND = _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL


class Channel:
    """One shared connection. `lock` guards the bookkeeping, `writing` is held by whoever sends."""

    def __init__(self, shared: Owner, path: str) -> None:
        self.shared = shared
        self.path = path
        self.lock = threading.Lock()
        self.writing = threading.Lock()
        self.sock: _socket.socket | None = None
        #: Whether the peer's hello came, so that requests may be sent.
        self.is_open = False
        #: Whether no further request may use it: it is lost, or the server said GOAWAY.
        self.is_over = False
        self.pending: dict[int, Waiter] = {}
        self._stream = 0
        self._out: deque[tuple[int, bytes]] = deque()
        #: What did not fit of a batch that the socket took a part of.
        self._rest: memoryview = memoryview(b"")
        self._is_full = False
        #: Bytes of an incomplete frame, and how many it must become.
        self._held = bytearray()
        self._wanted = 0
        #: Bytes left of an answer above the limit.
        self._skipping = 0
        #: Streams whose frames a send that failed held back whole.
        self._unsent: set[int] = set()

    def connect(self) -> bool:
        """Connect and greet, or fail all that waits; False while the listener's queue is full."""
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0)
        try:
            sock.settimeout(0)
            sock.connect(self.path)
            sock.send(frames.hello(frames.SHARED), _SEND)
        except BlockingIOError:
            sock.close()
            return False
        except (OSError, ValueError) as exc:  # the latter for a path that is none
            why = exc
            sock.close()
            self.shared.retire(self)
            self.lose(exc, lambda: refused(self.path, why))
            return True
        self.sock = sock
        return True

    def hang_up(self, *, is_ours: bool = True) -> None:
        """Close the socket, whose owner watches it no more. A forked child that is not the owner
        leaves its parent's connection alone."""
        assert self.sock is not None
        if not is_ours:
            self.sock.close()
            return
        with self.writing:  # nobody sends to a descriptor that may soon be another's
            with suppress(OSError):
                self.sock.shutdown(_socket.SHUT_RDWR)
            self.sock.close()

    def attend(self, events: int, buffer: memoryview) -> None:
        """Do what the socket is ready for. Raises nothing: what fails ends the channel."""
        try:
            if events & select.EPOLLOUT:
                self.resume()
            if events & ~select.EPOLLOUT:
                self.receive(buffer)
        except Garbage as exc:
            executed: Literal["no", "maybe"] = "maybe" if self.is_open else "no"
            why = str(exc)
            self.lose(why, lambda: garbled(self.path, why, executed))
        except (OSError, EOFError) as exc:
            self.lose(exc)

    def add(self, reply: Waiter) -> bool:
        """Queue a request; False when this channel is over."""
        with self.lock:
            if self.is_over:
                return False
            self._stream = stream = self._stream + 1 & 0xFFFFFFFF
            data = encode(reply.request, stream, self.shared.max_body)
            reply.stream = stream
            reply.channel = self
            self.pending[stream] = reply
            self._out.append((stream, data))
        return True

    def drop(self, stream: int) -> None:
        """Forget a request and tell the callee, who may be at it."""
        with self.lock:
            if self.pending.pop(stream, None) is None or self.is_over:
                return
            for item in list(self._out):
                if item[0] == stream:  # not sent yet
                    with suppress(ValueError):
                        self._out.remove(item)
                        return
            self._out.append((0, frame(CANCEL, stream)))
        self.flush()

    def flush(self) -> None:
        """Send what waits, unless somebody is at it, who will then find this too. Never blocks."""
        while (
            self.is_open
            and not self._is_full
            and (self._out or self._rest)
            and self.writing.acquire(blocking=False)
        ):
            try:
                self._send_batch()
            finally:
                self.writing.release()

    def resume(self) -> None:
        """The socket has room again."""
        self.shared.watch(self, select.EPOLLIN)
        self._is_full = False  # only now: until then nobody else sends, and asks to be woken
        self.flush()

    def receive(self, view: memoryview) -> None:
        """Take what came. Raises OSError, EOFError, Garbage."""
        assert self.sock is not None
        try:
            count = self.sock.recv_into(view, 0, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        if not count:
            raise EOFError("the server closed it")
        data = view[:count]
        if self._skipping:
            done = min(self._skipping, count)
            self._skipping -= done
            data = data[done:]
        if self._held:
            self._held += data
            if len(self._held) < self._wanted:
                return
            data, self._held = memoryview(self._held), bytearray()
        data = self._parse(data)
        if data:
            self._held = bytearray(data)
            self._wanted = self._need()

    def lose(self, why: object, error: Callable[[], FanError] | None = None) -> None:
        """The connection is gone: nothing that waits on it is answered any more, but fails with
        `error`, or moves on where it was not sent."""
        with self.lock:
            self.is_over = True
            pending, self.pending = self.pending, {}
            unsent = self._unsent | {stream for stream, _ in list(self._out)}
            self._out.clear()
        if self.sock is not None:
            self.shared.forget(self)
        for stream, reply in pending.items():
            if error is not None:
                reply.fail(error())
            elif stream in unsent:
                self.shared.move(reply, lost(self.path, why, executed="no"))
            else:
                reply.fail(lost(self.path, why, executed="maybe"))

    def expire(self, now: float) -> float:
        """Fail what is late; the earliest deadline of the rest."""
        first, expired = NEVER, []
        with self.lock:
            for stream, reply in self.pending.items():
                if reply.deadline <= now:
                    expired.append((stream, reply))
                elif reply.deadline < first:
                    first = reply.deadline
            unsent = {stream for stream, _ in list(self._out)} if expired else set()
        for stream, reply in expired:
            self.drop(stream)
            timeout_ms = reply.request.timeout_ms
            reply.fail(late(self.path, timeout_ms, was_sent=stream not in unsent))
        return first

    def _send_batch(self) -> None:
        assert self.sock is not None
        streams = []
        if not self._rest:
            parts, size = [], 0
            while self._out and size < _BATCH:
                stream, data = self._out.popleft()
                streams.append(stream)
                parts.append(data)
                size += len(data)
            if not parts:
                return
            self._rest = memoryview(parts[0] if len(parts) == 1 else b"".join(parts))
        try:
            sent = self.sock.send(self._rest, _SEND)
        except BlockingIOError:
            sent = 0
        except OSError:
            # The thread sees the end of the connection too, and tells whom it concerns.
            self._unsent.update(streams)
            self._is_full = True
            self._rest = memoryview(b"")
            return
        self._rest = self._rest[sent:]
        if self._rest:
            self._is_full = True
            self.shared.watch(self, select.EPOLLIN | select.EPOLLOUT)

    def _parse(self, data: memoryview) -> memoryview:
        """Take all that is whole; what is left."""
        if not self.is_open:
            if len(data) < HELLO:
                return data
            check_hello(data)
            data = data[HELLO:]
            self.is_open = True
            self.flush()
        while len(data) >= SIZE:
            length, kind, stream = HEADER.unpack_from(data)
            check_header(length, kind)
            whole = SIZE + int(length)
            if length > self.shared.max_body + frames.ENVELOPE:
                self._skip(stream, length, len(data) - SIZE)
            elif whole > len(data):
                break
            else:
                self._take(kind, stream, data[SIZE:whole])
            data = data[whole:]
        return data

    def _need(self) -> int:
        """How many bytes what is held must become."""
        if not self.is_open:
            return HELLO
        if len(self._held) < SIZE:
            return SIZE
        return SIZE + int(HEADER.unpack_from(self._held)[0])

    def _skip(self, stream: int, length: int, have: int) -> None:
        self._skipping = max(0, length - have)
        with self.lock:
            reply = self.pending.pop(stream, None)
        if reply is not None:
            reply.fail(too_large(f"the answer of {self.path}", length, self.shared.max_body, "yes"))

    def _take(self, kind: int, stream: int, payload: Bytes) -> None:
        if kind == GOAWAY:
            self._go_away(stream)
            return
        if kind != RESPONSE:
            raise Garbage(f"a frame of type {kind} for a call")
        reply = self.pending.pop(stream, None)
        if reply is None:
            return  # late, or cancelled
        try:
            response = codec.unpack_response(payload)
        except FanError as exc:
            reply.fail(exc)
        else:
            reply.answer(response)

    def _go_away(self, last: int) -> None:
        with self.lock:
            self.is_over = True
            unseen = [stream for stream in self.pending if stream > last]
            moved = [self.pending.pop(stream) for stream in unseen]
            self._out.clear()
        self.shared.retire(self)
        for reply in moved:
            self.shared.move(reply, draining(self.path))


def closed() -> FanError:
    """What is in flight when the transport is closed fails with this."""
    return Unavailable("this transport was closed", reason="connection_lost")
