"""Names of hosts: what they resolve to, and when they do not."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from fan.errors import DeadlineExceeded, Unavailable
from fan.model import Address

#: An address of documentation (RFC 5737), and a name that is nobody's.
NAME = "callee.test"


def resolving(monkeypatch: pytest.MonkeyPatch, *places: Any) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def test_the_next_address_of_a_name_is_tried(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    port = int(site.address.url.rpartition(":")[2])
    resolving(monkeypatch, ("127.0.0.1", free_port()), ("127.0.0.1", port))
    address = Address(f"http://localhost:{port}")
    assert site.transport.call(address, site.ask("hello")).body == b'"Hello World"'


@pytest.mark.parametrize("count", [0, 2])
def test_a_name_whose_addresses_all_refuse_is_a_failed_connect(
    site: Any, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    resolving(monkeypatch, *[("127.0.0.1", free_port())] * count)
    with pytest.raises(Unavailable, match=NAME) as info:
        site.transport.call(Address(f"http://{NAME}:80"), site.ask("hello"))
    assert (info.value.reason, info.value.executed) == ("connect_failed", "no")


def test_a_name_that_is_not_known_is_a_failed_connect(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(Unavailable, match="not known") as info:
        site.transport.call(Address(f"http://{NAME}:80"), site.ask("hello"))
    assert (info.value.reason, info.value.executed) == ("connect_failed", "no")


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".test"])
def test_a_name_that_is_none_is_a_failed_connect(site: Any, name: str) -> None:
    with pytest.raises(Unavailable) as info:
        site.transport.call(Address(f"http://{name}:80"), site.ask("hello"))
    assert (info.value.reason, info.value.executed) == ("connect_failed", "no")


def test_a_resolver_that_hangs_is_a_deadline_before_anything_was_sent(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def hang(*_: Any, **__: Any) -> list[Any]:
        over.wait(20)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with pytest.raises(DeadlineExceeded) as info:
        site.transport.call(Address(f"http://{NAME}:80"), site.ask("hello", timeout_ms=100))
    assert (info.value.reason, info.value.executed) == ("client_timer", "no")
    over.set()
