"""One message in hand: what is read from a stream, until it is settled."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from fan.errors import DeadlineExceeded, FanError, InvalidArgument
from fan.message import Request
from fan.transports.redis_failures import too_large
from fan.transports.redis_fields import ONLY, REPLY, Fields, decode_request
from fan.transports.redis_keys import Source, is_caller


class Message:
    """One delivery of one entry. `flaw` is why it is not for a handler; `request` is None where
    nobody can read it."""

    __slots__ = (
        "deliveries", "fields", "flaw", "is_given_up", "is_taken", "number", "reply", "request",
        "source",
    )  # fmt: skip

    def __init__(self, source: Source, number: bytes, fields: Fields, deliveries: int) -> None:
        self.source = source
        self.number = number
        self.fields = fields
        #: How often it was given to a worker, this time included.
        self.deliveries = deliveries
        self.request: Request | None = None
        #: Who waits for the answer of a call; empty for nobody.
        self.reply = ""
        self.flaw: FanError | None = None
        #: Whether it was acknowledged before it is handled.
        self.is_taken = False
        #: Whether it is another's by now, or nobody's.
        self.is_given_up = False

    def __repr__(self) -> str:
        return f"<Message {self.source.stream} {self.number.decode()}>"

    @property
    def is_foreign(self) -> bool:
        """Whether it was put back for another group of its topic."""
        only = self.fields.get(ONLY)
        return only is not None and only.decode("utf-8", "replace") != self.source.group

    def read(self, max_body: int, **ours: Any) -> None:
        """Find its request, with the fields that we know better, or its flaw."""
        reply = self.fields.get(REPLY, b"").decode("utf-8", "replace")
        if self.source.kind == "call" and is_caller(reply):
            self.reply = reply
        try:
            request = decode_request(self.fields, **ours)
            self.request = request
            _check(request, self.source, max_body)
            attempt = self.deliveries - 1
            if self.source.kind == "call":
                attempt += request.attempt
            if attempt != request.attempt:
                self.request = replace(request, attempt=attempt)
        except FanError as exc:
            self.flaw = exc

    def is_expired(self, now: float) -> bool:
        """Whether nobody waits for it any more, at epoch seconds `now`; its flaw says so then."""
        request = self.request
        if request is None:
            return False
        if self.source.kind == "call":
            over = request.deadline_ms
        elif request.ttl_ms is None:
            return False
        else:
            over = int(self.number.partition(b"-")[0]) + request.ttl_ms
        if over is None or now * 1000 < over:
            return False
        self.flaw = DeadlineExceeded(
            f"{request.service or request.topic}.{request.method} waited"
            f" {now - over / 1000:.3f} s too long in the queue",
            reason="expired_in_queue",
        )
        return True


def _check(request: Request, source: Source, max_body: int) -> None:
    kinds = ("call", "stream") if source.kind == "call" else (source.kind,)
    if request.kind not in kinds:
        raise InvalidArgument(f"a {request.kind} in a queue of {source.kind}s", reason="malformed")
    if len(request.body) > max_body:
        raise too_large("the request", len(request.body), max_body, "no")
