"""The ipc transport's calls from coroutines: one shared connection per address and event loop, read
and written by the loop itself.

No other thread has a part in such a call, so nothing is handed over between threads. What the tasks
of a loop ask for in one of its turns leaves in one send. Everything here runs on the loop's thread;
only `close` may come from another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import threading
import time
from collections.abc import Callable
from weakref import WeakKeyDictionary, finalize, ref

from fan.errors import FanError, Internal, Unavailable
from fan.message import Request, Response
from fan.transports.ipc_channel import BUFFER, NEVER, RETRY, Channel, closed
from fan.transports.ipc_failures import late

#: Seconds that `close` waits for a loop in another thread.
PATIENCE = 1.0


class Loops:
    """The connections of one transport, by event loop. They end with the loop."""

    def __init__(self, max_body: int, *, is_closed: bool = False) -> None:
        self._max_body = max_body
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopShared] = (
            WeakKeyDictionary()
        )
        self._is_closed = is_closed

    def here(self) -> LoopShared:
        """The connections of the running loop. Raises Unavailable once this is closed."""
        loop = asyncio.get_running_loop()
        found = self._by_loop.get(loop)
        if found is not None:
            return found
        with self._lock:
            if self._is_closed:
                raise Unavailable("this transport is closed", reason="connect_failed")
            for other, shared in list(self._by_loop.items()):
                if other.is_closed():
                    shared.drop()
                    del self._by_loop[other]
            made = self._by_loop[loop] = LoopShared(loop, self._max_body)
        finalize(loop, made.drop).atexit = False
        return made

    def close(self) -> None:
        """Fail what is in flight, and close everything."""
        if self.pid != os.getpid():
            for shared in list(self._by_loop.values()):
                shared.drop()
            return
        with self._lock:
            self._is_closed = True
            found = list(self._by_loop.items())
        for loop, shared in found:
            _run_on(loop, shared.end)


class LoopShared:
    """All shared connections of one loop, which it does not keep alive."""

    def __init__(self, loop: asyncio.AbstractEventLoop, max_body: int) -> None:
        self.max_body = max_body
        self._pid = os.getpid()
        self._loop = ref(loop)
        self._channels: dict[str, Channel] = {}
        self._by_fd: dict[int, Channel] = {}
        self._buffer = memoryview(bytearray(BUFFER))
        #: Whether the loop was asked to send and has not done so yet.
        self._is_nudged = False
        self._is_over = False
        #: When the deadlines are looked at next.
        self._wakes_at = NEVER

    async def call(self, path: str, request: Request) -> Response:
        """`Transport.acall`."""
        deadline = time.monotonic() + request.timeout_ms / 1000
        if request.timeout_ms <= 0:
            raise late(path, request.timeout_ms, was_sent=False)
        loop = asyncio.get_running_loop()
        reply = Waiting(request, deadline, loop.create_future())
        self._start(path, reply)
        if deadline < self._wakes_at:
            self._wakes_at = deadline
            loop.call_later(deadline - time.monotonic(), self._look_at_deadlines)
        try:
            return await reply.future
        except asyncio.CancelledError:
            if not reply.future.cancelled():
                reply.future.exception()  # it came too late to be seen, and is no accident
            if reply.channel is not None:
                reply.channel.drop(reply.stream)
            raise

    def move(self, reply: Waiting, why: FanError) -> None:
        """Send once more, over another connection, what was certainly not received."""
        if reply.was_moved or self._is_over or reply.channel is None:
            reply.fail(why)
            return
        reply.was_moved = True
        try:
            self._start(reply.channel.path, reply)
        except FanError as exc:
            reply.fail(exc)

    def watch(self, channel: Channel, events: int) -> None:
        """Wait for these events of a channel's socket."""
        assert channel.sock is not None
        loop, fd = asyncio.get_running_loop(), channel.sock.fileno()
        if events & select.EPOLLOUT:
            loop.add_writer(fd, channel.resume)
        else:
            loop.remove_writer(fd)

    def retire(self, channel: Channel) -> None:
        """No further request goes over a channel; it still receives."""
        if self._channels.get(channel.path) is channel:
            del self._channels[channel.path]

    def forget(self, channel: Channel) -> None:
        """Close a channel's socket."""
        self.retire(channel)
        assert channel.sock is not None
        fd = channel.sock.fileno()
        if self._by_fd.pop(fd, None) is None:
            return
        loop = self._loop()
        if loop is not None and not loop.is_closed():
            loop.remove_reader(fd)
            loop.remove_writer(fd)
        channel.hang_up()

    def end(self) -> None:
        """Fail what is in flight, and close everything."""
        self._is_over = True
        for channel in {*self._channels.values(), *self._by_fd.values()}:
            channel.lose("closed", closed)

    def drop(self) -> None:
        """Close everything once the loop has ended, and nobody waits any more; in a forked child,
        without the peers' notice."""
        self._is_over = True
        is_ours = self._pid == os.getpid()
        while self._by_fd:
            self._by_fd.popitem()[1].hang_up(is_ours=is_ours)
        self._channels.clear()

    def _start(self, path: str, reply: Waiting) -> None:
        try:
            while True:
                channel = self._channels.get(path) or self._new_channel(path)
                if channel.add(reply):
                    break
                self.retire(channel)
        except FanError:
            raise
        except Exception as exc:
            raise Internal(f"the request cannot be sent: {exc}", executed="no") from exc
        if len(channel.pending) == 1:
            channel.flush()
        elif not self._is_nudged:
            self._is_nudged = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_nudged = False
        for channel in list(self._by_fd.values()):
            channel.flush()

    def _new_channel(self, path: str) -> Channel:
        if self._is_over:
            raise Unavailable("this transport is closed", reason="connect_failed")
        channel = self._channels[path] = Channel(self, path)
        # After the request was added, which an error of the connection then reaches.
        asyncio.get_running_loop().call_soon(self._connect, channel)
        return channel

    def _connect(self, channel: Channel) -> None:
        if self._is_over or channel.is_over:
            return
        loop = asyncio.get_running_loop()
        if not channel.connect():
            if channel.pending:
                loop.call_later(RETRY, self._connect, channel)
            else:  # nobody waits for it any more
                self.retire(channel)
                channel.lose("busy")
        elif channel.sock is not None:
            fd = channel.sock.fileno()
            self._by_fd[fd] = channel
            loop.add_reader(fd, channel.attend, select.EPOLLIN, self._buffer)

    def _look_at_deadlines(self) -> None:
        now = time.monotonic()
        if now < self._wakes_at:
            return  # an earlier one was set meanwhile, and looks itself
        channels = {*self._channels.values(), *self._by_fd.values()}
        self._wakes_at = min((channel.expire(now) for channel in channels), default=NEVER)
        if self._wakes_at < NEVER:
            loop = asyncio.get_running_loop()
            loop.call_later(self._wakes_at - now, self._look_at_deadlines)


