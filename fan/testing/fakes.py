"""Stand-ins for time and for the network, for tests of what is built on fan."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, ClassVar

import msgspec

from fan.codec import encode_result
from fan.errors import FanError
from fan.message import Request, Response
from fan.model import Address
from fan.tracers.base import Tracer
from fan.transports.base import Handler, Listener, Served, Subscription, Transport


class FakeClock:
    """A clock that moves when it is told to: give it where a `clock` is taken, call `advance`."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def __repr__(self) -> str:
        return f"<FakeClock {self.now}>"

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.now += seconds


class RecordingTransport(Transport):
    """Sends nothing: keeps every request, and answers with what `answer` makes of it::

        sent = RecordingTransport(lambda request: 42)
        app = fan.App(transports={"fake": sent})
        assert app.using(peers=("fake:anywhere",)).call("greeter.hello") == 42
        assert sent.requests[0].method == "hello"

    `answer` returns the call's value, a ready Response, or raises: a FanError counts as the
    transport's own failure. For a stream it returns the list of items.
    """

    scheme: ClassVar[str] = "fake"
    can: ClassVar[frozenset[str]] = frozenset({"call", "push", "stream", "cancel"})

    def __init__(self, answer: Callable[[Request], Any] = lambda request: None) -> None:
        self._answer = answer
        #: In the order in which they were sent.
        self.requests: list[Request] = []
        self.addresses: list[Address] = []
        self.is_closed = False

    def __repr__(self) -> str:
        return f"<RecordingTransport requests={len(self.requests)}>"

    def call(
        self, address: Address, request: Request, *, marks: dict[str, float] | None = None
    ) -> Response:
        """Keep the request and answer it. Raises what `answer` raises."""
        value = self._take(address, request)
        if isinstance(value, Response):
            return value
        content_type, body = encode_result(value)
        return Response(id=request.id, content_type=content_type, body=body)

    def submit(self, address: Address, request: Request) -> Future[Response]:
        """The same, as a finished future."""
        future: Future[Response] = Future()
        try:
            future.set_result(self.call(address, request))
        except FanError as exc:
            future.set_exception(exc)
        return future

    def send(self, address: Address, request: Request) -> Response:
        """Keep the push and accept it. Raises what `answer` raises."""
        self._take(address, request)
        return Response(id=request.id)

    def stream(self, address: Address, request: Request) -> Iterator[Response]:
        """Keep the request; yield what `answer` gives. Raises what `answer` raises."""
        items = self._take(address, request)
        for seq, item in enumerate(items):
            content_type, body = encode_result(item)
            yield Response(
                id=request.id, kind="chunk", seq=seq, content_type=content_type, body=body
            )
        yield Response(id=request.id, kind="end")

    def close(self) -> None:
        """Remember that it was closed."""
        self.is_closed = True

    def _take(self, address: Address, request: Request) -> Any:
        self.requests.append(request)
        self.addresses.append(address)
        return self._answer(request)


class Recorded(msgspec.Struct, kw_only=True):
    """One span of a `RecordingTracer`. `seconds` and `error` are there once it ended."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    #: Empty at the root of the trace.
    parent_id: str
    tags: dict[str, Any]
    seconds: float | None = None
    error: BaseException | None = None


class RecordingTracer(Tracer):
    """Keeps every span, in the order in which they began: `fan.App(tracer=RecordingTracer())`."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.spans: list[Recorded] = []
        self._clock = clock

    def __repr__(self) -> str:
        return f"<RecordingTracer spans={len(self.spans)}>"

    def start(
        self, name: str, traceparent: str, parent: str, kind: str, tags: dict[str, Any]
    ) -> tuple[Recorded, float]:
        """Keep a span."""
        span = Recorded(
            name=name, kind=kind, trace_id=traceparent[3:35], span_id=traceparent[36:52],
            parent_id=parent[36:52], tags=tags,
        )  # fmt: skip
        self.spans.append(span)
        return span, self._clock()

    def finish(self, span: tuple[Recorded, float], error: BaseException | None) -> None:
        """Note how it ended."""
        recorded, begun = span
        recorded.error = error
        recorded.seconds = self._clock() - begun

    def close(self, timeout: float = 1.0) -> None:
        """Nothing is pending."""


class FakeBroker(Transport):
    """A broker without queues: hands what it gets to a handler at once, in the caller's thread.

        broker = FakeBroker()
        app = fan.App(Shop(), transports={"fake": broker}, settings=fan.Settings(queue="fake"))

    `served` is what its listeners were told last, `answers` what handlers answered to pushes and
    events. It has the scheme `fake`.
    """

    scheme: ClassVar[str] = "fake"
    can: ClassVar[frozenset[str]] = frozenset({"call", "push", "subscribe", "serve"})
    is_shared: ClassVar[bool] = True

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answers: list[Any] = []
        self.served: list[Served] = []
        self._handler: Handler | None = None
        self._subscribers: list[tuple[Subscription, Handler]] = []

    def __repr__(self) -> str:
        return f"<FakeBroker requests={len(self.requests)}>"

    @property
    def subscriptions(self) -> list[Subscription]:
        """Those that are open."""
        return [subscription for subscription, _ in self._subscribers]

    def home(self) -> Address:
        """The only place there is."""
        return Address("fake:broker")

    def call(
        self, address: Address, request: Request, *, marks: dict[str, float] | None = None
    ) -> Response:
        """Have a call handled."""
        self.requests.append(request)
        assert self._handler is not None
        answer = self._handler(request, is_queued=True)
        return answer.result() if isinstance(answer, Future) else answer  # type: ignore[return-value]

    def submit(self, address: Address, request: Request) -> Future[Response]:
        """The same, as a finished future."""
        future: Future[Response] = Future()
        future.set_result(self.call(address, request))
        return future

    def send(self, address: Address, request: Request) -> Response:
        """Have a push handled, and accept it however that went."""
        self.answers.append(self.call(address, request))
        return Response(id=request.id)

    def publish(self, address: Address, request: Request) -> Response:
        """Have an event handled by all who subscribed to its topic."""
        self.requests.append(request)
        found = [(s, h) for s, h in self._subscribers if s.topic == request.topic]
        for subscription, handler in found:
            names = {"service": subscription.service, "method": subscription.method}
            event = msgspec.structs.replace(request, **names)
            self.answers.append(handler(event, is_queued=True))
        return Response(id=request.id, details={"groups": len(found)})

    def serve(self, bind: str, handler: Handler) -> Listener:
        """Hand calls and pushes to `handler`."""
        self._handler = handler
        return _FakeListener(self)

    def subscribe(
        self, address: Address, subscription: Subscription, handler: Handler
    ) -> Listener:
        """Hand events to `handler`."""
        entry = (subscription, handler)
        self._subscribers.append(entry)
        return _FakeListener(self, entry)

    def leave(self, entry: tuple[Subscription, Handler] | None) -> None:
        """End a subscription."""
        if entry in self._subscribers:
            self._subscribers.remove(entry)

    def close(self) -> None:
        """Forget the handlers."""
        self._handler = None
        self._subscribers.clear()


class _FakeListener(Listener):
    def __init__(
        self, broker: FakeBroker, entry: tuple[Subscription, Handler] | None = None
    ) -> None:
        self.address = broker.home()
        self._broker = broker
        self._entry = entry

    def update(self, served: Sequence[Served]) -> None:
        """Keep what it is told."""
        self._broker.served = list(served)

    def drain(self) -> None:
        """Nothing waits here."""

    def close(self, timeout: float = 5.0) -> None:
        """End the subscription."""
        self._broker.leave(self._entry)
