"""The current call: its deadline, baggage, trace, caller and pinned generation, in a contextvar.

A `Context` exists while a handler runs; `current()` gives it, from the handler, from `fan.Executor`
threads and from tasks. A context of a local call holds little of its own and asks its parent, so
that making one costs a local call next to nothing.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Self

import msgspec

from fan import forks
from fan.errors import DeadlineExceeded
from fan.message import Request

if TYPE_CHECKING:
    from collections.abc import Mapping

_current: ContextVar[Context | None] = ContextVar("fan.context", default=None)


#: Random digits in pieces of 32, fetched from the kernel a few kilobytes at a time: one system call
#: per id would be most of an id's cost, and `random` costs a one-shot command its import. A forked
#: child must not make its parent's ids.
_pieces: deque[str] = deque()
forks.in_child("values", _pieces.clear)


def new_id() -> str:
    """128 random bits in hexadecimal: ids of requests, instances and traces."""
    while True:
        try:
            return _pieces.popleft()  # in one step, so that threads need no lock
        except IndexError:
            block = os.urandom(16 * 64).hex()
            _pieces.extend(block[i : i + 32] for i in range(0, len(block), 32))


def new_span_id() -> str:
    """64 random bits in hexadecimal, as W3C trace context wants them."""
    return new_id()[:16]


def new_traceparent(trace_id: str = "", flags: str = "00") -> str:
    """A W3C `traceparent` with a new span id, of the given trace or of a new one."""
    return f"00-{trace_id or new_id()}-{new_span_id()}-{flags}"


class Site(msgspec.Struct, frozen=True):
    """Where a call is served: the App, and the names of service, method and instance. It is made
    once, is a part of the App's own circle of references, and so has to be seen by the collector.
    """

    app: Any = None
    service: str = ""
    method: str = ""
    instance: str = ""


NOWHERE = Site()


class Context(msgspec.Struct, gc=False):
    """What a handler may know of the call that it serves.

    `deadline` is a point of `time.monotonic()`, None where there is none (outside of any call).
    """

    parent: Context | None = None
    site: Site = NOWHERE
    own_deadline: float | None = None
    request: Request | None = None
    #: This hop's own `traceparent`: same trace, this handler's span.
    own_traceparent: str = ""
    own_baggage: dict[str, str] | None = None
    #: How the transport learns that the caller gave up; None where it cannot.
    cancel_probe: Callable[[], bool] | None = None
    #: Calls made so far inside this one; numbers the idempotency keys of children.
    children: int = 0

    @classmethod
    def at(cls, app: Any = None, service: str = "", method: str = "", **fields: Any) -> Context:
        """A context made by hand, for code outside of any handler: `with Context.at(app): ...`."""
        return cls(site=Site(app, service, method), **fields)

    @property
    def app(self) -> Any:
        """The App that serves the call."""
        return self.site.app

    @property
    def service(self) -> str:
        """Name of the service that serves it."""
        return self.site.service

    @property
    def method(self) -> str:
        """Name of the method that serves it."""
        return self.site.method

    @property
    def instance(self) -> str:
        """Id of the instance that serves it."""
        return self.site.instance

    @property
    def deadline(self) -> float | None:
        """The point of `time.monotonic()` at which the answer is worth nothing any more."""
        return self.own_deadline

    @property
    def remaining(self) -> float | None:
        """Seconds left, never below zero; None without a deadline."""
        deadline = self.deadline
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    def check(self) -> None:
        """Raise `DeadlineExceeded` when the time is over, for handlers that work in steps."""
        if self.remaining == 0.0:
            raise DeadlineExceeded("the deadline is over", reason="server_timer")

    @property
    def is_cancelled(self) -> bool:
        """Whether the caller gave up, as far as the transport can tell."""
        if self.cancel_probe is not None and self.cancel_probe():
            return True
        return self.parent is not None and self.parent.is_cancelled

    cancelled = is_cancelled

    @property
    def traceparent(self) -> str:
        """W3C `traceparent` of this hop; made on first use where the caller sent none."""
        if not self.own_traceparent:
            if self.parent is not None:
                return self.parent.traceparent
            sent = self.request.traceparent if self.request is not None else ""
            trace_id, flags = (sent[3:35], sent[53:55]) if len(sent) >= 55 else ("", "00")
            self.own_traceparent = new_traceparent(trace_id, flags)
        return self.own_traceparent

    @property
    def trace_id(self) -> str:
        """The 32 hexadecimal digits that all hops of one call tree share."""
        return self.traceparent[3:35]

    @property
    def span_id(self) -> str:
        """The 16 hexadecimal digits of this hop."""
        return self.traceparent[36:52]

    @property
    def tracestate(self) -> str:
        """W3C `tracestate`, verbatim."""
        return str(self._inherited("tracestate", ""))

    @property
    def baggage(self) -> Mapping[str, str]:
        """Key-value pairs that travel down the whole call tree."""
        here: Context | None = self
        while here is not None:
            if here.own_baggage is not None:
                return here.own_baggage
            if here.request is not None:
                return here.request.baggage
            here = here.parent
        return {}

    def set_baggage(self, key: str, value: str) -> None:
        """Add a pair for all calls made from here on."""
        self.own_baggage = {**self.baggage, key: value}

    @property
    def headers(self) -> Mapping[str, str]:
        """The user's own headers of this call; they do not travel on."""
        return self.request.headers if self.request is not None else {}

    @property
    def caller(self) -> str:
        """Name of the calling service, empty where it is none."""
        if self.request is not None:
            return self.request.caller
        if self.parent is not None:
            return self.parent.service
        return self.app.name if self.app is not None else ""

    @property
    def caller_instance(self) -> str:
        """Id of the calling instance, empty where it is none."""
        if self.request is not None:
            return self.request.caller_instance
        return self.parent.instance if self.parent is not None else ""

    @property
    def principal(self) -> str:
        """The end user, as far as an authenticated peer vouches for it."""
        return str(self._inherited("principal", ""))

    @property
    def gen(self) -> int:
        """The registry generation that the whole call tree is pinned to; 0 is none."""
        return int(self._inherited("gen", 0))

    @property
    def hops(self) -> int:
        """How many calls deep this is: 0 for what a handler outside of any call would be."""
        if self.request is not None:
            return self.request.hops
        return self.parent.hops + 1 if self.parent is not None else 0

    @property
    def attempt(self) -> int:
        """Attempts before this one."""
        return self.request.attempt if self.request is not None else 0

    @property
    def key(self) -> str:
        """Idempotency key of this call, the same over its retries."""
        if self.request is None:
            return self.parent.key if self.parent is not None else ""
        return self.request.key or self.request.id

    def child_key(self) -> str:
        """The idempotency key of the next call made from here: `<key>/<n>`."""
        # Local calls share their parent's key, so they share its numbers too: two of them that both
        # made child 1 would have their children taken for one another.
        if self.request is None and self.parent is not None:
            return self.parent.child_key()
        self.children = number = self.children + 1  # read once: threads may fan out from here
        key = self.key
        return f"{key}/{number}" if key else ""

    @property
    def rpc(self) -> Any:
        """`ctx.rpc.service.method(...)`: a call as a part of this one."""
        return self.find_app().rpc

    @property
    def config(self) -> Any:
        """The configs as of the generation that this call tree is pinned to:
        `ctx.config["orders/theme"]`."""
        return self.find_app().config.pinned(self.gen)

    def find_app(self) -> Any:
        """The App that serves this call or the one that it is a part of."""
        here: Context | None = self
        while here is not None:
            if here.app is not None:
                return here.app
            here = here.parent
        raise RuntimeError("this context belongs to no App")

    def _inherited(self, field: str, default: Any) -> Any:
        here: Context | None = self
        while here is not None:
            if here.request is not None:
                return getattr(here.request, field)
            here = here.parent
        return default

    def __enter__(self) -> Self:
        _tokens.set((*_tokens.get(), _current.set(self)))
        return self

    def __exit__(self, *exc: object) -> None:
        tokens = _tokens.get()
        _tokens.set(tokens[:-1])
        _current.reset(tokens[-1])


_tokens: ContextVar[tuple[Token[Context | None], ...]] = ContextVar(
    "fan.context.tokens", default=()
)


def current() -> Context | None:
    """The context of the call that is being served here, None outside of any."""
    return _current.get()
