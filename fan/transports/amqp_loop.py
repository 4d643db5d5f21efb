"""pika's I/O loop, made so that no error ends its thread and no fork shares its sockets."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, ParamSpec

from pika.adapters.select_connection import IOLoop, SelectConnection
from pika.exceptions import StreamLostError
from pika.spec import FRAME_BODY, FRAME_HEADER, Basic

P = ParamSpec("P")

#: Seconds that the loop waits after an error that nobody caught, so that one that comes again at
#: once does not take a whole core.
_PAUSE = 0.01
_CONTENT = (FRAME_HEADER, FRAME_BODY)


def guarded(function: Callable[P, object]) -> Callable[P, None]:
    """A callback for pika whose exceptions are logged: one that reached pika would end the
    connection, or the thread."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except Exception:
            report()

    return call


def report() -> None:
    """Log the exception at hand."""
    exc = sys.exc_info()[1]
    logging.getLogger("fan").error("the amqp transport met an error, and goes on", exc_info=exc)


class Loop(IOLoop):  # type: ignore[misc]  # pika has no complete types
    """Runs until it is stopped, whatever its callbacks raise."""

    def __init__(self) -> None:
        super().__init__()
        #: The sockets that it watches.
        self._fds: set[int] = set()
        #: What is to be done at the end of this turn.
        self._ends: list[Callable[[], None]] = []

    def run(self) -> None:
        """Run in this thread, until `stop`."""
        while True:
            try:
                self.start()
                return
            except Exception:
                report()
                time.sleep(_PAUSE)

    def at_end(self, job: Callable[[], None], *, is_first: bool = False) -> None:
        """Have it run at the end of this turn, before the loop waits again, or before what else is
        to be done then; in its thread."""
        self._ends.insert(0 if is_first else len(self._ends), job)

    def process_timeouts(self) -> None:
        """What pika does at the end of a turn, and what was left for it."""
        super().process_timeouts()
        self.end_turn()

    def end_turn(self) -> None:
        """Do now what is left for the end of this turn; in its thread."""
        while self._ends:
            self._ends.pop(0)()

    def add_handler(self, fd: int, handler: Callable[[int, int], None], events: int) -> None:
        """Watch a socket."""
        self._fds.add(fd)
        super().add_handler(fd, handler, events)

    def remove_handler(self, fd: int) -> None:
        """Watch it no longer."""
        self._fds.discard(fd)
        super().remove_handler(fd)

    def send(self, data: bytes) -> int:
        """Send over the only socket; the number of bytes that it took. An error is not told here:
        pika finds it too."""
        if len(self._fds) != 1:
            return 0
        (fd,) = self._fds
        try:
            return os.write(fd, data)
        except OSError:
            return 0

    def abandon(self) -> None:
        """In a forked child: let go of the sockets, which stay the parent's. Their numbers stay
        taken, since objects that hold them are still there and would close what comes after."""
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            for fd in self._fds:
                os.dup2(nowhere, fd, inheritable=False)
            os.close(nowhere)


class Connection(SelectConnection):  # type: ignore[misc]
    """Sends what one turn of the loop has to say in one piece. pika makes a system call of each
    frame, and a message has three, each of which wakes the broker."""

    def __init__(self, loop: Loop, parameters: Any, **callbacks: Any) -> None:
        self._frames: list[bytes] = []
        self._turns = loop
        self._is_plain = parameters.ssl_options is None
        super().__init__(parameters, custom_ioloop=loop, **callbacks)

    def drop(self) -> None:
        """Close the socket, without a word to a broker that does not answer."""
        if not self.is_closed:
            self._terminate_stream(StreamLostError("the broker did not answer"))

    def _on_connection_workflow_done(self, conn_or_exc: Any) -> None:
        # Where a login is given up pika passes the class of its exception, and then trips over it
        # before anybody is told.
        done = conn_or_exc() if isinstance(conn_or_exc, type) else conn_or_exc
        super()._on_connection_workflow_done(done)

    def _process_frame(self, frame_value: Any) -> None:
        # What carries messages has no callback that pika would find; it looks for one each time.
        kind = frame_value.frame_type
        is_content = kind in _CONTENT or type(getattr(frame_value, "method", None)) is Basic.Deliver
        if is_content:
            self.frames_received += 1
            self._deliver_frame_to_channel(frame_value)
        else:
            super()._process_frame(frame_value)

    def _adapter_emit_data(self, data: bytes) -> None:
        if not self._frames:
            self._turns.at_end(self._send_frames)
        self._frames.append(data)

    def _send_frames(self) -> None:
        frames, self._frames = self._frames, []
        transport = self._transport
        if transport is None:  # the connection was lost in this turn
            return
        data = b"".join(frames)
        if self._is_plain and self.is_open and not transport.get_write_buffer_size():
            data = data[self._turns.send(data) :]  # most often all of it: nothing waits for room
        if data:
            transport.write(data)


def cancel_timer(loop: Loop, timer: Any) -> None:
    """Take back a timer that may have run."""
    if timer is not None:
        loop.remove_timeout(timer)
