"""The http transport: JSON over HTTP/1.1, which curl can speak as well.

`http_wire` is what it looks like, `http_client` and `http_proxy` send, `http_server` answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from fan.errors import (
    NO,
    Cancelled,
    DeadlineExceeded,
    FanError,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)
from fan.message import MAX_BODY, Request, Response
from fan.model import Address
from fan.transports import http_wire as wire
from fan.transports.base import Handler, Listener, Transport, deadline_of
from fan.transports.http_client import Link, Links, Reply, lost

if TYPE_CHECKING:
    from concurrent.futures import Future

    from fan.settings import Settings
    from fan.transports.http_proxy import Proxied
    from fan.transports.http_waiting import Waiting
    from fan.transports.http_workers import Workers

#: Calls of asyncio callers that are on their way at once; more wait for one to end.
CONCURRENT_SUBMITS = 128


class HttpTransport(Transport):
    """Calls over kept HTTP/1.1 connections; a deadline covers all of a call.

    Plain addresses and https (with the authorities that OpenSSL trusts: `SSL_CERT_FILE` names
    others) use our own connections; where the environment names a proxy for an address, httpx
    sends."""

    scheme: ClassVar[str] = "http"
    can: ClassVar[frozenset[str]] = frozenset({"call", "push", "stream", "cancel", "serve"})
    submits: ClassVar[frozenset[str]] = frozenset({"call", "push"})

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings
        self._max_body = settings.max_body if settings is not None else MAX_BODY
        self._links = Links()
        self._workers: Workers | None = None
        self._waiting: Waiting | None = None
        self._proxied: Proxied | None = None

    def __repr__(self) -> str:
        return f"<HttpTransport {self._links!r}>"

    def call(
        self, address: Address, request: Request, *, marks: dict[str, float] | None = None
    ) -> Response:
        """Send and wait, in the calling thread, on a connection of its own."""
        return self._call(address, request, deadline_of(request), Flight(marks))

    def send(self, address: Address, request: Request) -> Response:
        """Push: the server answers once it has accepted it."""
        return self._call(address, request, deadline_of(request), Flight())

    def _call(
        self, address: Address, request: Request, deadline: float, flight: Flight
    ) -> Response:
        if address.form is not None:
            return self._call_foreign(address, request, deadline, flight)
        self._check_size(request)
        origin = wire.origin_of(address)
        head = wire.request_head(origin, request)
        return self._exchange(origin, head, request, deadline, flight)

    def _call_foreign(
        self, address: Address, request: Request, deadline: float, flight: Flight
    ) -> Response:
        """Call a server that knows nothing of fan, in the form that its methods have."""
        from fan.transports import http_foreign as foreign

        assert address.form is not None
        origin = wire.origin_of(address)
        head, request = foreign.written(origin, address.form, request)
        self._check_size(request)
        return foreign.read(self._exchange(origin, head, request, deadline, flight))

    def _exchange(
        self, origin: wire.Origin, head: bytes, request: Request, deadline: float, flight: Flight
    ) -> Response:
        if (proxied := self._proxy_for(origin)) is not None:
            return proxied.call(origin, head, request, deadline)
        link = None
        try:
            link, reply = self._begin(origin, head, request.body, deadline, flight)
            while not reply.is_complete:
                reply.feed(link.receive(deadline))
            response = wire.response_of(request, reply.status, reply.headers, reply.take())
        except TimeoutError:
            flight.end(link)
            raise _too_late(request, flight) from None
        except FanError as exc:
            flight.end(link)
            raise flight.cause(exc) from None
        except BaseException:
            flight.end(link)
            raise
        self._finish(origin, link, reply, flight)
        return response

    def _begin(
        self, origin: wire.Origin, head: bytes, body: bytes, deadline: float, flight: Flight
    ) -> tuple[Link, Reply]:
        """Send on a kept connection or a new one, and read until the head of the reply is there.

        A kept connection that the server closed meanwhile refuses what is sent: nothing was
        executed then, and a new one is tried. Once all was sent, nobody can tell, and nothing is
        repeated."""
        link = self._links.take(origin)
        is_fresh = link is None
        while True:
            if link is None:
                link = self._links.connect(origin, deadline)
            flight.use(link, "connected")
            reply = Reply(self._max_body)
            if time.monotonic() >= deadline:
                raise TimeoutError  # here, where nothing was sent
            try:
                link.send(head, body, deadline)
            except TimeoutError:
                flight.mark("sent")
                raise
            except OSError as exc:
                if _answered_early(link, reply, deadline):
                    return link, reply
                link.close()
                if is_fresh:
                    raise Unavailable(
                        f"{origin.authority} closed the connection before all was sent",
                        reason="connection_lost",
                        executed=NO,
                    ) from exc
                link, is_fresh = None, True
                continue
            flight.mark("sent")
            while not reply.has_head:
                reply.feed(link.receive(deadline))
            return link, reply

    def _finish(self, origin: wire.Origin, link: Link, reply: Reply, flight: Flight) -> None:
        if flight.release() and reply.is_reusable:
            self._links.give(origin, link)
        else:
            link.close()

    def submit(self, address: Address, request: Request) -> Future[Response]:
        """Send from a thread of a bounded pool. Cancelling the future closes the connection, and
        that is how the server learns of it."""
        from concurrent.futures import Future

        from fan.transports.http_waiting import Place

        future: Future[Response] = Future()
        flight = Flight()
        deadline = deadline_of(request)
        place = Place(lambda: _settle(future.set_exception, self._unsent(request, flight)))

        def run() -> None:
            # The future stays pending, for a running one cannot be cancelled.
            if not place.claim() or future.cancelled():
                return
            try:
                response = self._call(address, request, deadline, flight)
            except BaseException as exc:
                _settle(future.set_exception, exc)
            else:
                _settle(future.set_result, response)

        future.add_done_callback(lambda f: flight.cancel() if f.cancelled() else None)
        try:
            if not self._pool().run(run):
                self._watch().add(deadline, place)
        except RuntimeError:
            _settle(future.set_exception, self._unsent(request, flight))
        return future

    def _watch(self) -> Waiting:
        if self._waiting is None:
            from fan.transports.http_waiting import Waiting

            # Of two threads that come here at once one has its clock for itself, which ends.
            self._waiting = Waiting()
        return self._waiting

    def _unsent(self, request: Request, flight: Flight) -> FanError:
        if self._links.is_closed:
            return Unavailable("the http transport is closed", reason="connect_failed")
        return _too_late(request, flight)

    def _pool(self) -> Workers:
        if self._workers is None:
            from fan.transports.http_workers import Workers

            # Two threads that come here at once make two pools, of which one stays empty.
            self._workers = Workers(CONCURRENT_SUBMITS, "fan-http-call")
        return self._workers

    def stream(self, address: Address, request: Request) -> Iterator[Response]:
        """Chunks and the end, line by line. Closing the iterator closes the connection."""
        return self._stream(address, request)

    def _stream(self, address: Address, request: Request) -> Iterator[Response]:
        origin = wire.origin_of(address)
        self._check_size(request)
        head = wire.request_head(origin, request)
        if self._proxy_for(origin) is not None:
            raise Unimplemented(
                f"a stream from {origin.authority} would go through a proxy, which holds it up:"
                " name the host in NO_PROXY",
                reason="streaming_unsupported",
            )
        flight = Flight()
        link = None
        try:
            link, reply = self._begin(origin, head, request.body, deadline_of(request), flight)
            if _is_stream(reply):
                yield from self._chunks(link, reply, request)
            else:
                deadline = deadline_of(request)
                while not reply.is_complete:
                    reply.feed(link.receive(deadline))
                found = wire.response_of(request, reply.status, reply.headers, reply.take())
                yield _as_end(found)
        except TimeoutError:
            flight.end(link)
            raise _too_late(request, flight) from None
        except BaseException:
            flight.end(link)
            raise
        self._finish(origin, link, reply, flight)

    def _chunks(self, link: Link, reply: Reply, request: Request) -> Iterator[Response]:
        link.narrow()
        common = wire.stream_fields(request, reply.headers)
        rest = b""
        seq = 0
        idle = deadline_of(request)
        while True:
            *lines, rest = (rest + reply.take()).split(b"\n")
            # The limit is for one item, not for all of a stream that may last for days.
            reply.size = len(rest)
            for line in lines:
                chunk = wire.chunk_of(line, common, seq)
                if chunk.kind == "end":
                    _read_out(link, reply, idle)
                    yield chunk
                    return
                yield chunk
                seq += 1
                idle = deadline_of(request)
            if reply.is_complete:
                raise lost()
            reply.feed(link.receive(idle))

    def _check_size(self, request: Request) -> None:
        if len(request.body) > self._max_body:
            raise ResourceExhausted(
                f"the arguments have {len(request.body)} bytes: at most {self._max_body} can go",
                reason="payload_too_large",
            )

    def _proxy_for(self, origin: wire.Origin) -> Proxied | None:
        if self._proxied is None:
            from fan.transports.http_proxy import Proxied

            self._proxied = Proxied(self._max_body)
        return self._proxied if self._proxied.is_for(origin) else None

    def serve(self, bind: str, handler: Handler) -> Listener:
        """Answer on `HOST:PORT`; empty is a free port of 127.0.0.1."""
        from fan.transports.http_server import HttpListener

        return HttpListener(bind, handler, self._settings)

    def close(self) -> None:
        """Close the connections; threads end once their calls have. Twice does no harm."""
        self._links.close()
        if self._waiting is not None:
            self._waiting.close()
        if self._workers is not None:
            self._workers.close(1.0)
        if self._proxied is not None:
            self._proxied.close()

    def abandon(self) -> None:
        """Drop our copies of the parent's connections."""
        self._links.close()


