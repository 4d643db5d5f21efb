"""The contract of a transport: carries a request to an address, and a response back.

A transport knows nothing of services, routes, retries or breakers.
`fan.testing.contracts.TransportContract` holds what is said here against an implementation.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, ClassVar, Protocol

import msgspec

from fan.errors import Unimplemented
from fan.message import Request, Response
from fan.model import Address

if TYPE_CHECKING:
    from concurrent.futures import Future


class Stream(msgspec.Struct):
    """A streamed answer on its way out: `chunks` yields Responses of kind "chunk" and then exactly
    one "end" (with a code other than "ok" when the generator failed). It never raises. `close()`
    ends the generator early; a transport calls it when the reader goes away. Credit: a transport
    asks for the next chunk only when the reader has room, so a slow reader stops the generator."""

    chunks: Iterator[Response]
    close: Callable[[], None]


#: What a handler gives back: an answer, the future of one (an `async def` handler), or a stream.
Answer = "Response | Future[Response] | Stream"


class Handler(Protocol):
    """The server side above a transport (`dispatch.Dispatcher`). Thread-safe; never raises.

    It blocks while a plain method runs, so a transport calls it in a thread that may block. A push
    is to a transport a request like any other: the handler checks it, sees to it that it runs (a
    drain waits for it), and answers at once whether it is accepted, which the caller is told.
    `is_cancelled` says whether the caller gave up, where the transport can know it cheaply; `peer`
    is the authenticated name of the peer ("uid:1000"), empty when nobody vouches for it:
    `principal` is dropped then."""

    def __call__(
        self,
        request: Request,
        *,
        is_cancelled: Callable[[], bool] | None = None,
        peer: str = "",
    ) -> Response | Future[Response] | Stream: ...


class Listener(ABC):
    """A running server side of a transport."""

    #: Where it is reached, as it is registered.
    address: Address

    @abstractmethod
    def drain(self) -> None:
        """Refuse new requests (unavailable/draining, or GOAWAY) and go on answering those in
        flight. Returns at once."""

    @abstractmethod
    def close(self, timeout: float = 5.0) -> None:
        """Stop: wait at most `timeout` seconds for what is in flight, then drop it, release every
        thread, socket and file. Twice does no harm."""


class Transport(ABC):
    """One way to carry requests. Created lazily, one per App and process; thread-safe.

    Every method that sends raises only `FanError`: Unavailable (connect_failed: not executed;
    connection_lost: maybe), DeadlineExceeded (client_timer, executed maybe once something was sent,
    no before), Internal (malformed_reply), InvalidArgument, ResourceExhausted (payload_too_large).
    An error that the callee answered is a Response with a code other than "ok", not an exception.

    The deadline of a request is `request.timeout_ms` from the moment of the call: connect, send,
    wait and a reply that drips in byte by byte all fall under it, within 50 ms.
    """

    scheme: ClassVar[str]
    #: Abilities: call, push, stream, subscribe, cancel, serve.
    can: ClassVar[frozenset[str]] = frozenset({"call"})

    @abstractmethod
    def call(
        self, address: Address, request: Request, *, marks: dict[str, float] | None = None
    ) -> Response:
        """Send and wait, in the calling thread. Safe from many threads at once. Where `marks` is
        given, the points of `time.monotonic()` at which it was "connected" and "sent" are written
        into it."""

    @abstractmethod
    def submit(self, address: Address, request: Request) -> Future[Response]:
        """Send and return at once; never blocks on the network (it is called on an event loop).
        Cancelling the future tells the callee where the transport can (`cancel`)."""

    def send(self, address: Address, request: Request) -> Response:
        """Push: return when the callee (or the broker) has accepted it, before it is handled.
        A Response with a code other than "ok" is a refusal."""
        raise Unimplemented(f"{self.scheme} cannot push", reason="unknown_method")

    def stream(self, address: Address, request: Request) -> Iterator[Response]:
        """Yield the chunks of a streamed answer and its end, as `Stream.chunks` does on the other
        side. The request's deadline covers the first item, and is the idle limit between the rest.
        Closing the iterator closes the callee's generator."""
        raise Unimplemented(f"{self.scheme} cannot stream", reason="streaming_unsupported")

    def serve(self, bind: str, handler: Handler) -> Listener:
        """Start answering. `bind` is what follows `--transport SCHEME=`, empty for the default
        place. Raises InvalidArgument for a place that cannot be understood, AlreadyExists or
        Unavailable for one that cannot be had."""
        raise Unimplemented(f"{self.scheme} cannot serve", reason="unknown_method")

    @abstractmethod
    def close(self) -> None:
        """Release every connection and thread. Twice does no harm."""

    def abandon(self) -> None:  # noqa: B027  nothing is inherited where there are no connections
        """In a forked child, where the parent's threads are not there and its locks may be held:
        let go of the connections that were inherited, so that the peers do not notice. It is not
        used again."""


def deadline_of(request: Request) -> float:
    """The point of `time.monotonic()` at which `request`, sent now, is over."""
    return time.monotonic() + request.timeout_ms / 1000
