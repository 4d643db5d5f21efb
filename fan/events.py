"""A function that hears of a topic: `app.subscribe(topic, handle)`, for programs that are no
service."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from fan.context import new_id
from fan.errors import Unavailable
from fan.failures import error_response
from fan.hosting import Hosted
from fan.message import Request, Response
from fan.model import Address
from fan.service import Method, RpcOptions, Service
from fan.transports.base import Listener, Overdue, Stream, Subscription, Transport

if TYPE_CHECKING:
    from concurrent.futures import Future

    from fan.app import App


class Subscriber:
    """A running subscription of one function; `close()` ends it. The function gets the event's
    arguments, checked against its annotations, and may be `async def`; `fan.current().request` is
    the event itself. What it raises has the event delivered again."""

    def __init__(self, app: App, topic: str, handle: Callable[..., Any]) -> None:
        self.topic = topic
        self._app = app
        self._hosted = Hosted(_Subscribing(), f"{app.name}-{new_id()[:12]}")
        self._method = Method("handle", handle, RpcOptions())
        self._hosted.table["handle"] = self._method
        self._hosted.settle(app)
        self._hosted.start_over()
        self._listener: Listener | None = None
        self._is_draining = False

    def __repr__(self) -> str:
        return f"<Subscriber {self.topic} {'open' if self._listener else 'closed'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def open(self, transport: Transport, address: Address, group: str) -> None:
        """Begin to hear. Raises what `Transport.subscribe` raises."""
        # Each is a method of its own to those who tell messages apart by service and method.
        wanted = Subscription(self.topic, group, self._hosted.name, self._hosted.instance_id)
        self._listener = transport.subscribe(address, wanted, self._handle)

    def drain(self) -> None:
        """Take nothing new; what is taken already and not begun goes back to its queue."""
        self._is_draining = True
        if self._listener is not None:
            self._listener.drain()

    def close(self, timeout: float = 5.0) -> None:
        """Stop hearing, once what is being handled is done. Twice does no harm."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close(timeout)

    def abandon(self) -> None:
        """In a forked child: leave the subscription to the parent."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.abandon()

    def _handle(
        self,
        request: Request,
        *,
        is_cancelled: Callable[[], bool] | None = None,
        peer: str = "",
        is_queued: bool = False,
        on_overdue: Overdue | None = None,
    ) -> Response | Future[Response] | Stream:
        if self._is_draining:
            error = Unavailable(f"{self.topic}: the subscriber is draining", reason="draining")
            return error_response(request, error)
        return self._app.dispatcher.handle(
            request,
            self._hosted,
            self._method,
            is_cancelled=is_cancelled,
            peer=peer,
            is_queued=is_queued,
            on_overdue=on_overdue,
        )


class _Subscribing(Service):
    name = "subscriber"
