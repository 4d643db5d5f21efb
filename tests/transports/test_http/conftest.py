"""A handler of a few methods, a server that runs it, and bare servers that misbehave."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from fan.context import new_id
from fan.message import Request, Response
from fan.model import Address
from fan.transports.base import Listener, Stream
from fan.transports.http import HttpTransport

#: Seconds that bound a hang.
BOUND = 20.0


class Methods:
    """The Handler: what it was asked is kept in `seen`."""

    def __init__(self) -> None:
        self.seen: list[Request] = []
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.left = threading.Event()
        self.closed = threading.Event()
        self.produced = 0

    def __call__(self, request: Request, *, is_cancelled: Any = None, peer: str = "") -> Any:
        self.seen.append(request)
        assert peer == ""
        return getattr(self, "on_" + request.method)(request, is_cancelled)

    def on_hello(self, request: Request, _: Any) -> Response:
        name = msgspec.json.decode(request.body)["name"] if request.body else "World"
        body = msgspec.json.encode(f"Hello {name}")
        return Response(id=request.id, served="1.0.0/greeter-1", gen=7, body=body)

    def on_echo(self, request: Request, _: Any) -> Response:
        return Response(
            id=request.id,
            headers=request.headers,
            content_type=request.content_type,
            body=request.body,
        )

    def on_fail(self, request: Request, _: Any) -> Response:
        return Response(
            id=request.id, code="aborted", reason="busy", message="line\nbreak \u00e9",
            type="Busy", details={"n": [1]}, executed="yes", retry_after_ms=1500,
        )  # fmt: skip

    def on_hold(self, request: Request, _: Any) -> Response:
        self.entered.set()
        assert self.gate.wait(BOUND)
        return Response(id=request.id)

    def on_watch(self, request: Request, is_cancelled: Callable[[], bool]) -> Response:
        self.entered.set()
        while not is_cancelled() and not self.gate.wait(0.005):
            pass
        self.left.set()
        return Response(id=request.id)

    def on_health(self, request: Request, _: Any) -> Response:
        return Response(id=request.id, body=b'"ok"')

    def on_count(self, request: Request, _: Any) -> Any:
        if request.kind != "stream":
            return Response(
                id=request.id, code="unimplemented", reason="streaming_unsupported", executed="no"
            )
        limit = msgspec.json.decode(request.body)["n"]

        def chunks() -> Iterator[Response]:
            for n in range(limit):
                self.produced += 1
                yield Response(id=request.id, kind="chunk", seq=n, body=b"%d" % n)
            yield Response(id=request.id, kind="end", seq=limit)

        return Stream(chunks(), self.closed.set)


    def on_stall(self, request: Request, _: Any) -> Any:
        if request.kind != "stream":
            return self.on_count(request, _)
        limit = msgspec.json.decode(request.body)["n"]

        def chunks() -> Iterator[Response]:
            for n in range(limit):
                yield Response(id=request.id, kind="chunk", seq=n, body=b"%d" % n)
            self.entered.set()
            assert self.gate.wait(BOUND)
            yield Response(id=request.id, kind="end", seq=limit)

        def close() -> None:
            produced.close()
            self.closed.set()

        produced = chunks()
        return Stream(produced, close)


def ask(method: str, body: bytes = b"", **fields: Any) -> Request:
    """A request to the greeter."""
    return Request(
        **{"id": new_id(), "timeout_ms": int(BOUND * 1000), "caller": "test", **fields},
        service="greeter", method=method, body=body,
    )  # fmt: skip


def connect(address: Address) -> socket.socket:
    """A bare connection to a server."""
    host, port = address.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=BOUND)


def raw(address: Address, data: bytes) -> bytes:
    """What a server sends back to those bytes until it closes."""
    with connect(address) as sock:
        sock.sendall(data)
        parts = []
        with suppress(ConnectionResetError):
            while part := sock.recv(65536):
                parts.append(part)
        return b"".join(parts)


class Site:
    """A server with those methods, a client, and bare connections to the server."""

    bound = BOUND

    def __init__(self) -> None:
        self.methods = Methods()
        self.transport = HttpTransport()
        self.listener: Listener = HttpTransport().serve("", self.methods)
        self.address = self.listener.address
        self.ask = staticmethod(ask)

    def call(self, method: str, body: bytes = b"", **fields: Any) -> Response:
        return self.transport.call(self.address, ask(method, body, **fields))

    def connect(self) -> socket.socket:
        return connect(self.address)

    def raw(self, data: bytes) -> bytes:
        return raw(self.address, data)

    def post(self, path: str, body: bytes = b"", *headers: str) -> tuple[int, str, Any]:
        """Status, headers and decoded body of a POST in the way of curl."""
        lines = [f"POST {path} HTTP/1.1", *headers, f"Content-Length: {len(body)}"]
        if not any(h.lower().startswith("host:") for h in headers):
            lines.append("Host: " + self.address.url.removeprefix("http://"))
        head = "\r\n".join([*lines, "Connection: close", "\r\n"])
        answer = self.raw(head.encode() + body)
        found, _, rest = answer.partition(b"\r\n\r\n")
        kind = found.decode().lower()
        value = msgspec.json.decode(rest) if "application/json" in kind and rest else rest
        return int(found.split()[1]), kind, value


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.methods.gate.set()
    made.transport.close()
    made.listener.close()


@pytest.fixture
def answering() -> Iterator[Callable[[Callable[[socket.socket], None]], Address]]:
    """Makes a server of a function that gets each connection, in one thread, one after another."""
    listening: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(talk: Callable[[socket.socket], None]) -> Address:
        sock = socket.create_server(("127.0.0.1", 0))
        listening.append(sock)

        def run() -> None:
            while True:
                try:
                    connection, _ = sock.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(BOUND)
                    with suppress(OSError):  # the client went away
                        talk(connection)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return Address(f"http://127.0.0.1:{sock.getsockname()[1]}")

    yield start
    for sock in listening:
        sock.shutdown(socket.SHUT_RDWR)
        sock.close()
    for thread in threads:
        thread.join(BOUND)
