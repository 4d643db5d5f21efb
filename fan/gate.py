"""What stands between transports and the services of an App: who is not up yet answers nothing, and
who drains begins nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fan.errors import FanError, Unavailable
from fan.failures import error_response
from fan.message import Request, Response
from fan.transports.base import Overdue, Stream

if TYPE_CHECKING:
    from concurrent.futures import Future

    from fan.dispatch import Dispatcher


class Gate:
    """The Handler in front of the Dispatcher: an instance that is not up yet is unavailable, and
    once the gate is shut everything is. What passed before is in flight for
    `Dispatcher.wait_idle`."""

    def __init__(self, dispatcher: Dispatcher, waiting: set[str]) -> None:
        self._dispatcher = dispatcher
        self._waiting = waiting
        self._find = dispatcher.hosting.find
        self._is_shut = self._is_shut_to_queued = False

    def shut_to_queued(self) -> None:
        """Let no push or event pass that came by a queue: what a transport had taken before it was
        told to drain is for another worker. Whoever calls waits for this one."""
        self._is_shut_to_queued = True

    def shut(self) -> None:
        """Let nothing more pass: the services are about to stop."""
        self._is_shut = True

    def __call__(
        self,
        request: Request,
        *,
        is_cancelled: Callable[[], bool] | None = None,
        peer: str = "",
        is_queued: bool = False,
        on_overdue: Overdue | None = None,
    ) -> Response | Future[Response] | Stream:
        """Answer one request: see `transports.base.Handler`."""
        dispatcher = self._dispatcher
        entered = dispatcher.enter()  # first: who shuts the gate then waits for those in it
        try:
            is_left = is_queued and request.kind != "call" and self._is_shut_to_queued
            if self._is_shut or is_left:
                gone = Unavailable(f"{request.service} is draining", reason="draining")
                return error_response(request, gone)
            if self._waiting:
                one = self._find(request)
                if one.instance_id in self._waiting:
                    raise Unavailable(f"{one.name} is not up yet", reason="no_instance")
            return dispatcher(
                request, is_cancelled=is_cancelled, peer=peer, is_queued=is_queued,
                on_overdue=on_overdue,
            )  # fmt: skip
        except FanError as exc:
            return error_response(request, exc)
        finally:
            dispatcher.leave(entered)
