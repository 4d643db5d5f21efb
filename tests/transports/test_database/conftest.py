"""What the tests of the database transport share: a handler, transports, and requests."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from fan.message import Request, Response
from fan.model import Address
from fan.settings import Settings
from fan.transports.base import Listener, Overdue, Served, Stream
from fan.transports.database import DatabaseTransport

#: Seconds after which a test is taken to hang.
HANG = 20.0


class Handler:
    """Keeps what it gets, and answers as `answer` says."""

    def __init__(self, answer: Callable[[Request], Any] = lambda request: None) -> None:
        self.requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._answer = answer

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
        answer = self._answer(request)
        return Response(id=request.id) if answer is None else answer

    def wait(self) -> Request:
        """The next request."""
        return self.requests.get(timeout=HANG)


def a_push(method: str = "take", **fields: Any) -> Request:
    """A push to the service `shop`."""
    usual = {"id": method, "service": "shop", "kind": "push", "timeout_ms": 5000}
    return Request(method=method, **{**usual, **fields})


@pytest.fixture
def path(private: Path) -> str:
    return str(private / "queues.db")


Make = Callable[..., DatabaseTransport]


@pytest.fixture
def make(path: str) -> Iterator[Make]:
    """Makes transports on the database; they are closed with the test."""
    made: list[DatabaseTransport] = []

    def make(**settings: Any) -> DatabaseTransport:
        usual = {"database_url": f"sqlite:{path}", "workers": 4, "deliveries": 3}
        made.append(DatabaseTransport(Settings(**{**usual, **settings})))
        return made[-1]

    yield make
    for transport in made:
        transport.close()


def serve(transport: DatabaseTransport, handler: Handler, **fields: Any) -> Listener:
    """Have a handler take the pushes of `shop`."""
    listener = transport.serve("", handler)
    listener.update([Served("shop", "1.0.0", "shop-1", **fields)])
    return listener


def send(transport: DatabaseTransport, request: Request) -> None:
    """Push to the database of the settings."""
    assert transport.send(transport.home(), request).code == "ok"


def until(ask: Callable[[], Any]) -> Any:
    """Ask until the answer counts as true, and give it."""
    for _ in range(int(HANG / 0.005)):
        if answer := ask():
            return answer
        threading.Event().wait(0.005)
    raise AssertionError("it did not come to that")


def address(path: str) -> Address:
    """Of a database."""
    return Address(f"database:{path}")
