"""Refuses calls that are too deep to be anything but a loop."""

from __future__ import annotations

from fan.errors import FailedPrecondition
from fan.message import MAX_HOPS
from fan.middleware.base import Call, CallNext, Inbound, InboundNext, Middleware, Steps


class Hops(Middleware):
    """A call deeper than `limit` is `failed_precondition/max_hops`, on both sides: the caller's
    check saves the trip, the server's holds against callers that do not check."""

    def __init__(self, limit: int = MAX_HOPS) -> None:
        self.limit = limit

    def on_call(self, call: Call, next: CallNext) -> Steps:
        """Raises FailedPrecondition(max_hops), not executed."""
        if call.parent is not None and call.parent.hops >= self.limit:
            raise self._refusal(call.target, call.parent.hops + 1)
        return next(call)

    def on_request(self, inbound: Inbound, next: InboundNext) -> Steps:
        """Raises FailedPrecondition(max_hops), not executed."""
        request = inbound.request
        if request.hops > self.limit:
            raise self._refusal(f"{request.service}.{request.method}", request.hops)
        return next(inbound)

    def _refusal(self, target: str, hops: int) -> FailedPrecondition:
        return FailedPrecondition(
            f"{target} is call number {hops} in a row of nested calls, more than {self.limit}: "
            "do the services call each other in a circle?",
            reason="max_hops",
            details={"hops": hops, "limit": self.limit},
        )
