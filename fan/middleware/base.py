"""The contract of a middleware: a layer around a call, on the caller's side, the server's, or both.

A layer is a generator, so that one text serves sync and async callers: it does its part, hands on
with `return (yield from next(call))`, and sees the outcome as a value or a FanError. What must wait
or touch the network is *yielded* as a step (`Sleep`, `Read`, `Send`, `Invoke`), and the driver
(sync or async) carries it out. A layer that only looks before it hands on is a plain function that
ends in `return next(call)`: it costs no generator of its own.

The order of the layers is part of fan's contract and stands in `plugins.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import msgspec

from fan.codec import check_baggage, user_headers
from fan.context import Context
from fan.errors import InvalidArgument
from fan.message import MAX_TIMEOUT, Request, Response
from fan.model import Address, Instance

if TYPE_CHECKING:
    from fan.transports.base import Transport


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a call is made, apart from its arguments. None and empty mean: as usual.

    `timeout` is seconds; `retries` the attempts after the first; `transport` a scheme; `peers` URLs
    that are called without asking the registry; `instance` an instance id; `want` a version
    constraint. `retry_delay` is the pause before each retry in seconds: who names it, or
    `retries_all`, which tries again whatever failed, spends no retry budget. Without `breaker`
    an instance that keeps failing is called all the same.
    """

    timeout: float | None = None
    want: str = ""
    transport: str = ""
    peers: tuple[str, ...] = ()
    instance: str = ""
    shard: str = ""
    sticky: str = ""
    headers: dict[str, str] = {}
    baggage: dict[str, str] = {}
    caller: str = ""
    principal: str = ""
    key: str = ""
    retries: int | None = None
    retry_delay: float | None = None
    retries_all: bool = False
    breaker: bool = True
    ttl: float | None = None

    def __post_init__(self) -> None:
        """Names of headers get lower case. Raises InvalidArgument for a time that is none, and for
        headers and baggage that cannot be sent."""
        times = (("timeout", self.timeout), ("ttl", self.ttl), ("retry_delay", self.retry_delay))
        for name, value in times:
            if value is not None and not (type(value) in (int, float) and value == value):
                raise InvalidArgument(f"{name} is {value!r}: it has to be a number of seconds")
        if self.headers:
            msgspec.structs.force_setattr(self, "headers", user_headers(self.headers))
        if self.baggage:
            check_baggage(self.baggage)

    def seconds(self, default: float) -> float:
        """The time of a call, `default` where these do not say; 0 is no time at all."""
        timeout = self.timeout
        return min(default if timeout is None else timeout, MAX_TIMEOUT)


class Call(msgspec.Struct, kw_only=True):
    """One logical call on the caller's side, over all its attempts."""

    service: str
    method: str
    kind: str = "call"
    #: What an event is about; service and method are empty then.
    topic: str = ""
    options: Options
    #: Encoded once, before the first attempt.
    body: bytes = b""
    content_type: str = ""
    id: str = ""
    key: str = ""
    #: Point of `time.monotonic()`.
    deadline: float = 0.0
    is_idempotent: bool = False
    #: The context that it is made from, None at the root of a call tree.
    parent: Context | None = None
    traceparent: str = ""
    attempt: int = 0
    gen: int = 0
    #: Service and version constraint as they were asked for, where the route names another service.
    asked: tuple[str, str] | None = None
    #: Its shard key, where the route says how the service is sharded.
    shard: str = ""
    #: Chosen for this attempt.
    version: str = ""
    instance: Instance | None = None
    address: Address | None = None
    transport: Transport | None = None
    marks: dict[str, float] | None = None
    #: What was known of the service when it began (`picker.Table`).
    table: Any = None
    #: Instance id in the caller's own App, for what is called there.
    hosted: str = ""
    #: What its policy has differ from the settings, as `policies.Overrides`.
    policy: tuple[tuple[str, Any], ...] = ()
    #: The rest of an opened stream.
    chunks: Any = None
    #: Instances that failed an earlier attempt; picked again only when there is nobody else.
    tried: set[str] = msgspec.field(default_factory=set)

    @property
    def is_entry(self) -> bool:
        """Whether it begins a call tree: who pinned the generation may pin a newer one."""
        return self.parent is None or not self.parent.gen

    def unpin(self) -> None:
        """Let the next attempt go by the routes that are in force then."""
        self.gen = 0
        if self.asked is not None:
            self.service, want = self.asked
            self.options = msgspec.structs.replace(self.options, want=want)
            self.asked = None

    @property
    def target(self) -> str:
        """`service.method`, or the topic, for messages."""
        return self.topic or f"{self.service}.{self.method}"


class Inbound(msgspec.Struct, kw_only=True):
    """One request on the server's side."""

    request: Request
    context: Context
    peer: str = ""
    is_idempotent: bool = False
    #: `memory`, or `shared` as of `@rpc(dedupe='shared')`.
    dedupe: str = "memory"
    #: Whether a queue keeps it until it was handled: then nobody waits for its being accepted.
    is_queued: bool = False
    #: The dispatcher's own.
    exchange: Any = None


class Sleep(msgspec.Struct, frozen=True):
    """Step: wait that many seconds, then go on (the value is None)."""

    seconds: float


class Read(msgspec.Struct, frozen=True):
    """Step: run what may wait for the registry, where nobody else has to wait for it as well; the
    value is what it returns."""

    run: Callable[[], Any]


class Send(msgspec.Struct, frozen=True):
    """Step: carry `request` to `address`; the value is the Response (for a stream, an opened
    one)."""

    transport: Any
    address: Address
    request: Request
    #: Where the transport writes when it was "connected" and "sent".
    marks: dict[str, float] | None = None


class Invoke(msgspec.Struct, frozen=True):
    """Step: run the handler, as the dispatcher knows how; the value is its Response."""


#: What a layer is: a generator of steps that returns the Response.
Steps = Generator[Any, Any, Response]
CallNext = Callable[[Call], Steps]
InboundNext = Callable[[Inbound], Steps]

T = TypeVar("T")


def around(
    layer: Callable[[T, Callable[[T], Steps]], Steps], next: Callable[[T], Steps]
) -> Callable[[T], Steps]:
    """A layer with the one below it. A `partial` with a keyword costs each call twice as much."""
    return lambda call: layer(call, next)


class Middleware:
    """All layers do nothing until overridden; a layer that is not overridden costs nothing.

    One object serves an App, all services and threads: keep state per (instance, method) in it,
    behind a lock held for no I/O.
    """

    #: Whether `on_call` goes around one attempt, below the choice of the instance, rather than
    #: around the whole call above it.
    is_per_attempt: ClassVar[bool] = False

    def on_call(self, call: Call, next: CallNext) -> Steps:
        """Around one logical call (above `retry`) or one attempt (below it), on the caller's side.
        Raises FanError; may `yield Sleep`. `next` raises the callee's errors as FanError."""
        return (yield from next(call))

    def on_request(self, inbound: Inbound, next: InboundNext) -> Steps:
        """Around one request on the server's side. `next` raises FanError."""
        return (yield from next(inbound))

    def start_over(self) -> None:
        """In a forked child, where the parent's threads are not there and its locks may be held:
        make what it locks with anew, and forget what was under way. Twice does no harm."""

    def close(self) -> None:
        """Release what it holds. Twice does no harm."""
