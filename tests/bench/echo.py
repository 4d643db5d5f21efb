"""The base line of ipc: a bare echo of MessagePack over a unix socket, a thread per connection.

No names, no errors, no deadline, no registry: what a round trip costs at least. `python echo.py
PATH` is the server; it ends when its stdin closes.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import msgspec

LENGTH = struct.Struct("<I")
#: About 100 bytes of JSON.
PAYLOAD = {"id": 4711, "name": "Ada Lovelace", "tags": ["a", "b"], "score": 1.5, "note": "x" * 30}

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


def read_frame(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        return b""
    (size,) = LENGTH.unpack_from(data)
    while len(data) < size + LENGTH.size:
        data += connection.recv(65536)
    return data[LENGTH.size :]


def write_frame(connection: socket.socket, body: bytes) -> None:
    connection.sendall(LENGTH.pack(len(body)) + body)


def answer(connection: socket.socket) -> None:
    with connection:
        while body := read_frame(connection):
            write_frame(connection, _encode(_decode(body)))


def serve(path: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(128)

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)


class Client:
    """One connection. Not to be shared between threads."""

    def __init__(self, path: str) -> None:
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(path)

    def call(self, payload: Any) -> Any:
        write_frame(self.connection, _encode(payload))
        return _decode(read_frame(self.connection))

    def close(self) -> None:
        self.connection.close()


@contextlib.contextmanager
def server() -> Iterator[str]:
    """A server in its own process until the block ends; the value is the socket's path."""
    with tempfile.TemporaryDirectory(prefix="fan-") as folder:
        path = f"{folder}/echo.sock"
        with subprocess.Popen(
            [sys.executable, __file__, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            process.stdout.readline()
            try:
                yield path
            finally:
                process.stdin.close()


if __name__ == "__main__":
    serve(sys.argv[1])