class Flight:
    """One exchange as seen by whoever cancels or times it."""

    def __init__(self, marks: dict[str, float] | None = None) -> None:
        self._marks = marks
        self._link: Link | None = None
        self.was_sent = False
        self.is_cancelled = False

    def use(self, link: Link, mark: str) -> None:
        """The exchange is on `link` now. Raises Cancelled when it was given up meanwhile."""
        self._link = link
        self.mark(mark)
        if self.is_cancelled:
            raise Cancelled("the call was cancelled", reason="caller_cancelled", executed=NO)

    def mark(self, name: str) -> None:
        """Note the time of a step."""
        self.was_sent |= name == "sent"
        if self._marks is not None:
            self._marks[name] = time.monotonic()

    def cancel(self) -> None:
        """Give up, from another thread."""
        self.is_cancelled = True
        if (link := self._link) is not None:
            link.abort()

    def release(self) -> bool:
        """The exchange is over; False when its connection was cut by `cancel`."""
        self._link = None
        return not self.is_cancelled

    def end(self, link: Link | None) -> None:
        """The exchange failed: close its connection, whichever it is on."""
        for each in (link, self._link):
            if each is not None:
                each.close()
        self._link = None

    def cause(self, exc: FanError) -> FanError:
        """What to raise: cutting the connection looks like a loss of it."""
        if self.is_cancelled:
            return Cancelled("the call was cancelled", reason="caller_cancelled")
        return exc


def _too_late(request: Request, flight: Flight) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"no reply within {request.timeout_ms} ms",
        reason="client_timer",
        executed=None if flight.was_sent else NO,
    )


def _answered_early(link: Link, reply: Reply, deadline: float) -> bool:
    """Whether the server answered without reading all of the request, as for a too large one."""
    try:
        while not reply.has_head:
            reply.feed(link.receive(deadline))
    except (FanError, TimeoutError):
        return False
    return True


def _read_out(link: Link, reply: Reply, deadline: float) -> None:
    """Read what follows the end line, so that the connection can be used again."""
    while not reply.is_complete:
        reply.feed(link.receive(deadline))


def _is_stream(reply: Reply) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(wire.NDJSON.encode())
        for name, value in reply.headers
    )


def _as_end(response: Response) -> Response:
    """An error instead of a stream."""
    import msgspec

    if response.code == "ok":
        raise wire.malformed("a stream was asked for, and the answer is none")
    return msgspec.structs.replace(response, kind="end")


def _settle(settle: Callable[[Any], None], value: Any) -> None:
    from concurrent.futures import InvalidStateError

    with suppress(InvalidStateError):  # cancelled meanwhile: nobody waits for it
        settle(value)
