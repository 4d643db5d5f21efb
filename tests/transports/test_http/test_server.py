"""What the server says to curl, to browsers and to noise."""

from __future__ import annotations

import logging
import socket
import threading
from typing import Any

import pytest

from fan.errors import AlreadyExists, InvalidArgument
from fan.settings import Settings
from fan.transports.http import HttpTransport

FORM = "Content-Type: application/x-www-form-urlencoded"


def test_another_server_of_uvicorns_in_the_process_is_logged_as_ever(
    site: Any, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = logging.getLogger("uvicorn.error")
    with caplog.at_level(logging.INFO, logger="uvicorn.error"):
        assert site.raw(b"NOISE\r\n\r\n").startswith(b"HTTP/1.1 400")  # of which ours says nothing
        theirs.info("Application startup complete.")
    assert [record.message for record in caplog.records] == ["Application startup complete."]
    assert theirs.level == logging.NOTSET


def test_a_push_is_202_once_the_handler_accepts_it(site: Any) -> None:
    status, head, _ = site.post("/push/greeter/hello")
    assert status == 202
    assert "fan-code: ok" in head
    assert site.methods.seen[0].kind == "push"


def test_a_push_that_the_handler_refuses_is_refused(site: Any) -> None:
    assert site.post("/push/greeter/fail")[0] == site.post("/rpc/greeter/fail")[0] == 409


def test_a_form_of_curl_is_taken_as_json(site: Any) -> None:
    status, head, value = site.post("/rpc/greeter/hello", b'{"name":"Ada"}', FORM)
    assert (status, value) == (200, "Hello Ada")
    assert "fan-code: ok" in head
    assert "fan-served: 1.0.0/greeter-1" in head
    assert "fan-gen: 7" in head


def test_an_empty_body_is_no_arguments(site: Any) -> None:
    assert site.post("/rpc/greeter/hello")[2] == "Hello World"


def test_an_error_is_its_status_headers_and_body(site: Any) -> None:
    status, head, value = site.post("/rpc/greeter/fail")
    assert status == 409
    assert "fan-code: aborted" in head
    assert "fan-reason: busy" in head
    assert "fan-executed: yes" in head
    assert "retry-after: 2" in head
    assert value["error"] == {
        "code": "aborted", "reason": "busy", "message": "line\nbreak \u00e9", "type": "Busy",
        "details": {"n": [1]}, "executed": "yes", "retry_after_ms": 1500,
    }  # fmt: skip


def test_a_stream_is_lines_that_curl_shows(site: Any) -> None:
    status, head, body = site.post("/rpc/greeter/count", b'{"n":2}', FORM)
    assert status == 200
    assert "content-type: application/x-ndjson" in head
    lines = [line.strip() for line in body.split(b"\n") if line.startswith(b"{")]
    assert lines == [b'{"chunk":0}', b'{"chunk":1}', b'{"end":{"code":"ok"}}']


def test_health_is_asked_with_get(site: Any) -> None:
    host = site.address.url.removeprefix("http://").encode()
    answer = site.raw(
        b"GET /rpc/greeter/health HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % host
    )
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b'"ok"')


def test_another_get_is_told_how_to_call(site: Any) -> None:
    host = site.address.url.removeprefix("http://").encode()
    answer = site.raw(
        b"GET /rpc/greeter/hello HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % host
    )
    assert answer.startswith(b"HTTP/1.1 405")
    assert b"allow: POST" in answer
    assert not site.methods.seen


@pytest.mark.parametrize("path", ["/", "/rpc", "/rpc/greeter", "/rpc//hello", "/rpc/a/b/c", "/x"])
def test_another_path_is_not_found(site: Any, path: str) -> None:
    status, _, value = site.post(path)
    assert status == 404
    assert value["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    ("header", "timeout_ms"),
    [
        ("Fan-Timeout-Ms: 25000", 25_000),
        ("grpc-timeout: 40S", 40_000),
        ("grpc-timeout: 30000m", 30_000),
        ("Context-TTL-MS: 70000", 70_000),
        ("X-Nothing: 1", 5000),
    ],
)
def test_the_budget_is_read_from_what_others_send(site: Any, header: str, timeout_ms: int) -> None:
    site.post("/rpc/greeter/hello", b"", header)
    assert timeout_ms - 4900 <= site.methods.seen[0].timeout_ms <= timeout_ms


@pytest.mark.parametrize(
    "header", ["Fan-Timeout-Ms: 300", "grpc-timeout: 300m", "Context-TTL-MS: 300"]
)
def test_a_handler_that_is_too_slow_is_504_although_it_runs_on(site: Any, header: str) -> None:
    status, head, value = site.post("/rpc/greeter/hold", b"", header)
    assert status == 504
    assert "fan-code: deadline_exceeded" in head
    assert (value["error"]["reason"], value["error"]["executed"]) == ("server_timer", "maybe")
    assert not site.methods.gate.is_set()
    assert site.call("hello").code == "ok"


def test_a_stream_whose_first_item_is_late_is_504(site: Any) -> None:
    status, _, value = site.post("/rpc/greeter/stall", b'{"n":0}', "Fan-Timeout-Ms: 50")
    assert (status, value["error"]["reason"]) == (504, "server_timer")
    site.methods.gate.set()
    assert site.methods.closed.wait(site.bound)


