"""Servers that answer or leave before they were asked all, and streams that are none."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fan.errors import DeadlineExceeded, Internal, Unavailable
from fan.message import Request
from fan.model import Address
from fan.transports.http import HttpTransport

Answering = Callable[[Callable[[socket.socket], None]], Address]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[1]"
#: More than the buffers of both ends take.
LONG = b"1" * 16_000_000


def request(**fields: Any) -> Request:
    return Request(**{"id": "r", "service": "a", "method": "b", "timeout_ms": 20_000, **fields})


def reset(connection: socket.socket) -> None:
    """Have the connection end with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.fixture
def transport() -> Iterator[HttpTransport]:
    made = HttpTransport()
    yield made
    made.close()


def test_an_answer_that_comes_before_all_was_sent_counts(
    answering: Answering, transport: HttpTransport
) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 413 Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        connection.shutdown(socket.SHUT_RD)

    answer = transport.call(answering(talk), request(body=LONG))
    assert answer.code == "invalid_argument"
    assert transport._links.idle == 0


def test_a_server_that_leaves_before_all_was_sent_executed_nothing(
    answering: Answering, transport: HttpTransport
) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(100)
        reset(connection)

    with pytest.raises(Unavailable) as info:
        transport.call(answering(talk), request(body=LONG))
    assert (info.value.reason, info.value.executed) == ("connection_lost", "no")


def test_a_kept_connection_that_breaks_while_sent_on_is_replaced(
    answering: Answering, transport: HttpTransport
) -> None:
    sizes: list[int] = []

    def talk(connection: socket.socket) -> None:
        sizes.append(0)
        if len(sizes) == 1:
            connection.recv(65536)
            connection.sendall(OK)
            connection.recv(100)  # of the second request
            reset(connection)
            return
        while sizes[-1] <= len(LONG):  # a head is longer than a byte
            sizes[-1] += len(connection.recv(1 << 20))
        connection.sendall(OK)

    address = answering(talk)
    assert transport.call(address, request()).body == b"[1]"
    assert transport.call(address, request(body=LONG)).body == b"[1]"
    assert len(sizes) == 2


def test_a_reset_in_an_answer_may_have_executed(
    answering: Answering, transport: HttpTransport
) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        reset(connection)

    with pytest.raises(Unavailable) as info:
        transport.call(answering(talk), request())
    assert (info.value.reason, info.value.executed) == ("connection_lost", "maybe")


def test_a_server_that_reads_nothing_costs_no_more_than_the_deadline(
    answering: Answering, transport: HttpTransport
) -> None:
    over = threading.Event()
    with pytest.raises(DeadlineExceeded) as info:
        transport.call(
            answering(lambda _: over.wait(20) and None), request(body=LONG, timeout_ms=200)
        )
    assert info.value.reason == "client_timer"
    over.set()


@pytest.mark.parametrize("data", [OK, b"HTTP/1.1 200 OK\r\nFan-Code: ok\r\n\r\n[1]"])
def test_an_answer_that_is_no_stream_is_malformed_where_one_was_asked_for(
    answering: Answering, transport: HttpTransport, data: bytes
) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(data)

    with pytest.raises(Internal, match="stream") as info:
        next(transport.stream(answering(talk), request(kind="stream")))
    assert info.value.reason == "malformed_reply"


def test_an_error_where_a_stream_was_asked_for_is_its_end(
    answering: Answering, transport: HttpTransport
) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")

    (end,) = list(transport.stream(answering(talk), request(kind="stream")))
    assert (end.kind, end.code) == ("end", "unavailable")


def test_a_stream_that_stands_still_costs_no_more_than_the_deadline(
    answering: Answering, transport: HttpTransport
) -> None:
    over = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        over.wait(20)

    with pytest.raises(DeadlineExceeded):
        next(transport.stream(answering(talk), request(kind="stream", timeout_ms=200)))
    over.set()


def test_a_future_cancelled_before_its_turn_sends_nothing(site: Any) -> None:
    from fan.transports import http

    held = [
        site.transport.submit(site.address, site.ask("hold"))
        for _ in range(http.CONCURRENT_SUBMITS)
    ]
    late = site.transport.submit(site.address, site.ask("hello"))
    assert late.cancel()
    site.methods.gate.set()
    for future in held:
        assert future.result(site.bound).code == "ok"
    assert site.transport.submit(site.address, site.ask("echo")).result(site.bound).code == "ok"
    assert "hello" not in [seen.method for seen in site.methods.seen]


def test_nothing_is_submitted_after_a_close(site: Any) -> None:
    assert site.transport.submit(site.address, site.ask("hello")).result(site.bound).code == "ok"
    site.transport.close()
    with pytest.raises(Unavailable, match="closed"):
        site.transport.submit(site.address, site.ask("hello")).result(site.bound)
