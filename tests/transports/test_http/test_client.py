"""What callers get: answers, deadlines, lost and kept connections, foreign servers."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from fan.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
)
from fan.message import BYTES, Request
from fan.model import Address
from fan.settings import Settings
from fan.transports.http import HttpTransport

Answering = Callable[[Callable[[socket.socket], None]], Address]


def replying(data: bytes) -> Callable[[socket.socket], None]:
    """A server that reads one request and sends `data`."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(data)

    return talk


def test_every_field_of_the_envelope_arrives(site: Any) -> None:
    sent = Request(
        id="1", service="a.b", method="echo", timeout_ms=20_000, key="k", want=">=1 <2", gen=7,
        instance="i", shard="s\u00fc\n", deadline_ms=5, ttl_ms=6, traceparent="00-a-b-01",
        tracestate="x=%20", baggage={"user id": "a,b;c=\u00e9 %"},
        headers={"x-a": "\u00e9", "b": ""},
        caller="me", caller_instance="me-1", attempt=2, hops=3, content_type=BYTES, body=b"\x00",
    )  # fmt: skip
    site.transport.call(site.address, sent)
    assert_same(site.methods.seen[0], sent)


def assert_same(got: Request, sent: Request) -> None:
    fields = set(Request.__struct_fields__) - {"timeout_ms"}  # less what it waited for a thread
    assert {f: getattr(got, f) for f in fields} == {f: getattr(sent, f) for f in fields}


def test_an_error_comes_back_whole(site: Any) -> None:
    answer = site.call("fail")
    assert (answer.code, answer.reason, answer.message) == ("aborted", "busy", "line\nbreak \u00e9")
    assert (answer.type, answer.details, answer.executed) == ("Busy", {"n": [1]}, "yes")
    assert answer.retry_after_ms == 1500


def test_ten_megabytes_go_both_ways(site: Any) -> None:
    body = b'"' + b"x" * 10_000_000 + b'"'
    assert site.call("echo", body).body == body


@pytest.mark.parametrize(
    "headers",
    [{"x-a": "1\r\nfan-code: ok"}, {"x-a": "\x00"}, {"x a": "1"}, {"x:a": "1"}, {"": "1"}],
)
def test_a_header_that_smuggles_is_refused(site: Any, headers: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument):
        site.call("echo", headers=headers)
    assert not site.methods.seen


def test_headers_of_the_protocol_are_not_the_users(site: Any) -> None:
    site.call("echo", headers={"Host": "evil", "Content-Length": "9", "fan-caller": "root"})
    assert site.methods.seen[0].headers == {}
    assert site.methods.seen[0].caller == "test"


def test_connections_are_kept(site: Any) -> None:
    for _ in range(100):
        assert site.call("hello").code == "ok"
    assert site.transport._links.idle == 1


def test_a_connection_that_the_server_closed_is_replaced(answering: Answering) -> None:
    address = answering(replying(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1"))
    transport = HttpTransport()
    for _ in range(3):  # each connection ends after one answer, without saying so
        assert transport.call(address, request()).body == b"1"
        ((link,),) = transport._links._idle.values()
        assert select.select([link.sock], [], [], 20)[0]  # the end is there
    transport.close()


def request(**fields: Any) -> Request:
    return Request(**{"id": "r", "service": "a", "method": "b", "timeout_ms": 20_000, **fields})


def test_many_calls_run_at_once_from_futures(site: Any) -> None:
    futures = [site.transport.submit(site.address, site.ask("hold")) for _ in range(20)]
    assert site.methods.entered.wait(site.bound)
    site.methods.gate.set()
    assert [f.result(site.bound).code for f in futures] == ["ok"] * 20


def test_cancelling_a_future_reaches_the_handler(site: Any) -> None:
    future = site.transport.submit(site.address, site.ask("watch"))
    assert site.methods.entered.wait(site.bound)
    assert future.cancel()
    assert site.methods.left.wait(site.bound)
    assert site.call("hello").code == "ok"


def test_a_silent_server_costs_no_more_than_the_deadline(site: Any, answering: Answering) -> None:
    over = threading.Event()
    silent = answering(lambda _: over.wait(20) and None)
    with pytest.raises(DeadlineExceeded) as info:
        site.transport.call(silent, site.ask("hello", timeout_ms=1500))
    over.set()
    assert (info.value.reason, info.value.executed) == ("client_timer", "maybe")
    assert site.call("hello").body == b'"Hello World"'


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"])
def test_a_reply_that_drips_costs_no_more_than_the_deadline(
    answering: Answering, start: bytes
) -> None:
    over = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(start)
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"y" * 50_000:
            connection.sendall(bytes([byte]))
            if over.wait(0.02):
                return

    transport = HttpTransport()
    with pytest.raises(DeadlineExceeded):
        transport.call(answering(talk), request(timeout_ms=200))
    over.set()
    transport.close()


def test_nobody_listening_is_told(site: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with pytest.raises(Unavailable) as info:
        site.transport.call(Address(f"http://127.0.0.1:{port}"), request())
    assert (info.value.reason, info.value.executed) == ("connect_failed", "no")


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12"])
def test_a_lost_connection_may_have_executed(answering: Answering, part: bytes) -> None:
    transport = HttpTransport()
    with pytest.raises(Unavailable) as info:
        transport.call(answering(replying(part)), request())
    assert (info.value.reason, info.value.executed) == ("connection_lost", "maybe")
    transport.close()


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xfe\x00 garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nFan-Code: ok\r\nFan-Id: other\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nFan-Code: ok\r\nFan-Gen: x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
    ids=["noise", "length", "id", "number", "head", "upgrade"],
)
def test_a_malformed_reply_is_told(answering: Answering, data: bytes) -> None:
    transport = HttpTransport()
    with pytest.raises(Internal) as info:
        transport.call(answering(replying(data)), request())
    assert info.value.reason == "malformed_reply"
    transport.close()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "invalid_argument"), (401, "unauthenticated"), (403, "permission_denied"),
        (404, "not_found"), (409, "aborted"), (418, "invalid_argument"),
        (429, "resource_exhausted"), (500, "unknown"), (502, "unavailable"),
        (503, "unavailable"), (504, "deadline_exceeded"), (302, "unknown"),
    ],
)  # fmt: skip
def test_a_foreign_status_has_a_code(answering: Answering, status: int, code: str) -> None:
    transport = HttpTransport()
    data = b"HTTP/1.1 %d X\r\nContent-Length: 2\r\nRetry-After: 3\r\n\r\nno" % status
    answer = transport.call(answering(replying(data)), request())
    assert (answer.code, answer.executed, answer.retry_after_ms) == (code, "maybe", 3000)
    transport.close()


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\n\r\n[1]",
        b"HTTP/1.0 200 OK\r\n\r\n[1]",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[1]",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n1\r\n]\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[1]HTTP/1.1 200 OK\r\n\r\n",
    ],
    ids=["until-closed", "1.0", "continue", "chunked", "more-than-asked"],
)
def test_a_foreign_answer_is_read_in_all_its_forms(answering: Answering, data: bytes) -> None:
    transport = HttpTransport()
    assert transport.call(answering(replying(data)), request()).body == b"[1]"
    transport.close()


