"""Who waits for answers of a shared ipc connection, and who owns such connections."""

from __future__ import annotations

from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from fan.errors import FanError
from fan.message import Request, Response

if TYPE_CHECKING:
    from fan.transports.ipc_channel import Channel


class Waiter(Protocol):
    """Who waits for the answer to one request."""

    request: Request
    #: A point of `time.monotonic()`.
    deadline: float
    #: Where it was sent, and under which number.
    channel: Channel | None
    stream: int

    def answer(self, response: Response) -> None:
        """Complete it, unless somebody cancelled it."""

    def fail(self, exc: BaseException) -> None:
        """Complete it with an error, unless somebody cancelled it."""


class Owner(Protocol):
    """Who has channels, and the selector that watches their sockets."""

    max_body: int

    def move(self, reply: Any, why: FanError) -> None:
        """Send once more, over another connection, what was certainly not received."""

    def watch(self, channel: Channel, events: int) -> None:
        """Wait for these events of a channel's socket."""

    def retire(self, channel: Channel) -> None:
        """No further request goes over a channel; it still receives."""

    def forget(self, channel: Channel) -> None:
        """Close a channel's socket."""


class Reply(Future[Response]):
    """The future of one submitted request; cancelling it tells the callee."""

    def __init__(self, request: Request, deadline: float) -> None:
        super().__init__()
        self.request = request
        self.deadline = deadline
        self.channel: Channel | None = None
        self.stream = 0
        self.was_moved = False

    def cancel(self) -> bool:
        if not super().cancel():
            return False
        channel = self.channel
        if channel is not None:
            channel.drop(self.stream)
        return True

    def answer(self, response: Response) -> None:
        """Complete it, unless somebody cancelled it."""
        with suppress(InvalidStateError):
            self.set_result(response)

    def fail(self, exc: BaseException) -> None:
        """Complete it with an error, unless somebody cancelled it."""
        with suppress(InvalidStateError):
            self.set_exception(exc)