def test_a_stream_that_stalls_ends_with_the_error(site: Any) -> None:
    status, _, body = site.post("/rpc/greeter/stall", b'{"n":2}', "Fan-Timeout-Ms: 300")
    lines = [line.strip() for line in body.split(b"\n") if line.startswith(b"{")]
    assert (status, lines[:2]) == (200, [b'{"chunk":0}', b'{"chunk":1}'])
    assert b'"code":"deadline_exceeded"' in lines[2]
    site.methods.gate.set()  # the generator is not closed before its thread has left it
    assert site.methods.closed.wait(site.bound)


@pytest.mark.parametrize("header", ["Fan-Timeout-Ms: soon", "Fan-Hops: -1", "Fan-Gen: 1e3"])
def test_a_malformed_number_is_refused(site: Any, header: str) -> None:
    status, _, value = site.post("/rpc/greeter/hello", b"", header)
    assert (status, value["error"]["reason"]) == (400, "malformed")
    assert not site.methods.seen


@pytest.mark.parametrize(
    "header",
    [
        "Origin: http://evil.example",
        "Origin: null",
        "Sec-Fetch-Site: cross-site",
        "Host: evil.example",
        "Host: 127.0.0.1.evil.example",
    ],
)
def test_a_web_page_cannot_call(site: Any, header: str) -> None:
    status, _, value = site.post("/rpc/greeter/hello", b"", header)
    assert (status, value["error"]["code"]) == (403, "permission_denied")
    assert not site.methods.seen


def test_a_host_of_the_settings_may_be_named(site: Any) -> None:
    settings = Settings(registry="memory:", http_hosts=("api.example",))
    listener = HttpTransport(settings).serve("", site.methods)
    try:
        site.address = listener.address
        assert site.post("/rpc/greeter/hello", b"", "Host: api.example:80")[0] == 200
    finally:
        listener.close()


@pytest.mark.parametrize("how", ["length", "chunked"])
def test_a_body_that_is_too_large_is_413(site: Any, how: str) -> None:
    listener = HttpTransport(Settings(registry="memory:", max_body=1000)).serve("", site.methods)
    try:
        site.address = listener.address
        host = listener.address.url.removeprefix("http://").encode()
        head = b"POST /rpc/greeter/echo HTTP/1.1\r\nHost: %b\r\n" % host
        if how == "length":
            answer = site.raw(head + b"Content-Length: 1001\r\n\r\n")
        else:
            part = b"200\r\n" + b"x" * 512 + b"\r\n"
            answer = site.raw(head + b"Transfer-Encoding: chunked\r\n\r\n" + part * 2)
        assert answer.startswith(b"HTTP/1.1 413")
        assert b"payload_too_large" in answer
    finally:
        listener.close()
    assert not site.methods.seen


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff\xfe garbage \r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS hello
        b"POST /rpc/greeter/hello HTTP/1.1\r\nContent-Length: ten\r\n\r\n",
        b"POST /rpc/a/b HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST http://[::1 HTTP/1.1\r\n\r\n",
    ],
)
def test_the_server_lives_through_garbage(site: Any, garbage: bytes) -> None:
    with site.connect() as sock:
        sock.sendall(garbage)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(65536)
    assert not site.methods.seen
    assert site.call("hello").body == b'"Hello World"'


def test_half_a_request_holds_nobody_up(site: Any) -> None:
    with site.connect() as sock:
        sock.sendall(
            b"POST /rpc/greeter/hello HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{"
        )
        assert site.call("hello").code == "ok"
    assert site.call("hello").code == "ok"
    assert len(site.methods.seen) == 2


def test_a_handler_learns_that_its_caller_left(site: Any) -> None:
    with site.connect() as sock:
        sock.sendall(
            b"POST /rpc/greeter/watch HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n"
        )
        assert site.methods.entered.wait(site.bound)
    assert site.methods.left.wait(site.bound)


def test_a_drain_answers_what_is_in_flight_and_refuses_the_rest(site: Any) -> None:
    future = site.transport.submit(site.address, site.ask("hold"))
    assert site.methods.entered.wait(site.bound)
    site.listener.drain()
    refused = site.call("hello")
    assert (refused.code, refused.reason, refused.executed) == ("unavailable", "draining", "no")
    site.methods.gate.set()
    assert future.result(site.bound).code == "ok"


def test_a_close_waits_for_what_is_in_flight(site: Any) -> None:
    future = site.transport.submit(site.address, site.ask("hold"))
    assert site.methods.entered.wait(site.bound)
    closing = threading.Thread(target=site.listener.close, args=(site.bound,))
    closing.start()
    site.methods.gate.set()
    assert future.result(site.bound).code == "ok"
    closing.join(site.bound)
    site.listener.close()


def test_a_close_does_not_wait_for_ever(site: Any) -> None:
    future = site.transport.submit(site.address, site.ask("hold"))
    assert site.methods.entered.wait(site.bound)
    site.listener.close(0.05)
    answer = future.exception(site.bound) or future.result()
    assert answer.code == "unavailable"
    assert answer.executed == "maybe"


def test_it_listens_on_loopback_unless_told_otherwise(site: Any) -> None:
    assert site.address.url.startswith("http://127.0.0.1:")
    assert not site.address.url.endswith("/")


def test_a_place_that_is_taken_is_told(site: Any) -> None:
    with pytest.raises(AlreadyExists, match="in use"):
        site.transport.serve(site.address.url.removeprefix("http://"), site.methods)


@pytest.mark.parametrize("bind", ["127.0.0.1:http", "127.0.0.1:99999", "/tmp/x:1", "no host:80"])
def test_a_place_that_makes_no_sense_is_refused(site: Any, bind: str) -> None:
    with pytest.raises(InvalidArgument):
        site.transport.serve(bind, site.methods)
