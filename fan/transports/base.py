"""The contract of a transport: carries a request to an address, and a response back.

A transport knows nothing of services, routes, retries or breakers.
`fan.testing.contracts.TransportContract` holds what is said here against an implementation.
"""

from __future__ import annotations

import builtins
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

import msgspec

from fan.errors import NO, FailedPrecondition, Unimplemented
from fan.message import MAX_TIMEOUT, Request, Response
from fan.model import Address, Letter, Queue, QueueName

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


#: What a transport is called with by a Handler.
Overdue = Callable[[Response], None]


class Handler(Protocol):
    """The server side above a transport (`dispatch.Dispatcher`). Thread-safe; never raises.

    It blocks while a plain method runs, so a transport calls it in a thread that may block. A push
    is to a transport a request like any other: the handler checks it, sees to it that it runs (a
    drain waits for it), and answers at once whether it is accepted, which the caller is told. One
    that `is_queued` is safe in a queue until it was handled: it is handled now, like an event, and
    the answer says how that went. Where its handler does not come back in the time of a delivery,
    `on_overdue` is called with the answer that counts then, and the one that is given in the end
    counts for nothing. It must not wait, and is not called any more once there is an answer.
    `is_cancelled` says whether the caller gave up, where the transport can know it cheaply; `peer`
    is the authenticated name of the peer ("uid:1000"), empty when nobody vouches for it:
    `principal` is dropped then."""

    def __call__(
        self,
        request: Request,
        *,
        is_cancelled: Callable[[], bool] | None = None,
        peer: str = "",
        is_queued: bool = False,
        on_overdue: Overdue | None = None,
    ) -> Response | Future[Response] | Stream: ...


class Served(msgspec.Struct, frozen=True):
    """One instance that is up, as a transport over a broker has to know it: its queues carry these
    names."""

    service: str
    version: str
    instance: str
    #: Methods that may run twice: a call of them is acknowledged after the reply, others before.
    idempotent: frozenset[str] = frozenset()
    #: Whether the route gives its version traffic. Only then it takes the service's pushes, and
    #: calls that name no version.
    is_routed: bool = True


class Subscription(msgspec.Struct, frozen=True):
    """Who wants to hear of a topic. Each event goes to one member of a `group`; the group keeps
    what comes while no member is there, from its first subscription on. Without a group every
    subscriber gets what comes while it is there. `service` and `method` are put into the requests
    that its handler gets."""

    topic: str
    group: str = ""
    service: str = ""
    method: str = ""


class Listener(ABC):
    """A running server side of a transport."""

    #: Where it is reached, as it is registered, without credentials.
    address: Address

    def update(self, served: Sequence[Served]) -> None:
        """Take what is meant for these instances, and for no others, from now on. Whoever is
        reached at an address of its own needs no telling. Raises what keeps the broker from being
        reached: it is called again until it went through."""
        return

    @property
    def is_idle(self) -> bool:
        """Whether nothing that was accepted is still to be answered. A broker keeps what was not
        begun, and a listener over one is always idle."""
        return True

    @abstractmethod
    def drain(self) -> None:
        """Refuse new requests (unavailable/draining, or GOAWAY) and go on answering those in
        flight. Returns at once."""

    @abstractmethod
    def close(self, timeout: float = 5.0) -> None:
        """Stop: wait at most `timeout` seconds for what is in flight, then drop it (or give it
        back to its queue), release every thread, socket and file. Twice does no harm."""

    def abandon(self) -> None:  # noqa: B027  nothing is inherited where there are no sockets
        """In a forked child, where the parent's threads are not there and its locks may be held:
        let go of the sockets that were inherited, so that nobody connects to a server that is gone
        because its child holds the place. It is not used again."""


class Queues(ABC):
    """A broker's queues, for who looks after them. Every method takes `deadline`, a point of
    `time.monotonic()`, and raises NotFound (no_such_queue) for a queue that was never made,
    Unavailable and DeadlineExceeded."""

    @abstractmethod
    def list(self, names: Sequence[QueueName], *, deadline: float) -> list[Queue]:
        """Those of `names` that exist, and the others that the broker knows of fan, by name."""

    @abstractmethod
    def letters(
        self, name: QueueName, *, dead: bool = False, limit: int = 100, deadline: float
    ) -> builtins.list[Letter]:
        """The first messages that wait in a queue, or its dead letters; they stay where they
        are."""

    @abstractmethod
    def requeue(self, name: QueueName, numbers: Sequence[str] = (), *, deadline: float) -> int:
        """Put dead letters (those `numbers`, or all) back to be delivered anew, and say how
        many. None of them is lost where it fails in the middle."""

    @abstractmethod
    def purge(self, name: QueueName, *, dead: bool = False, deadline: float) -> int:
        """Throw away what waits in a queue, or its dead letters, and say how many."""

    @abstractmethod
    def delete(self, name: QueueName, *, deadline: float) -> int:
        """End a queue with its dead letters, and say how many messages went with it: a group hears
        of its topic no more. Raises FailedPrecondition (queue_in_use) while somebody takes from
        it. A push to the service, or a subscriber of the group, makes it anew."""


