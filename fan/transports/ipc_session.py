"""The serving side of one ipc connection.

A connection has a thread that reads. On an exclusive one, which is here, it also runs the handler
and answers; `ipc_session_shared` has the other kind.
"""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from fan import codec
from fan.errors import FanError
from fan.message import Request, Response
from fan.transports.base import Stream
from fan.transports.ipc_failures import too_large
from fan.transports.ipc_frames import (
    CANCEL,
    CHUNK,
    CREDIT,
    END,
    GOAWAY,
    HEADER,
    REQUEST,
    RESPONSE,
    WINDOW,
    Bytes,
    Garbage,
    Gone,
    Late,
    TooLong,
    Wire,
    credited,
    frame,
)
from fan.transports.ipc_spin import Receiver

if TYPE_CHECKING:
    from concurrent.futures import Future

    from fan.transports.ipc_server import UnixListener

# Bytes of answers that leave in one send.
_BATCH = 256 * 1024
_HUNG_UP = select.POLLRDHUP | select.POLLHUP | select.POLLERR


def refusal(
    id: str, exc: FanError, kind: Literal["reply", "end"] = "reply", seq: int = 0
) -> Response:
    """What the transport itself answers."""
    return Response(
        id=id,
        kind=kind,
        seq=seq,
        code=exc.code,
        reason=exc.reason,
        message=exc.message,
        executed=exc.executed,
    )


class Relieved(Exception):
    """Another thread reads this connection by now."""


class Session:
    """What both kinds of connection share. `active` holds the streams that are not answered yet."""

    def __init__(self, listener: UnixListener, wire: Wire, peer: str) -> None:
        self.listener = listener
        self.wire = wire
        self.peer = peer
        #: Stream id -> the future of an async handler, a `Call`, or None.
        self.active: dict[int, Any] = {}
        #: The last stream that was looked at; GOAWAY tells it.
        self.last = 0
        self.is_gone = False
        self.writing = threading.Lock()

    @property
    def is_idle(self) -> bool:
        """Whether every request is answered, and the answers have left."""
        return not self.active

    def run(self) -> bool:
        """Serve until the peer leaves or talks garbage; False when another thread reads on."""
        read, is_over = self.read, True
        try:
            while True:
                try:
                    kind, stream, payload = read(None)
                except TooLong as exc:
                    if exc.kind != REQUEST:
                        raise Garbage("a long frame that is no request") from exc
                    error = too_large("the request", exc.length, self.listener.max_body, "no")
                    self.send(RESPONSE, exc.stream, refusal("", error))
                    continue
                if kind == REQUEST:
                    self.accept(stream, payload)
                elif kind == CANCEL:
                    self.cancel(stream)
                elif kind != CREDIT:  # credit for a stream that ended is of no interest
                    raise Garbage(f"a frame of type {kind} from a client")
        except (Gone, Late, Garbage):
            pass
        except Relieved:
            is_over = False
        finally:
            if is_over:
                self.is_gone = True
                for stream in list(self.active):
                    self.cancel(stream)
        return is_over

    def read(self, deadline: float | None) -> tuple[int, int, Bytes]:
        """The next frame, as `Wire.read` gives it."""
        return self.wire.read(deadline)

    def accept(self, stream: int, payload: Bytes) -> None:
        """Take a request in: refuse it, or see to it that it runs."""
        # In this order, and `drain` in the other: it finds the stream here or is noticed below.
        self.active[stream] = None
        self.last = stream
        try:
            request = codec.unpack_request(payload)
        except FanError as exc:
            self.done(stream, RESPONSE, refusal("", exc))
            return
        if self.listener.is_draining:
            self.done(stream, RESPONSE, refusal(request.id, self.listener.draining()))
        else:
            self.serve(stream, request)

    def serve(self, stream: int, request: Request) -> None:
        """Run the handler and answer."""
        raise NotImplementedError

    def done(self, stream: int, kind: int, response: Response) -> None:
        """Answer a stream, the last word about it."""
        try:
            self.send(kind, stream, response)
        finally:
            self.active.pop(stream, None)
            if self.listener.is_draining:
                self.go_away()
                self.listener.notify()

    def encode(self, kind: int, stream: int, response: Response) -> bytes:
        """The frame of a response, or of the error that it cannot be sent."""
        limit = self.listener.max_body
        if len(response.body) > limit:
            error: FanError = too_large("the result", len(response.body), limit, "yes")
            return self._encode_error(kind, stream, response, error)
        try:
            payload = codec.pack(response)
        except Exception as exc:  # `details` hold whatever the application put there
            from fan.errors import Internal

            error = Internal(f"the answer cannot be sent: {exc}", reason="unserializable_result")
            return self._encode_error(kind, stream, response, error)
        return HEADER.pack(len(payload), kind, stream) + payload

    def _encode_error(self, kind: int, stream: int, response: Response, exc: FanError) -> bytes:
        is_part = kind in (CHUNK, END)
        error = refusal(response.id, exc, "end" if is_part else "reply", response.seq)
        return frame(END if is_part else kind, stream, codec.pack(error))

    def send(self, kind: int, stream: int, response: Response) -> None:
        """Send one response. Raises Gone or Late."""
        raise NotImplementedError

    def go_away(self) -> None:
        """Tell the client that nothing later than `last` will run. Never blocks."""
        raise NotImplementedError

    def cancel(self, stream: int) -> None:
        """The caller of a stream gave up."""
        call = self.active.get(stream)
        if call is not None:
            call.cancel()

    def hang_up(self) -> None:
        """End the connection from another thread; the one that reads closes it."""
        with suppress(OSError):
            self.wire.sock.shutdown(socket.SHUT_RDWR)


