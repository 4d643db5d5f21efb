"""A text from a URL: had within its time, or not at all."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from fancli.params import Usage
from fancli.reaching import MAX_TEXT, fetch

#: A bound on hangs.
BOUND = 30.0


@contextmanager
def serving(answer: Callable[[socket.socket, threading.Event], object]) -> Iterator[str]:
    """The URL of a server that answers one request as it likes, until the event is set."""
    stop = threading.Event()

    def run(server: socket.socket) -> None:
        peer, _ = server.accept()
        with peer, suppress(OSError):
            peer.recv(65536)
            answer(peer, stop)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=run, args=(server,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        finally:
            stop.set()
            thread.join(BOUND)


def drip(peer: socket.socket, stop: threading.Event, head: bytes) -> None:
    peer.sendall(head)
    while not stop.wait(0.05):
        peer.sendall(b"x")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nx-slow: ",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n",
    ],
)
def test_a_server_that_drips_is_given_up_in_time(head: bytes) -> None:
    late = pytest.raises(Usage, match=r"not all of it came within 0\.3 s")
    with serving(lambda peer, stop: drip(peer, stop, head)) as url, late:
        fetch(url, 0.3)


def test_what_is_larger_than_any_text_is_refused() -> None:
    def pour(peer: socket.socket, stop: threading.Event) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not stop.is_set():
            peer.sendall(b"x" * 65536)

    with serving(pour) as url, pytest.raises(Usage, match=f"more than {MAX_TEXT} bytes"):
        fetch(url, BOUND)


def test_a_text_is_read_to_its_end() -> None:
    def say(peer: socket.socket, stop: threading.Event) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\n\r\nopenapi: 3.1.0\n")

    with serving(say) as url:
        assert fetch(url, BOUND) == "openapi: 3.1.0\n"
