"""Limits how much of one service goes on at once, so that a slow one leaves room for the others."""

from __future__ import annotations

from collections import deque
from typing import ClassVar

from fan.errors import ResourceExhausted
from fan.middleware.base import Call, CallNext, Inbound, InboundNext, Middleware, Steps

#: Requests of one service that one process handles at once; more are refused, not queued, because a
#: queue in front of a slow service only makes its answers late.
MAX_REQUESTS = 256


class Bulkhead(Middleware):
    """The server's side: at most `limit` requests of one service at once."""

    def __init__(self, limit: int = MAX_REQUESTS) -> None:
        self._slots = _Slots(limit)

    def on_request(self, inbound: Inbound, next: InboundNext) -> Steps:
        """Raises ResourceExhausted(bulkhead_full), not executed, at once."""
        free = self._slots.take(inbound.request.service, "handled")
        try:
            return (yield from next(inbound))
        finally:  # also when the caller goes away and the generator is closed
            free.append(None)

    def start_over(self) -> None:
        """All places are free: who holds one is in the parent."""
        self._slots.free_all()

    def in_use(self, service: str) -> int:
        """Requests of `service` that are being handled now."""
        return self._slots.in_use(service)


class ClientBulkhead(Middleware):
    """The caller's side: at most `limit` attempts to call one service at once."""

    is_per_attempt: ClassVar[bool] = True

    def __init__(self, limit: int) -> None:
        self._slots = _Slots(limit)

    def on_call(self, call: Call, next: CallNext) -> Steps:
        """Raises ResourceExhausted(bulkhead_full), not executed, at once."""
        free = self._slots.take(call.service, "waited for")
        try:
            return (yield from next(call))
        finally:
            free.append(None)

    def start_over(self) -> None:
        """All places are free: who holds one is in the parent."""
        self._slots.free_all()

    def in_use(self, service: str) -> int:
        """Attempts to call `service` that are under way now."""
        return self._slots.in_use(service)


class _Slots:
    """Places per service. A deque gives and takes them atomically, without a lock of ours. Services
    are not forgotten: both layers see only names that were found."""

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(
                f"a bulkhead of {limit} lets nothing through; leave the layer out instead"
            )
        self._limit = limit
        self.free_all()

    def free_all(self) -> None:
        """Every place is free; one that is given back from now on is none of them."""
        self._free: dict[str, deque[None]] = {}

    def take(self, service: str, verb: str) -> deque[None]:
        """A place, to be given back by `append(None)`. Raises ResourceExhausted."""
        free = self._free.get(service)
        if free is None:
            free = self._free.setdefault(service, deque([None] * self._limit))
        try:
            free.pop()
        except IndexError:
            raise ResourceExhausted(
                f"{self._limit} calls of {service} are being {verb} here, and that is the limit",
                reason="bulkhead_full",
                details={"limit": self._limit},
            ) from None
        return free

    def in_use(self, service: str) -> int:
        free = self._free.get(service)
        return self._limit - len(free) if free is not None else 0
