"""The ipc transport's `submit`: one shared connection per address, one thread for all of them.

With few in flight whoever submits sends too, as far as the socket takes it at once; the thread
connects, receives, sends the rest, and keeps the deadlines. Nothing makes a caller wait here.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from concurrent.futures import Future
from contextlib import suppress

from fan.errors import FanError, Internal, Unavailable
from fan.message import Request, Response
from fan.transports.ipc_channel import BUFFER, LONGEST_WAIT, NEVER, RETRY, Channel, closed
from fan.transports.ipc_failures import late
from fan.transports.ipc_waiting import Reply
from fan.transports.ipc_workers import report

# Up to so many in flight a caller sends itself, which is quickest; with more the thread sends for
# all: one system call and one wake-up of the server for a batch, which carries twice the calls.
_FEW = 3

# Seconds of rest after an error that nobody caught: it may come again at once.
_AFTER_ERROR = 0.05


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
        self._wakes_at = NEVER
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
        self._epoll.unregister(channel.sock.fileno())
        channel.hang_up()

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
        buffer = memoryview(bytearray(BUFFER))
        while not self._is_closed:
            try:
                self._turn(buffer)
            except BaseException:  # of somebody's callback; the others still want their answers
                report()
                time.sleep(_AFTER_ERROR)
        for channel in {*self._channels.values(), *self._by_fd.values()}:
            channel.lose("closed", closed)
        self._release()

    def _turn(self, buffer: memoryview) -> None:
        wait = self._wakes_at - time.monotonic()
        if self._to_connect:
            wait = min(wait, RETRY)
        for fd, events in self._epoll.poll(min(max(0.0, wait), LONGEST_WAIT)):
            channel = self._by_fd.get(fd)
            if channel is not None:
                channel.attend(events, buffer)
            elif fd == self._bell:
                os.eventfd_read(fd)
                self._is_nudged = False  # before the look, so that who comes after it rings again
                for each in list(self._by_fd.values()):
                    each.flush()
        for _ in range(len(self._to_connect)):
            self._connect(self._to_connect.popleft())
        if time.monotonic() >= self._wakes_at:
            self._look_at_deadlines()

    def _look_at_deadlines(self) -> None:
        with self._lock:
            self._wakes_at = NEVER  # first, so that a submit meanwhile can set an earlier one
        now = time.monotonic()
        channels = {*self._channels.values(), *self._by_fd.values()}
        first = min((channel.expire(now) for channel in channels), default=NEVER)
        with self._lock:
            self._wakes_at = min(self._wakes_at, first)

    def _connect(self, channel: Channel) -> None:
        if not channel.connect():
            if channel.pending:
                self._to_connect.append(channel)
            else:  # nobody waits for it any more
                self.retire(channel)
                channel.lose("busy")
        elif channel.sock is not None:
            self._by_fd[channel.sock.fileno()] = channel
            self._epoll.register(channel.sock.fileno(), select.EPOLLIN)