def test_a_reply_that_is_too_large_is_refused(site: Any) -> None:
    transport = HttpTransport(Settings(registry="memory:", max_body=10))
    with pytest.raises(ResourceExhausted) as info:
        transport.call(site.address, site.ask("echo", b"1" * 11))
    assert info.value.executed == "no"
    with pytest.raises(ResourceExhausted) as info:
        transport.call(site.address, site.ask("hello"))
    assert info.value.executed == "yes"
    transport.close()


@pytest.mark.parametrize(
    "url", ["http://", "http://h:x", "http://h:0", "http://a b", "http://u@h:1"]
)
def test_an_address_that_is_none_is_refused(site: Any, url: str) -> None:
    with pytest.raises(InvalidArgument):
        site.transport.call(Address(url), request())


def test_a_stream_arrives_in_order(site: Any) -> None:
    chunks = list(
        site.transport.stream(site.address, site.ask("count", b'{"n":100}', kind="stream"))
    )
    assert [int(c.body) for c in chunks[:-1]] == list(range(100))
    assert [c.seq for c in chunks] == list(range(101))
    assert (chunks[-1].kind, chunks[-1].code) == ("end", "ok")
    assert site.methods.closed.wait(site.bound)
    assert site.transport._links.idle == 1


def test_leaving_a_stream_closes_the_generator(site: Any) -> None:
    reading = site.transport.stream(
        site.address, site.ask("count", b'{"n":100000000}', kind="stream")
    )
    assert next(reading).body == b"0"
    reading.close()
    assert site.methods.closed.wait(site.bound)
    assert site.call("hello").code == "ok"


def test_a_stream_that_is_cut_off_is_an_error(answering: Answering) -> None:
    head = b"HTTP/1.1 200 OK\r\nFan-Code: ok\r\nContent-Type: application/x-ndjson\r\n\r\n"
    data = head + b'{"chunk":1}\n'
    transport = HttpTransport()
    reading = transport.stream(answering(replying(data)), request(kind="stream"))
    assert next(reading).body == b"1"
    with pytest.raises(Unavailable) as info:
        next(reading)
    assert info.value.reason == "connection_lost"
    transport.close()


def test_a_fork_has_connections_of_its_own(site: Any) -> None:
    assert site.call("hello").code == "ok"
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        answer = b"failed"
        try:
            replies = [site.call("echo", b"%d" % n).body for n in range(20)]
            future = site.transport.submit(site.address, site.ask("hello"))
            ok = replies == [b"%d" % n for n in range(20)] and future.result(20).code == "ok"
            answer = b"fine" if ok else b"mixed"
        finally:
            os.write(writing, answer)
            os._exit(0)
    os.close(writing)
    assert all(site.call("echo", b"[%d]" % n).body == b"[%d]" % n for n in range(20))
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"fine"
    os.waitpid(child, 0)


def test_closing_twice_does_no_harm_and_nothing_is_sent_after(site: Any) -> None:
    site.call("hello")
    site.transport.close()
    site.transport.close()
    with pytest.raises(Unavailable):
        site.call("hello")
    with pytest.raises(Unavailable):
        site.transport.submit(site.address, site.ask("hello")).result(site.bound)
