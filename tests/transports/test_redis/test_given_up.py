"""What a caller gave up before Redis had it: nothing was executed, and nothing ever will be."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from fan.errors import DeadlineExceeded
from fan.message import Request
from fan.settings import Settings
from fan.testing.contracts.probe import BOUND
from fan.transports.redis import RedisTransport
from fan.transports.redis_loop import Loop
from fan.transports.redis_pipe import Pipe
from fan.transports.redis_place import place_of
from fan.transports.redis_scripts import PUBLISH


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that lets in, and says nothing by itself."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(BOUND)
        yield server


def url_of(server: socket.socket) -> str:
    return f"redis://127.0.0.1:{server.getsockname()[1]}/0"


@pytest.mark.parametrize("kind", ["push", "event"])
def test_what_a_silent_redis_never_got_was_not_executed(silent: socket.socket, kind: Any) -> None:
    transport = RedisTransport(Settings(redis_url=url_of(silent)))
    request = Request(id="1", service="s", method="m", topic="t", kind=kind, timeout_ms=100)
    send = transport.send if kind == "push" else transport.publish
    try:
        with pytest.raises(DeadlineExceeded) as info:
            send(transport.home(), request)
    finally:
        transport.close()
    assert info.value.executed == "no"


def test_a_script_that_was_given_up_is_not_sent_when_redis_answers_at_last(
    silent: socket.socket,
) -> None:
    loop = Loop()
    pipe = Pipe(loop, place_of(url_of(silent)))
    try:
        with pytest.raises(DeadlineExceeded) as info:
            pipe.ask_script(PUBLISH, ("a",), ("given up",), deadline=time.monotonic() + 0.1)
        assert info.value.executed == "no"
        peer, _ = silent.accept()
        with peer:
            peer.settimeout(BOUND)
            heard = take(peer, b"PING\r\n")
            pipe.post(b"*1\r\n$4\r\nTIME\r\n", 1, lambda result: None)
            peer.sendall(b":7\r\n+PONG\r\n")
            heard += take(peer, b"TIME\r\n")
        assert b"given up" not in heard
    finally:
        loop.soon(pipe.close)
        loop.close()


def test_a_script_that_redis_does_not_know_is_withdrawn_as_long_as_its_text_is_not_sent(
    silent: socket.socket,
) -> None:
    loop: Any = Still()
    pipe = Pipe(loop, place_of(url_of(silent)))
    item = pipe.run(PUBLISH, ("a",), ("text",), lambda result: None)
    pipe.withdraw(item)
    item.done([refusal()])  # as if it had been sent, and the connection lost since
    assert pipe.withdraw(item)
    assert not pipe.withdraw(item)


class Still:
    """A loop that does nothing."""

    is_here = True

    def soon(self, run: Any) -> None:
        """Never."""


def refusal() -> Any:
    from fan.transports.redis_resp import Refusal

    return Refusal("NOSCRIPT No matching script")


def take(peer: socket.socket, end: bytes) -> bytes:
    """What comes, up to `end`."""
    heard = b""
    while end not in heard:
        data = peer.recv(65536)
        assert data
        heard += data
    return heard
