"""Answers a repeated request from memory, so that its handler runs once.

The caller says that two requests are one by giving them the same idempotency key (the header of
that name is an IETF draft, draft-ietf-httpapi-idempotency-key-header; Stripe's API is the model).
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import msgspec

from fan.errors import CLASSES, FanError, InvalidArgument, RemoteError
from fan.message import Request, Response
from fan.middleware.base import Inbound, InboundNext, Middleware, Sleep, Steps
from fan.middleware.dedupe_shared import (
    SharedAnswers,
    is_kept,
    is_numbered,
    patience,
    still_running,
)

if TYPE_CHECKING:
    from fan.transports.base import Ledger

#: Seconds for which an answer is remembered.
WINDOW = 300.0
#: Answers that are remembered, and bytes of their bodies; beyond, the oldest goes.
MAX_ENTRIES = 10_000
MAX_BYTES = 16 * 1024 * 1024
#: What an entry weighs beside its body, for `MAX_BYTES`.
ENTRY_BYTES = 1024
#: Seconds between two looks at whether the first request is done: at first, and at most.
POLL, MAX_POLL = 0.002, 0.05

Key = tuple[str, str, str, str, int]


class Dedupe(Middleware):
    """Remembers answers by principal, service, method and key; sits right above the handler.

    Only requests whose key is not their own id are looked at: others have no twin. (The exception
    are pushes, which a queue redelivers under the same id.) A success is remembered, and a failure
    that ran, unless the method is idempotent, or it was a push or a call that a handler made: those
    may run again. A duplicate
    waits for a first one that is still running. The window counts from the answer, and asking again
    does not extend it. With a `ledger`, methods with `dedupe="shared"` have their answers kept
    there, for all processes.
    """

    def __init__(
        self,
        *,
        window: float = WINDOW,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
        ledger: Callable[[], Ledger] | None = None,
    ) -> None:
        self.window = window
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self._clock = clock
        self._shared = SharedAnswers(ledger, window) if ledger is not None else None
        #: Oldest first, which is also the order in which they expire.
        self._answers: dict[Key, _Answer] = {}
        self._bytes = 0
        self._running: dict[Key, int] = {}
        self._lock = threading.Lock()

    def start_over(self) -> None:
        """Keep the answers; what was running runs in the parent."""
        self._lock = threading.Lock()
        self._running = {}
        self._bytes = sum(answer.size for answer in self._answers.values())

    def on_request(self, inbound: Inbound, next: InboundNext) -> Steps:
        """Raises Aborted(duplicate_in_progress), not executed, when the first request outlasts this
        one, and InvalidArgument(key_reused) when the key comes again with other arguments."""
        request = inbound.request
        key = _key_of(request)
        if key is None:
            return next(inbound)
        if inbound.dedupe == "shared" and self._shared is not None:
            return self._shared.once(key, inbound, next)
        return self._once(key, inbound, next)

    def _once(self, key: Key, inbound: Inbound, next: InboundNext) -> Steps:
        request = inbound.request
        digest = hash((request.content_type, request.body))
        answer = self._claim(key, digest)
        while answer is _RUNNING:
            yield from self._wait(inbound, key)
            answer = self._claim(key, digest)
        if answer is not None:
            return answer.replay(request)
        kept: _Answer | None = None
        try:
            response = yield from next(inbound)
            if response.code == "ok":
                kept = _Answer(digest, response=response)
            return response
        except FanError as error:
            if is_kept(inbound, error):
                kept = _Answer(digest, error=error)
            raise
        finally:  # also when it is closed: then nobody was answered, and the next one runs
            self._settle(key, kept)

    def _claim(self, key: Key, digest: int) -> _Answer | None:
        """The remembered answer; `_RUNNING`; or None, and the request is the caller's to run."""
        with self._lock:
            answer = self._answers.get(key)
            if answer is not None and answer.expires > self._clock():
                first = answer.digest
            elif key in self._running:
                answer, first = _RUNNING, self._running[key]
            else:
                self._running[key] = digest
                return None
        if first != digest:
            raise InvalidArgument(
                f"the idempotency key {key[3]!r} came with other arguments before: take a new key",
                reason="key_reused",
            )
        return answer

    def _wait(self, inbound: Inbound, key: Key) -> Generator[Sleep, None, None]:
        now = self._clock()
        until, pause = now + patience(inbound, now), POLL
        while key in self._running:
            if self._clock() + pause > until:
                raise still_running(key[3], MAX_POLL)
            yield Sleep(pause)
            pause = min(MAX_POLL, 2 * pause)

    def _settle(self, key: Key, answer: _Answer | None) -> None:
        with self._lock:
            self._running.pop(key, None)  # not there in a child that its handler forked
            now = self._clock()
            if answer is not None and answer.size <= self.max_bytes:
                self._drop(key)
                answer.expires = now + self.window
                self._answers[key] = answer
                self._bytes += answer.size
            while self._answers:
                oldest = next(iter(self._answers))
                is_over = len(self._answers) > self.max_entries or self._bytes > self.max_bytes
                if not is_over and self._answers[oldest].expires > now:
                    break
                self._drop(oldest)

    def _drop(self, key: Key) -> None:
        old = self._answers.pop(key, None)
        self._bytes -= old.size if old is not None else 0


class _Answer:
    """What a request was answered with: a response, or the fields of an error (the exception itself
    would keep the handler's frames alive)."""

    __slots__ = ("_error", "_response", "digest", "expires", "size")

    def __init__(
        self, digest: int, *, response: Response | None = None, error: FanError | None = None
    ) -> None:
        self.digest = digest
        self.expires = 0.0
        self.size = ENTRY_BYTES + (len(response.body) if response is not None else 0)
        self._response = response
        self._error: tuple[str, str | None, str, dict[str, Any]] | None = None
        if error is not None:
            rest = {
                "reason": error.reason,
                "executed": error.executed,
                "details": error.details,
                "retry_after_ms": error.retry_after_ms,
            }
            self._error = (error.code, error.type, error.message, rest)

    def replay(self, request: Request) -> Response:
        """The same answer, to another request. Raises the same error."""
        if self._response is not None:
            return msgspec.structs.replace(self._response, id=request.id)
        assert self._error is not None
        code, type, message, rest = self._error
        if type is None and code in CLASSES:
            raise CLASSES[code](message, **rest)
        raise RemoteError(message, code=code, type=type, **rest)


#: Stands for the answer of a request that is still running.
_RUNNING = _Answer(0)


def _key_of(request: Request) -> Key | None:
    key = request.key or request.id
    if request.kind == "stream" or (key == request.id and request.kind == "call"):
        return None
    # Children's keys are numbered (`<parent key>/<n>`). A parent that runs again may make its calls
    # in another order, so there the arguments are a part of the identity instead of a reason to
    # refuse.
    body = zlib.crc32(request.body) if is_numbered(key) else 0  # the same in every process
    return (request.principal, request.service, request.method, key, body)
