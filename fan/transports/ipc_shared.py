"""The ipc transport's `submit`: one shared connection per address, one thread for all of them.

With few in flight whoever submits sends too, as far as the socket takes it at once; the thread
connects, receives, sends the rest, and keeps the deadlines. Nothing makes a caller wait here.
"""

from __future__ import annotations

import _socket
import os
import select
import threading
import time
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from typing import Literal

from fan.errors import FanError, Internal, Unavailable
from fan.message import Request, Response
from fan.transports import ipc_frames as frames
from fan.transports.ipc_channel import Channel, Reply
from fan.transports.ipc_failures import garbled, late, refused
from fan.transports.ipc_frames import Garbage
from fan.transports.ipc_workers import report

# Bytes of one receive, which all connections of the thread share.
_BUFFER = 256 * 1024
_NEVER = float("inf")
# Up to so many in flight a caller sends itself, which is quickest; with more the thread sends for
# all: one system call and one wake-up of the server for a batch, which carries twice the calls.
_FEW = 3
# Seconds between tries where a listener's queue is full: nothing announces room in it.
_RETRY = 0.005
_SEND = _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL


class Shared:
    """All shared connections of a transport, and their thread."""

    def __init__(self, max_body: int, *, is_closed: bool = False) -> None:
        self.max_body = max_body
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._channels: dict[str, Channel] = {}
        self._by_fd: dict[int, Channel] = {}
        self._to_connect: deque[Channel] = deque()
        self._epoll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._bell, select.EPOLLIN)
        self._is_closed = is_closed
        #: Whether the thread was asked to send and has not looked yet.
        self._is_nudged = False
        #: When the thread looks at the deadlines next, whatever happens.
        self._wakes_at = _NEVER
        self._thread: threading.Thread | None = None

    def submit(self, path: str, request: Request) -> Future[Response]:
        """`Transport.submit`."""
        deadline = time.monotonic() + request.timeout_ms / 1000
        reply = Reply(request, deadline)
        if request.timeout_ms <= 0:
            reply.fail(late(path, request.timeout_ms, was_sent=False))
            return reply
        self._start(path, reply)
        if deadline < self._wakes_at:
            with self._lock:
                self._wakes_at = min(self._wakes_at, deadline)
            self._ring()
        return reply

    def move(self, reply: Reply, why: FanError) -> None:
        """Send once more, over another connection, what was certainly not received."""
        if reply.was_moved or self._is_closed:
            reply.fail(why)
        else:
            reply.was_moved = True
            assert reply.channel is not None
            self._start(reply.channel.path, reply)

    def watch(self, channel: Channel, events: int) -> None:
        """Wait for these events of a channel's socket."""
        try:
            assert channel.sock is not None
            self._epoll.modify(channel.sock.fileno(), events)
        except (OSError, ValueError):  # it was closed meanwhile
            pass

    def retire(self, channel: Channel) -> None:
        """No further request goes over a channel; it still receives."""
        with self._lock:
            if self._channels.get(channel.path) is channel:
                del self._channels[channel.path]

    def forget(self, channel: Channel) -> None:
        """Close a channel's socket."""
        self.retire(channel)
        assert channel.sock is not None
        if self._by_fd.pop(channel.sock.fileno(), None) is None:
            return
        with channel.writing:  # nobody sends to a descriptor that may soon be another's
            self._epoll.unregister(channel.sock.fileno())
            with suppress(OSError):
                channel.sock.shutdown(_socket.SHUT_RDWR)
            channel.sock.close()

    def close(self) -> None:
        """Fail what is in flight, end the thread, close everything."""
        if self.pid != os.getpid():
            self._abandon()
            return
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            thread = self._thread
        if thread is None:
            self._release()
        elif thread is not threading.current_thread():
            self._ring()
            thread.join()

    def _abandon(self) -> None:
        """In a forked child the thread is not there, locks may be held, sockets are shared."""
        for channel in list(self._by_fd.values()):
            if channel.sock is not None:
                channel.sock.close()
        self._release()

    def _release(self) -> None:
        self._epoll.close()
        os.close(self._bell)

    def _start(self, path: str, reply: Reply) -> None:
        try:
            while True:
                channel = self._channels.get(path) or self._new_channel(path)
                if channel.add(reply):
                    break
                self.retire(channel)
        except FanError as exc:
            reply.fail(exc)
            return
        except Exception as exc:
            reply.fail(Internal(f"the request cannot be sent: {exc}", executed="no"))
            return
        if len(channel.pending) <= _FEW:
            channel.flush()
        elif not self._is_nudged:
            self._is_nudged = True
            self._ring()

    def _new_channel(self, path: str) -> Channel:
        with self._lock:
            if self._is_closed:
                raise Unavailable("this transport is closed", reason="connect_failed")
            channel = self._channels.get(path)
            if channel is not None:
                return channel
            channel = Channel(self, path)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="fan-ipc-io", daemon=True)
                thread.start()
                self._thread = thread
            self._channels[path] = channel
            self._to_connect.append(channel)
        self._ring()
        return channel

    def _ring(self) -> None:
        with suppress(OSError):  # closed: nobody needs waking
            os.eventfd_write(self._bell, 1)

    def _run(self) -> None:
        buffer = memoryview(bytearray(_BUFFER))
        while not self._is_closed:
            try:
                self._turn(buffer)
            except BaseException:  # of somebody's callback; the others still want their answers
                report()
        for channel in {*self._channels.values(), *self._by_fd.values()}:
            channel.lose("closed", _closed)
        self._release()

    def _turn(self, buffer: memoryview) -> None:
        wait = self._wakes_at - time.monotonic()
        if self._to_connect:
            wait = min(wait, _RETRY)
        for fd, events in self._epoll.poll(None if wait == _NEVER else max(0.0, wait)):
            channel = self._by_fd.get(fd)
            if channel is not None:
                self._attend(channel, events, buffer)
            elif fd == self._bell:
                os.eventfd_read(fd)
                self._is_nudged = False  # before the look, so that who comes after it rings again
                for each in list(self._by_fd.values()):
                    each.flush()
        for _ in range(len(self._to_connect)):
            self._connect(self._to_connect.popleft())
        if time.monotonic() >= self._wakes_at:
            self._look_at_deadlines()

    def _attend(self, channel: Channel, events: int, buffer: memoryview) -> None:
        try:
            if events & select.EPOLLOUT:
                channel.resume()
            if events & ~select.EPOLLOUT:
                channel.receive(buffer)
        except Garbage as exc:
            executed: Literal["no", "maybe"] = "maybe" if channel.is_open else "no"
            why = str(exc)
            channel.lose(why, lambda: garbled(channel.path, why, executed))
        except (OSError, EOFError) as exc:
            channel.lose(exc)

    def _look_at_deadlines(self) -> None:
        with self._lock:
            self._wakes_at = _NEVER  # first, so that a submit meanwhile can set an earlier one
        now = time.monotonic()
        channels = {*self._channels.values(), *self._by_fd.values()}
        first = min((channel.expire(now) for channel in channels), default=_NEVER)
        with self._lock:
            self._wakes_at = min(self._wakes_at, first)

    def _connect(self, channel: Channel) -> None:
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0)
        try:
            sock.settimeout(0)
            sock.connect(channel.path)
            sock.send(frames.hello(frames.SHARED), _SEND)
        except BlockingIOError:
            sock.close()
            if channel.pending:
                self._to_connect.append(channel)
            else:  # nobody waits for it any more
                self.retire(channel)
                channel.lose("busy")
            return
        except (OSError, ValueError) as exc:  # the latter for a path that is none
            why = exc
            sock.close()
            self.retire(channel)
            channel.lose(exc, lambda: refused(channel.path, why))
            return
        channel.sock = sock
        self._by_fd[sock.fileno()] = channel
        self._epoll.register(sock.fileno(), select.EPOLLIN)


def _closed() -> FanError:
    return Unavailable("this transport was closed", reason="connection_lost")
