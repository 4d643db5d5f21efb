"""Calls through a proxy that the environment names."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

from fan.errors import (
    DeadlineExceeded,
    Internal,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)
from fan.message import Request
from fan.model import Address
from fan.settings import Settings
from fan.transports.http import HttpTransport

#: A server that only the proxy can find.
CALLEE = Address("http://callee.test:8000")
SECURE = Address("https://callee.test:8443")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[1]"
Talk = Callable[[socket.socket, bytes], None]


def request(**fields: Any) -> Request:
    return Request(**{"id": "r", "service": "a", "method": "b", "timeout_ms": 20_000, **fields})


class Proxy:
    """Keeps the heads that it is sent; `talk` gets each connection and its first head."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.talk: Talk = lambda connection, _: connection.sendall(OK)
        self.over = threading.Event()

    def __call__(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            part = connection.recv(65536)
            if not part:
                return
            head += part
        self.heads.append(head)
        self.talk(connection, head)


@pytest.fixture
def proxy(answering: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    for name in ("no_proxy", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    made = Proxy()
    url = answering(made).url
    monkeypatch.setenv("HTTP_PROXY", url)
    monkeypatch.setenv("HTTPS_PROXY", url)
    yield made
    made.over.set()


@pytest.fixture
def transport(proxy: Proxy) -> Iterator[HttpTransport]:
    made = HttpTransport()
    yield made
    for thread in threading.enumerate():  # one whose call nobody waits for ends soon, by itself
        if thread.name == "fan-http-proxy":
            thread.join(20)
            assert not thread.is_alive()
    made.close()


def test_a_call_goes_through_the_proxy_as_it_is(proxy: Proxy, transport: HttpTransport) -> None:
    assert transport.call(CALLEE, request(caller="me", body=b"[2]")).body == b"[1]"
    assert transport.submit(CALLEE, request()).result(20).body == b"[1]"
    head, _, body = proxy.heads[0].partition(b"\r\n\r\n")
    line, *lines = head.lower().split(b"\r\n")
    assert line == b"post http://callee.test:8000/rpc/a/b http/1.1"
    assert b"host: callee.test:8000" in lines
    assert b"fan-caller: me" in lines
    assert not any(name.startswith((b"user-agent", b"accept-encoding")) for name in lines)
    assert body in (b"", b"[2]")


def test_a_push_goes_through_the_proxy(proxy: Proxy, transport: HttpTransport) -> None:
    proxy.talk = lambda connection, _: connection.sendall(
        b"HTTP/1.1 202 Accepted\r\nFan-Code: ok\r\nContent-Length: 0\r\n\r\n"
    )
    assert transport.send(CALLEE, request(kind="push")).code == "ok"
    assert proxy.heads[0].startswith(b"POST http://callee.test:8000/push/a/b ")


def test_loopback_and_named_hosts_go_past_the_proxy(
    site: Any, proxy: Proxy, transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setenv("NO_PROXY", "callee.test")
    assert transport.call(site.address, site.ask("hello")).code == "ok"
    monkeypatch.setattr(socket, "getaddrinfo", resolve)  # nobody beyond this machine is asked
    with pytest.raises(Unavailable):
        transport.call(Address("http://callee.test:1"), request())
    assert proxy.heads == []


def test_a_variable_for_another_scheme_is_none_for_this(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HTTP_PROXY")
    transport = HttpTransport()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    with pytest.raises(Unavailable):
        transport.call(CALLEE, request())
    assert proxy.heads == []
    transport.close()


def test_a_stream_is_refused_with_the_way_past_the_proxy(transport: HttpTransport) -> None:
    with pytest.raises(Unimplemented, match="NO_PROXY") as info:
        next(transport.stream(CALLEE, request(kind="stream")))
    assert info.value.reason == "streaming_unsupported"


def test_tls_goes_through_a_tunnel(
    proxy: Proxy, transport: HttpTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("callee.test").configure_cert(context)

    def tunnel(connection: socket.socket, head: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
        with context.wrap_socket(connection, server_side=True) as secured:
            while secured.recv(65536):
                secured.sendall(OK)

    proxy.talk = tunnel
    for _ in range(2):
        assert transport.call(SECURE, request()).body == b"[1]"
    assert [head.split(b"\r\n")[0] for head in proxy.heads] == [
        b"CONNECT callee.test:8443 HTTP/1.1"
    ]


def test_an_authority_that_nobody_trusts_is_refused_behind_a_proxy_too(
    proxy: Proxy, transport: HttpTransport
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("callee.test").configure_cert(context)

    def tunnel(connection: socket.socket, head: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
        with suppress(OSError):
            context.wrap_socket(connection, server_side=True).close()

    proxy.talk = tunnel
    with pytest.raises(Unavailable, match="certificate") as info:
        transport.call(SECURE, request())
    assert (info.value.reason, info.value.executed) == ("connect_failed", "no")


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", b"\xff\r\n\r\n", b""]
)
def test_a_proxy_that_makes_no_tunnel_means_not_executed(
    proxy: Proxy, transport: HttpTransport, answer: bytes
) -> None:
    proxy.talk = lambda connection, _: connection.sendall(answer)
    with pytest.raises(Unavailable) as info:
        transport.call(SECURE, request())
    assert (info.value.reason, info.value.executed) == ("connect_failed", "no")


def test_a_proxy_that_is_not_there_means_not_executed(
    transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
    with pytest.raises(Unavailable, match="proxy") as info:
        transport.call(CALLEE, request())
    assert (info.value.reason, info.value.executed) == ("connect_failed", "no")


@pytest.mark.parametrize("url", ["socks5://127.0.0.1:1", "gopher://127.0.0.1:1", "http://[", "x"])
def test_a_proxy_that_cannot_be_one_is_told(
    proxy: Proxy, transport: HttpTransport, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", url)
    with pytest.raises(Unavailable, match="proxy") as info:
        transport.call(CALLEE, request())
    assert (info.value.reason, info.value.executed) == ("connect_failed", "no")


@pytest.mark.parametrize("address", [CALLEE, SECURE], ids=["sent", "tunnel"])
def test_a_silent_proxy_costs_no_more_than_the_deadline(
    proxy: Proxy, transport: HttpTransport, address: Address
) -> None:
    assert transport.call(CALLEE, request()).code == "ok"  # httpx is loaded
    proxy.talk = lambda *_: proxy.over.wait(20) and None
    with pytest.raises(DeadlineExceeded) as info:
        transport.call(address, request(timeout_ms=2000))
    assert info.value.reason == "client_timer"
    assert info.value.executed == ("maybe" if address is CALLEE else "no")


def test_a_reply_that_drips_costs_no_more_than_the_deadline(
    proxy: Proxy, transport: HttpTransport
) -> None:
    def drip(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
        while not proxy.over.wait(0.02):
            connection.sendall(b"1")

    assert transport.call(CALLEE, request()).code == "ok"  # httpx is loaded
    proxy.talk = drip
    with pytest.raises(DeadlineExceeded) as info:
        transport.call(CALLEE, request(timeout_ms=2000))
    assert info.value.executed == "maybe"


def test_a_connection_lost_behind_a_proxy_may_have_executed(
    proxy: Proxy, transport: HttpTransport
) -> None:
    for answer in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1"):
        proxy.talk = lambda connection, _, answer=answer: connection.sendall(answer)
        with pytest.raises(Unavailable) as info:
            transport.call(CALLEE, request())
        assert (info.value.reason, info.value.executed) == ("connection_lost", "maybe")


def test_a_malformed_reply_behind_a_proxy_is_told(proxy: Proxy, transport: HttpTransport) -> None:
    proxy.talk = lambda connection, _: connection.sendall(b"\xff\xfe noise\r\n\r\n")
    with pytest.raises(Internal) as info:
        transport.call(CALLEE, request())
    assert info.value.reason == "malformed_reply"


def test_a_reply_above_the_limit_behind_a_proxy_is_refused(proxy: Proxy) -> None:
    transport = HttpTransport(Settings(registry="memory:", max_body=2))
    with pytest.raises(ResourceExhausted) as info:
        transport.call(CALLEE, request())
    assert (info.value.reason, info.value.executed) == ("payload_too_large", "yes")
    transport.close()
