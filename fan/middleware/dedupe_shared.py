"""The answers of idempotency keys kept where several processes see them: `dedupe="shared"`."""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from fan.codec import pack, unpack_response
from fan.context import new_id
from fan.errors import CLASSES, NO, Aborted, FanError, InvalidArgument, RemoteError
from fan.message import Request, Response
from fan.middleware.base import Inbound, InboundNext, Sleep, Steps

if TYPE_CHECKING:
    from fan.transports.base import Ledger

#: Seconds between two looks at whether the first request is done: at first, and at most.
POLL, MAX_POLL = 0.005, 0.1
#: Share of the time left that a duplicate waits, so that its refusal still arrives in time.
PATIENCE = 0.9
#: Seconds that keeping an answer may take after the handler is done.
SETTLING = 2.0


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """An answer in a ledger: a digest of the arguments that it is for, and the response."""

    digest: bytes
    response: bytes


class SharedAnswers:
    """The same promise as `dedupe.Dedupe` makes, for all processes of one ledger. A process that
    dies in the middle keeps its key for what was left of its request's time."""

    def __init__(self, open_ledger: Callable[[], Ledger], window: float) -> None:
        self._open = open_ledger
        self._window = window

    def once(self, key: tuple[Any, ...], inbound: Inbound, next: InboundNext) -> Steps:
        """Raises as `Dedupe.on_request` does, and Unavailable, not executed, where the ledger
        cannot be asked."""
        ledger, request = self._open(), inbound.request
        name, holder = "\0".join(str(part) for part in key), new_id()
        digest = blake2b(request.content_type.encode() + b"\0" + request.body).digest()[:16]
        deadline = inbound.context.deadline or time.monotonic() + request.timeout_ms / 1000
        until = time.monotonic() + patience(inbound, time.monotonic())
        pause = POLL
        while True:
            ttl = max(1.0, deadline - time.monotonic())
            kept = ledger.claim(name, holder, ttl=ttl, deadline=deadline)
            if kept is not None:
                break
            if time.monotonic() + pause > until:
                raise still_running(key[3], MAX_POLL)
            yield Sleep(pause)
            pause = min(MAX_POLL, 2 * pause)
        if kept:
            return _replay(kept, digest, key, request)
        answer: bytes | None = None
        try:
            response = yield from next(inbound)
            if response.code == "ok":
                answer = pack(Kept(digest, pack(response)))
            return response
        except FanError as error:
            if is_kept(inbound, error):
                answer = pack(Kept(digest, pack(_failed(request, error))))
            raise
        finally:
            self._settle(ledger, name, holder, answer)

    def _settle(self, ledger: Ledger, name: str, holder: str, answer: bytes | None) -> None:
        until = time.monotonic() + SETTLING
        try:
            ledger.settle(name, holder, answer, ttl=self._window, deadline=until)
        except FanError as exc:  # the caller has its answer; a repetition will wait, then run
            import logging

            logging.getLogger("fan").warning("an answer could not be kept: %s", exc)


def patience(inbound: Inbound, now: float) -> float:
    """Seconds that a duplicate waits for the first one."""
    request, deadline = inbound.request, inbound.context.deadline
    left = request.timeout_ms / 1000 if deadline is None else deadline - now
    if request.kind == "push" and not inbound.is_queued:  # somebody waits for its being accepted
        left = min(left, request.timeout_ms / 1000)
    return PATIENCE * left


def is_numbered(key: str) -> bool:
    """Whether a key is that of a call which a handler made as its n-th: `<key>/<n>`."""
    return "/" in key and key.rpartition("/")[2].isdigit()


def is_kept(inbound: Inbound, error: FanError) -> bool:
    """Whether a failure is what everybody with the same key is answered. It is not where it may run
    again: a message that is delivered anew makes its calls under the same keys, and is to get
    further than the last time."""
    request = inbound.request
    if error.executed == NO or inbound.is_idempotent or request.kind != "call":
        return False
    return not (request.hops and is_numbered(request.key))


def _failed(request: Request, error: FanError) -> Response:
    return Response(
        id=request.id,
        code=error.code,
        reason=error.reason,
        message=str(error.message),
        type=error.type,
        details=msgspec.to_builtins(error.details, str_keys=True, enc_hook=repr),
        executed=error.executed,
        retry_after_ms=error.retry_after_ms,
    )


def _replay(kept: bytes, digest: bytes, key: tuple[Any, ...], request: Request) -> Response:
    found = msgspec.msgpack.decode(kept, type=Kept)
    if found.digest != digest:
        raise InvalidArgument(
            f"the idempotency key {key[3]!r} came with other arguments before: take a new key",
            reason="key_reused",
        )
    response = msgspec.structs.replace(unpack_response(found.response), id=request.id)
    if response.code == "ok":
        return response
    rest: dict[str, Any] = {
        "reason": response.reason,
        "executed": response.executed,
        "details": response.details,
        "retry_after_ms": response.retry_after_ms,
    }
    if response.type is None and response.code in CLASSES:
        raise CLASSES[response.code](response.message, **rest)
    raise RemoteError(response.message, code=response.code, type=response.type, **rest)


def still_running(key: str, pause: float) -> Aborted:
    """The refusal of a duplicate that cannot wait any longer; `pause` is in seconds."""
    return Aborted(
        f"the first request with the idempotency key {key!r} is still running",
        reason="duplicate_in_progress",
        executed=NO,
        retry_after_ms=int(pause * 1000),
    )
