"""What the http server does with one request: read it, have it handled in a thread, answer.

It is an ASGI application, so that the server under it can be exchanged. `http_gate` says which
requests are fan's at all, `http_wire` has the form of what is answered.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fan.errors import DeadlineExceeded, FanError, Internal, ResourceExhausted, Unavailable
from fan.message import MAX_BODY, Request, Response
from fan.transports import http_wire as wire
from fan.transports.base import Handler, Stream
from fan.transports.http_gate import Gate, Refused
from fan.transports.http_workers import Overdue, Post, Workers, from_thread

if TYPE_CHECKING:
    from fan.settings import Settings

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

#: Threads that wait for the next items of streams, at most: a bulkhead belongs above the transport.
MOST_READERS: Final = 512
#: Seconds after which a call is worth watching for its caller to go away; most are over by then.
WATCH_AFTER: Final = 0.02
#: Seconds after its deadline at which a request is answered that is not done. A caller of ours has
#: a timer of its own, and goes before that; curl has none for what it asked for.
GRACE: Final = 0.1
FOREIGN_GRACE: Final = 0.01


class Application:
    """The requests of one server, on its loop; handlers run in threads."""

    def __init__(self, handler: Handler, gate: Gate, settings: Settings | None) -> None:
        self._handler = handler
        self._gate = gate
        self._max_body = settings.max_body if settings is not None else MAX_BODY
        self._max_queued = settings.bulkhead_requests if settings is not None else 256
        self._workers = Workers(settings.workers if settings is not None else 32, "fan-http-work")
        #: Apart from the others: a stream that has nothing to say for now is not to stop calls.
        self._readers = Workers(MOST_READERS, "fan-http-stream")
        #: Whether new requests are refused.
        self.is_draining = False
        #: Requests that are not answered yet.
        self.flying = 0

    def close(self) -> None:
        """End the threads that are idle, and the others once their handlers return."""
        self._workers.close()
        self._readers.close()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        arrived = time.monotonic()
        request = None
        try:
            try:
                request = self._gate.request_of(scope)
                body = await self._read(scope, receive)
            except Refused as refused:
                await self._reply(
                    send, _refusal(refused.error, request), refused.status, refused.headers
                )
                return
            if body is None:
                return
            request = msgspec.structs.replace(request, body=body)
            await self._handle(request, arrived, receive, send)
        except FanError as exc:
            await self._reply(send, _refusal(exc, request))
        except asyncio.CancelledError:
            # The stop's patience is over. uvicorn would answer 500 and print a traceback.
            closing = Unavailable("the server stopped", reason="connection_lost")
            await self._reply(send, _refusal(closing, request))

    async def _read(self, scope: dict[str, Any], receive: Receive) -> bytes | None:
        """The body, or None when the caller went away before it was all there."""
        declared = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
        if int(declared) > self._max_body:
            raise self._too_large()
        parts = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            if part := message.get("body", b""):
                parts.append(part)
                size += len(part)
                if size > self._max_body:
                    raise self._too_large()
            if not message.get("more_body"):
                return b"".join(parts)

    def _too_large(self) -> Refused:
        error = ResourceExhausted(
            f"the arguments are larger than {self._max_body} bytes", reason="payload_too_large"
        )
        # The rest of the body is not read, so the connection is of no more use.
        return Refused(error, 413, ((b"connection", b"close"),))

    async def _handle(self, request: Request, arrived: float, receive: Receive, send: Send) -> None:
        self.flying += 1  # first: who has it drain then sees this one, or this one that
        caller = _Caller(receive)
        try:
            if self.is_draining:
                raise Unavailable("the server is draining", reason="draining")
            answer = await self._ask(request, arrived, caller)
            if not request.caller and request.kind == "call" and _wants_stream(answer):
                request = msgspec.structs.replace(request, kind="stream")
                answer = await self._ask(request, arrived, caller)
            if isinstance(answer, Stream):
                caller.watch()
                await self._stream(request, answer, caller, send)
            else:
                status = 202 if request.kind == "push" and answer.code == "ok" else 0
                await self._reply(send, answer, status)
        finally:
            self.flying -= 1
            caller.release()

    async def _ask(self, request: Request, arrived: float, caller: _Caller) -> Response | Stream:
        """Run the handler in a thread. The future of an `async def` handler holds none."""
        if self._workers.queued > self._max_queued > 0:
            raise ResourceExhausted("too many requests wait for a thread", reason="bulkhead_full")

        has_begun = False

        def work(post: Post) -> None:
            nonlocal has_begun
            aged = _aged(request, arrived)
            has_begun = True
            answer: Any = self._handler(aged, is_cancelled=caller.has_left, peer="")
            if isinstance(answer, Response | Stream):
                post(answer)
            else:
                caller.on_leave = answer.cancel
                answer.add_done_callback(lambda done: post(*_outcome(done)))

        watching = asyncio.get_running_loop().call_later(WATCH_AFTER, caller.watch)
        left = arrived + _patience(request) - time.monotonic()
        try:
            answered: Response | Stream = await from_thread(self._workers, work, left, self._drop)
        except Overdue:
            raise _overdue(request, has_begun) from None
        except FanError:
            raise
        except Exception as exc:
            raise Internal(f"the handler failed: {exc!r}") from exc
        finally:
            watching.cancel()
        return answered

    async def _reply(
        self,
        send: Send,
        response: Response,
        status: int = 0,
        more: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        status, headers, body = wire.response_parts(response, status)
        headers += more
        if self.is_draining:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _stream(self, request: Request, stream: Stream, caller: _Caller, send: Send) -> None:
        """Send the chunks. The next is asked for when uvicorn has room, so a slow reader stops the
        generator; a failure before the first chunk is a plain error."""
        reading = _Reading(stream)
        try:
            chunk = await self._next(request, reading)
            if chunk is not None and chunk.kind == "end" and chunk.code != "ok":
                await self._reply(send, chunk)
                return
            headers = [(b"fan-code", b"ok"), (b"content-type", wire.NDJSON.encode())]
            if chunk is not None:
                headers += wire.response_headers(chunk)
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            while chunk is not None and not caller.has_left():
                is_end = chunk.kind == "end"
                line = wire.stream_line(chunk)
                await send({"type": "http.response.body", "body": line, "more_body": True})
                if is_end:
                    break
                chunk = await self._next(request, reading)
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._drop(reading)

    async def _next(self, request: Request, reading: _Reading) -> Response | None:
        """The next chunk, or an end that says that there was none in time."""
        try:
            chunk: Response | None = await from_thread(
                self._readers, lambda post: post(reading.next()), _patience(request)
            )
        except Overdue:
            end = _refusal(_overdue(request, has_begun=True), request)
            return msgspec.structs.replace(end, kind="end")
        return chunk

    def _drop(self, answer: Any) -> None:
        """End a stream that nobody reads."""
        if isinstance(answer, Stream | _Reading):
            with suppress(RuntimeError):  # the threads have ended
                self._readers.run(answer.close)


class _Reading:
    """A stream whose generator is closed by whoever leaves it last: Python closes none in which a
    thread is."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._is_over = False

    def next(self) -> Response | None:
        """The next chunk."""
        with self._lock:
            chunk = next(self._stream.chunks, None)
        if self._is_over:
            self.close()
        return chunk

    def close(self) -> None:
        """Close the generator, or have it closed once `next` is out of it."""
        self._is_over = True
        if self._lock.acquire(blocking=False):
            try:
                self._stream.close()
            finally:
                self._lock.release()