def response_of(id: str, future: Future[Response]) -> Response:
    """The answer of an async handler that is done."""
    if future.cancelled():
        return Response(id=id, code="cancelled", reason="caller_cancelled", executed="maybe")
    exc = future.exception()
    if exc is not None:
        return Response(id=id, code="internal", message=f"the handler broke: {exc}")
    return future.result()


class ExclusiveSession(Session):
    """One call at a time."""

    def __init__(self, listener: UnixListener, wire: Wire, peer: str) -> None:
        super().__init__(listener, wire, peer)
        wire.spin = Receiver("request")
        self._probe = self.is_cancelled
        self._poll: select.poll | None = None

    def serve(self, stream: int, request: Request) -> None:
        answer = self.listener.call(request, self._probe, self.peer)
        if isinstance(answer, Response):
            self.done(stream, RESPONSE, answer)
        elif isinstance(answer, Stream):
            if request.kind == "stream":
                self._stream(stream, answer)
            else:
                answer.close()
                self.done(stream, RESPONSE, not_a_call(request))
        else:
            self.active[stream] = answer
            answer.add_done_callback(lambda future: self._answered(stream, request.id, future))

    def is_cancelled(self) -> bool:
        """Whether the caller hung up or sent CANCEL; looks at the socket when somebody asks."""
        if self.is_gone:
            return True
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self.wire.sock.fileno(), select.POLLIN | select.POLLRDHUP)
        events = self._poll.poll(0)
        if not events and not self.wire.pending():
            return False
        return bool(events and events[0][1] & _HUNG_UP) or self.wire.peeked() == CANCEL

    def send(self, kind: int, stream: int, response: Response) -> None:
        data = self.encode(kind, stream, response)
        with self.writing:
            self.wire.write(data, None)

    def go_away(self) -> None:
        if self.writing.acquire(blocking=False):  # else whoever writes now does it afterwards
            try:
                self.wire.write_some(frame(GOAWAY, self.last))
            except Gone:
                pass
            finally:
                self.writing.release()

    def _answered(self, stream: int, id: str, future: Future[Response]) -> None:
        # On the thread of the event loop, which a peer that does not read must not hold up.
        response = response_of(id, future)
        if len(response.body) > _BATCH:
            self.listener.workers.run(self._finish, stream, response)
        else:
            self._finish(stream, response)

    def _finish(self, stream: int, response: Response) -> None:
        try:
            self.done(stream, RESPONSE, response)
        except (Gone, Late):
            self.hang_up()

    def _stream(self, stream: int, answer: Stream) -> None:
        credit = WINDOW
        try:
            for response in answer.chunks:
                if response.kind == "end":
                    self.done(stream, END, response)
                    return
                if len(response.body) > self.listener.max_body:
                    self.done(stream, CHUNK, response)
                    return
                self.send(CHUNK, stream, response)
                credit -= 1
                while credit <= 0:
                    credit += self._wait_credit(stream)
        except _Cancelled:
            end = Response(id="", kind="end", code="cancelled", reason="caller_cancelled")
            self.done(stream, END, end)
        finally:
            answer.close()
            self.active.pop(stream, None)
            if self.listener.is_draining:
                self.listener.notify()

    def _wait_credit(self, stream: int) -> int:
        kind, number, payload = self.wire.read(None)
        if kind == CREDIT:
            return credited(payload) if number == stream else 0
        if kind == CANCEL and number == stream:
            raise _Cancelled
        raise Garbage(f"a frame of type {kind} in the middle of a stream")


class _Cancelled(Exception):
    """The reader of a stream sent CANCEL."""


def not_a_call(request: Request) -> Response:
    """The answer to a plain call of a method that streams, or a stream on a shared connection."""
    return Response(
        id=request.id,
        code="unimplemented",
        reason="streaming_unsupported",
        message=f"{request.service}.{request.method} answers with a stream; ask for one",
        executed="no",
    )