class Waiting:
    """A request in flight and the loop's future for its answer; a `Waiter` of `ipc_waiting`."""

    __slots__ = ("channel", "deadline", "future", "request", "stream", "was_moved")

    def __init__(self, request: Request, deadline: float, future: asyncio.Future[Response]) -> None:
        self.request = request
        self.deadline = deadline
        self.future = future
        self.channel: Channel | None = None
        self.stream = 0
        self.was_moved = False

    def answer(self, response: Response) -> None:
        """Complete it, unless somebody cancelled it."""
        if not self.future.done():
            self.future.set_result(response)

    def fail(self, exc: BaseException) -> None:
        """Complete it with an error, unless somebody cancelled it."""
        if not self.future.done():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.future.set_exception(exc)


def _run_on(loop: asyncio.AbstractEventLoop, end: Callable[[], None]) -> None:
    """Run it on the loop where that runs, else here."""
    try:
        is_here = asyncio.get_running_loop() is loop
    except RuntimeError:
        is_here = False
    if is_here or not loop.is_running():
        end()
        return
    is_done = threading.Event()

    def run() -> None:
        try:
            end()
        finally:
            is_done.set()

    with contextlib.suppress(RuntimeError):  # it was closed meanwhile, and drops them itself
        loop.call_soon_threadsafe(run)
        is_done.wait(PATIENCE)
