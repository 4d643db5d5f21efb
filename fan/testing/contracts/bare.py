"""Servers that speak no protocol: they accept, and send bytes at their own pace."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from fan.testing.contracts.probe import BOUND


@contextmanager
def answering(listener: socket.socket, data: bytes, gap: float = 0.0) -> Iterator[None]:
    """Send `data` to whoever connects: all at once, then nothing; or a byte every `gap` seconds."""
    over = threading.Event()
    threads: list[threading.Thread] = []

    def talk(connection: socket.socket) -> None:
        with connection:
            connection.settimeout(BOUND)
            try:
                connection.recv(65536)
                if not gap:
                    connection.sendall(data)
                    over.wait(BOUND)
                    return
                for byte in data:
                    connection.sendall(bytes((byte,)))
                    if over.wait(gap):
                        return
            except OSError:  # the client left
                return

    def accept() -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=talk, args=(connection,))
            threads.append(thread)
            thread.start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield
    finally:
        over.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        acceptor.join(BOUND)
        for thread in threads:
            thread.join(BOUND)
