"""What the tests of the amqp transport share: transports, a handler, requests, and bare pika."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import msgspec
import pika
import pytest

from fan.context import new_id
from fan.errors import FanError
from fan.message import Request, Response
from fan.settings import Settings
from fan.transports.amqp import AmqpTransport
from fan.transports.base import Listener, Overdue, Served, Stream

#: Seconds after which a test is taken to hang.
HANG = 60.0
#: Milliseconds that a call gets which is answered at once on a machine that has nothing else to do.
PATIENT = 30_000
SHOP = Served("shop", "1.0.0", "shop-1", frozenset({"again"}))


class Handler:
    """Answers by the name of the method; `release` lets those go that wait."""

    def __init__(self) -> None:
        self.requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self.peers: list[str] = []
        self.release = threading.Event()
        #: Methods that wait for `release`.
        self.hold = {"wait"}

    def __call__(
        self,
        request: Request,
        *,
        is_cancelled: Callable[[], bool] | None = None,
        peer: str = "",
        is_queued: bool = False,
        on_overdue: Overdue | None = None,
    ) -> Response | Future[Response] | Stream:
        assert is_queued
        self.requests.put(request)
        self.peers.append(peer)
        if request.method in self.hold:
            assert self.release.wait(HANG)
        if request.method == "raise":
            raise RuntimeError("a handler must not do this")
        if request.method == "big":
            return Response(id=request.id, body=b"x" * 2_000_000)
        return Response(id=request.id, body=request.body)

    def wait(self) -> Request:
        """The next request."""
        return self.requests.get(timeout=HANG)


def a_call(method: str = "echo", **fields: Any) -> Request:
    """A call of `shop`."""
    usual = {"id": new_id(), "service": "shop", "want": "1.0.0", "timeout_ms": PATIENT}
    return Request(method=method, **{**usual, **fields})


def a_push(method: str = "echo", **fields: Any) -> Request:
    """A push to `shop`."""
    return a_call(method, kind="push", want="", **fields)


Make = Callable[..., AmqpTransport]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes transports that are closed with the test: `make(url, **settings)`."""
    made: list[AmqpTransport] = []

    def make(url: str, **settings: Any) -> AmqpTransport:
        made.append(AmqpTransport(Settings(amqp_url=url, **settings)))
        return made[-1]

    yield make
    for transport in made:
        transport.close()


Serve = Callable[..., Listener]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves `SHOP` over a transport, or another: `serve(transport, handler, served)`."""
    opened: list[tuple[Listener, Handler]] = []

    def serve(transport: AmqpTransport, handler: Handler, served: Served = SHOP) -> Listener:
        listener = transport.serve("", handler)
        opened.append((listener, handler))
        listener.update([served])
        return listener

    yield serve
    for listener, handler in opened:
        handler.release.set()
        listener.close()


def failure(act: Callable[[], object]) -> FanError:
    """The error that `act` raises."""
    with pytest.raises(FanError) as info:
        act()
    return info.value


def until(ask: Callable[[], Any]) -> Any:
    """Ask again and again until the answer counts as true, and give it."""
    end = time.monotonic() + HANG
    while not (answer := ask()):
        assert time.monotonic() < end, "it did not come to that"
        threading.Event().wait(0.01)
    return answer


def ask(transport: AmqpTransport, body: bytes = b"1") -> None:
    """Make a call, which is answered, with its own answer."""
    response = transport.call(transport.home(), a_call(body=body))
    assert (response.code, response.body) == ("ok", body)


def answered(transport: AmqpTransport, body: bytes = b"1") -> bool:
    """Whether a call is answered, with its own answer."""
    try:
        response = transport.call(transport.home(), a_call(body=body, timeout_ms=2000))
    except FanError:
        return False
    assert response.body == body
    return response.code == "ok"


@contextmanager
def bare(url: str) -> Iterator[Any]:
    """A channel of bare pika."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        yield connection.channel()


def as_json(value: Any) -> bytes:
    """The bytes of a value."""
    return msgspec.json.encode(value)
