"""https: our client at a server with a certificate."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

from fan.errors import DeadlineExceeded, Unavailable
from fan.message import Request
from fan.model import Address
from fan.transports.http import HttpTransport

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[1]"


def request(**fields: Any) -> Request:
    return Request(**{"id": "r", "service": "a", "method": "b", "timeout_ms": 20_000, **fields})


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The authority is one of those that OpenSSL trusts."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))


@pytest.fixture
def transport() -> Iterator[HttpTransport]:
    made = HttpTransport()
    yield made
    made.close()


class Secured:
    """A server whose certificate is for `name`; `talk` gets each connection."""

    def __init__(self, authority: trustme.CA, answering: Any, name: str = "127.0.0.1") -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(self.context)
        self.greeted = 0
        self.talk: Callable[[ssl.SSLSocket], None] = self.answer
        plain = answering(self._secure)
        self.port = int(plain.url.rpartition(":")[2])
        self.address = Address(f"https://127.0.0.1:{self.port}")

    def _secure(self, connection: socket.socket) -> None:
        with self.context.wrap_socket(connection, server_side=True) as secured:
            self.greeted += 1
            with suppress(ssl.SSLError):
                self.talk(secured)

    @staticmethod
    def answer(secured: ssl.SSLSocket) -> None:
        """Answer request after request."""
        while secured.recv(65536):
            secured.sendall(OK)


@pytest.fixture
def secured(authority: trustme.CA, answering: Any) -> Secured:
    return Secured(authority, answering)


@pytest.mark.usefixtures("trusted")
def test_calls_over_tls_keep_their_connection(secured: Secured, transport: HttpTransport) -> None:
    for _ in range(10):
        assert transport.call(secured.address, request()).body == b"[1]"
    assert secured.greeted == 1


@pytest.mark.usefixtures("trusted")
def test_ten_megabytes_go_over_tls(secured: Secured, transport: HttpTransport) -> None:
    body = b"x" * 10_000_000

    def talk(connection: ssl.SSLSocket) -> None:
        seen = connection.recv(65536)
        while not seen.endswith(body[:9]):  # the head ends otherwise
            seen = connection.recv(65536)
        size = len(seen.partition(b"\r\n\r\n")[2]) if b"\r\n\r\n" in seen else len(seen)
        while size < len(body):
            size = count(connection, size)
        connection.sendall(OK)

    def count(connection: ssl.SSLSocket, size: int) -> int:
        return size + len(connection.recv(65536))

    secured.talk = talk
    assert transport.call(secured.address, request(body=body)).body == b"[1]"


def test_an_authority_that_nobody_trusts_is_refused_before_anything_is_sent(
    secured: Secured, transport: HttpTransport
) -> None:
    with pytest.raises(Unavailable, match="certificate") as info:
        transport.call(secured.address, request())
    assert (info.value.reason, info.value.executed) == ("connect_failed", "no")
    assert transport._links.idle == 0


@pytest.mark.usefixtures("trusted")
def test_a_certificate_for_another_name_is_refused(
    authority: trustme.CA, answering: Any, transport: HttpTransport
) -> None:
    with pytest.raises(Unavailable, match="not valid for") as info:
        transport.call(Secured(authority, answering, "other.test").address, request())
    assert (info.value.reason, info.value.executed) == ("connect_failed", "no")


def test_a_server_that_speaks_no_tls_is_a_failed_connect(
    answering: Any, transport: HttpTransport
) -> None:
    address = answering(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad\r\n\r\n"))
    with pytest.raises(Unavailable) as info:
        transport.call(Address(address.url.replace("http:", "https:")), request())
    assert (info.value.reason, info.value.executed) == ("connect_failed", "no")


def test_a_handshake_that_never_ends_is_a_deadline_before_anything_was_sent(
    answering: Any, transport: HttpTransport
) -> None:
    over = threading.Event()
    address = answering(lambda _: over.wait(20))
    with pytest.raises(DeadlineExceeded) as info:
        transport.call(Address(address.url.replace("http:", "https:")), request(timeout_ms=200))
    assert (info.value.reason, info.value.executed) == ("client_timer", "no")
    over.set()


@pytest.mark.usefixtures("trusted")
def test_a_server_that_reads_in_drips_costs_no_more_than_the_deadline(
    secured: Secured, transport: HttpTransport
) -> None:
    over = threading.Event()

    def talk(connection: ssl.SSLSocket) -> None:
        while not over.wait(0.02):
            connection.recv(16384)

    secured.talk = talk
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded) as info:
        transport.call(secured.address, request(body=b"x" * 16_000_000, timeout_ms=300))
    over.set()
    assert info.value.reason == "client_timer"
    assert time.monotonic() - began < 10.0  # all of it would take 15 s


@pytest.mark.usefixtures("trusted")
def test_a_cancelled_future_closes_its_connection(
    secured: Secured, transport: HttpTransport
) -> None:
    asked, closed = threading.Event(), threading.Event()

    def talk(connection: ssl.SSLSocket) -> None:
        connection.recv(65536)
        asked.set()
        with suppress(ssl.SSLEOFError):
            connection.recv(1)
        closed.set()

    secured.talk = talk
    future = transport.submit(secured.address, request())
    assert asked.wait(20)
    assert future.cancel()
    assert closed.wait(20)


@pytest.mark.usefixtures("trusted")
def test_a_connection_lost_in_an_answer_may_have_executed(
    secured: Secured, transport: HttpTransport
) -> None:
    def talk(connection: ssl.SSLSocket) -> None:
        connection.recv(65536)
        connection.sendall(OK[:-1])

    secured.talk = talk
    with pytest.raises(Unavailable) as info:
        transport.call(secured.address, request())
    assert (info.value.reason, info.value.executed) == ("connection_lost", "maybe")
