"""Somebody who stands between a client and its broker, and keeps back what a test names."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.transports.test_amqp.conftest import HANG, until

#: Methods by their numbers.
CONSUME_OK, CANCEL, CONFIRM, NACK = (60, 21), (60, 30), (60, 80), (60, 120)
_METHOD = 1
Method = tuple[int, int]


class Between:
    """Listens at `url`, and passes on to the broker at another. From the broker it lets no method
    through that is in `withheld`, and once `is_silent` nothing at all."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._broker = (parts.hostname, parts.port)
        self._server = socket.create_server(("127.0.0.1", 0))
        at = f"127.0.0.1:{self._server.getsockname()[1]}"
        login = parts.netloc.rpartition("@")[0]
        self.url = parts._replace(netloc=f"{login}@{at}" if login else at).geturl()
        self.withheld: set[Method] = set()
        self.is_silent = False
        #: What was kept back, and what the client said, in order.
        self.kept: list[Method] = []
        self.said: list[Method] = []
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        for one in (self._server, *self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(HANG)
        for one in (self._server, *self._sockets):
            one.close()

    def waits_for(self, method: Method) -> None:
        """Wait until such a one was kept back."""
        until(lambda: method in self.kept)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            broker = socket.create_connection(self._broker)
            self._sockets += [client, broker]
            for pump in (self._from_client, self._from_broker):
                self._threads.append(threading.Thread(target=pump, args=(client, broker)))
                self._threads[-1].start()

    def _from_client(self, client: socket.socket, broker: socket.socket) -> None:
        with suppress(OSError):
            broker.sendall(_take(client, 8))  # the protocol's name
            self._pump(client, broker, self._hear)

    def _from_broker(self, client: socket.socket, broker: socket.socket) -> None:
        with suppress(OSError):
            self._pump(broker, client, self._lets_through)

    def _pump(
        self, source: socket.socket, sink: socket.socket, lets_through: Callable[[Method], bool]
    ) -> None:
        """Pass on one frame after the other."""
        try:
            while head := _take(source, 7):
                kind, _, size = struct.unpack(">BHI", head)
                rest = _take(source, size + 1)
                method = struct.unpack(">HH", rest[:4]) if kind == _METHOD else (0, 0)
                if lets_through(method):
                    sink.sendall(head + rest)
        finally:
            with suppress(OSError):
                sink.shutdown(socket.SHUT_WR)

    def _hear(self, method: Method) -> bool:
        self.said.append(method)
        return True

    def _lets_through(self, method: Method) -> bool:
        if self.is_silent or method in self.withheld:
            self.kept.append(method)
            return False
        return True


def _take(source: socket.socket, size: int) -> bytes:
    """So many bytes, or none where the other has gone."""
    data = b""
    while len(data) < size:
        more = source.recv(size - len(data))
        if not more:
            return b""
        data += more
    return data