class _Caller:
    """Whoever waits for the answer, and whether they still do."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task: asyncio.Task[None] | None = None
        self._has_left = False
        #: Called once they have left.
        self.on_leave: Callable[[], Any] | None = None

    def has_left(self) -> bool:
        """Whether the connection is closed, as far as was seen; cheap, from any thread."""
        return self._has_left

    def watch(self) -> None:
        """Begin to watch the connection."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._has_left = True
        if self.on_leave is not None:
            self.on_leave()

    def release(self) -> None:
        """The answer is sent."""
        if self._task is not None:
            self._task.cancel()


def _aged(request: Request, arrived: float) -> Request:
    """The request, less the time that it waited for a thread. Raises DeadlineExceeded when that
    was all it had."""
    waited_ms = int((time.monotonic() - arrived) * 1000)
    if waited_ms >= request.timeout_ms:
        raise DeadlineExceeded(
            f"it waited {waited_ms} ms for a thread, of {request.timeout_ms}",
            reason="expired_in_queue",
        )
    if not waited_ms:
        return request
    return msgspec.structs.replace(request, timeout_ms=request.timeout_ms - waited_ms)


def _patience(request: Request) -> float:
    """Seconds after which a request is answered, whatever its handler does."""
    return request.timeout_ms / 1000 + (GRACE if request.caller else FOREIGN_GRACE)


def _overdue(request: Request, has_begun: bool) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"{request.service}.{request.method} did not end within {request.timeout_ms} ms",
        reason="server_timer" if has_begun else "expired_in_queue",
    )


def _outcome(done: Any) -> tuple[Any, BaseException | None]:
    if done.cancelled():
        return None, Unavailable("the handler was cancelled", reason="connection_lost")
    if (exc := done.exception()) is not None:
        return None, exc
    return done.result(), None


def _wants_stream(answer: Response | Stream) -> bool:
    """Whether the method streams: curl does not know, and does not ask for one."""
    return (
        isinstance(answer, Response)
        and answer.reason == "streaming_unsupported"
        and answer.executed == "no"
    )


def _refusal(error: FanError, request: Request | None) -> Response:
    return Response(
        id=request.id if request is not None else "",
        code=error.code,
        reason=error.reason,
        message=error.message,
        details=error.details,
        executed=error.executed,
        retry_after_ms=error.retry_after_ms,
    )