def queue_in_use(name: QueueName, where: str, consumers: int) -> FailedPrecondition:
    """The error for a queue that is to end while somebody takes from it."""
    return FailedPrecondition(
        f"{consumers} still take from {name} at {where}: stop them before it is deleted",
        reason="queue_in_use",
        executed=NO,
        details={"queue": str(name), "consumers": consumers},
    )


class Ledger(ABC):
    """What remembers the answers of idempotency keys for all processes that share a broker, for
    `@rpc(dedupe='shared')`. Raises Unavailable and DeadlineExceeded."""

    @abstractmethod
    def claim(self, key: str, holder: str, *, ttl: float, deadline: float) -> bytes | None:
        """The answer kept under `key`; b"" where there is none and `holder` may go and make it
        within `ttl` seconds; None while another holder is about to."""

    @abstractmethod
    def settle(
        self, key: str, holder: str, answer: bytes | None, *, ttl: float, deadline: float
    ) -> None:
        """Keep the answer for `ttl` seconds and end the holder's claim; None ends the claim alone.
        A claim that is another's by now stays as it is."""


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
    #: Abilities: call, push, stream, subscribe, cancel, serve, queue (it has `queues`), ledger.
    can: ClassVar[frozenset[str]] = frozenset({"call"})
    #: Kinds of request that `submit` takes. For what is in `can` and not here, a coroutine calls
    #: `send` or `publish` in a thread.
    submits: ClassVar[frozenset[str]] = frozenset({"call"})
    #: Whether an address is that of a broker, behind which all instances of a version take turns.
    #: A call then carries in `want` the exact version that was chosen, and an `instance` only where
    #: the caller asks for that one.
    is_shared: ClassVar[bool] = False

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

    def acall(self, address: Address, request: Request) -> Awaitable[Response] | None:
        """`call` for a task of the running event loop, where the transport has a shorter way for it
        than `submit`, say I/O on that loop; None where it has none. Cancelling the task tells the
        callee where the transport can."""
        return None

    def send(self, address: Address, request: Request) -> Response:
        """Push: return when the callee (or the broker) has accepted it, before it is handled.
        A Response with a code other than "ok" is a refusal."""
        raise Unimplemented(f"{self.scheme} cannot push", reason="unknown_method")

    def stream(self, address: Address, request: Request) -> Iterator[Response]:
        """Yield the chunks of a streamed answer and its end, as `Stream.chunks` does on the other
        side. The request's deadline covers the first item, and is the idle limit between the rest.
        Closing the iterator closes the callee's generator."""
        raise Unimplemented(f"{self.scheme} cannot stream", reason="streaming_unsupported")

    def home(self) -> Address:
        """The broker that the settings name, without credentials: where events go, and pushes to a
        service that is down."""
        raise Unimplemented(f"{self.scheme} has no broker", reason="unknown_method")

    def publish(self, address: Address, request: Request) -> Response:
        """Tell an event to all who subscribed to `request.topic`; return once it is accepted.
        Nobody listening is no failure: the `details` of the answer are {"groups": N} where the
        broker knows how many groups and subscribers got it."""
        raise Unimplemented(f"{self.scheme} carries no events", reason="unknown_method")

    def subscribe(
        self, address: Address, subscription: Subscription, handler: Handler
    ) -> Listener:
        """Hand the events of a topic to `handler`, with `is_queued`; returns once what is published
        from now on arrives. An event that could not be handled is delivered again, five times in
        all by default, then it is a dead letter. Closing the listener ends the subscription; a
        group's messages stay for its other members."""
        raise Unimplemented(f"{self.scheme} carries no events", reason="unknown_method")

    def queues(self, address: Address) -> Queues:
        """The queues at an address, for who looks after them."""
        raise Unimplemented(f"{self.scheme} has no queues", reason="unknown_method")

    def ledger(self) -> Ledger:
        """What remembers answers for all processes that share the broker of `home`."""
        raise Unimplemented(f"{self.scheme} keeps no answers", reason="unknown_method")

    def serve(self, bind: str, handler: Handler) -> Listener:
        """Start answering. `bind` is what follows `--transport SCHEME=`, empty for the default
        place. A transport over a broker takes nothing from it before `Listener.update`. Raises
        InvalidArgument for a place that cannot be understood, AlreadyExists or Unavailable for one
        that cannot be had."""
        raise Unimplemented(f"{self.scheme} cannot serve", reason="unknown_method")

    @abstractmethod
    def close(self) -> None:
        """Release every connection and thread. Twice does no harm."""

    def abandon(self) -> None:  # noqa: B027  nothing is inherited where there are no connections
        """In a forked child, where the parent's threads are not there and its locks may be held:
        let go of the connections that were inherited, so that the peers do not notice. It is not
        used again."""


def is_refusal(answer: Response) -> bool:
    """Whether a queued message was not tried at all: there is no room for it here now, or a part of
    what it takes is away. It goes back, to be offered again, and this was no delivery."""
    if answer.executed != "no":
        return False
    if answer.code == "resource_exhausted":
        return answer.reason != "payload_too_large"
    return answer.code == "unavailable"


def deadline_of(request: Request) -> float:
    """The point of `time.monotonic()` at which `request`, sent now, is over."""
    return time.monotonic() + min(request.timeout_ms / 1000, MAX_TIMEOUT)
