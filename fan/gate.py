"""What stands between transports and the services of an App: who is not up yet answers nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fan.errors import FanError, Unavailable
from fan.failures import error_response
from fan.hosting import Hosted
from fan.message import Request, Response
from fan.transports.base import Handler, Overdue, Stream

if TYPE_CHECKING:
    from concurrent.futures import Future


class Gate:
    """The Handler in front of the Dispatcher: an instance that is not up yet is unavailable."""

    def __init__(
        self, dispatcher: Handler, waiting: set[str], find: Callable[[Request], Hosted]
    ) -> None:
        self._dispatcher = dispatcher
        self._waiting = waiting
        self._find = find

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
        if self._waiting:
            try:
                one = self._find(request)
                if one.instance_id in self._waiting:
                    raise Unavailable(f"{one.name} is not up yet", reason="no_instance")
            except FanError as exc:
                return error_response(request, exc)
        return self._dispatcher(
            request, is_cancelled=is_cancelled, peer=peer, is_queued=is_queued,
            on_overdue=on_overdue,
        )  # fmt: skip
