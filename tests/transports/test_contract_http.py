"""The contract of a transport, held against http."""

from __future__ import annotations

from typing import ClassVar

from fan.testing.contracts import TransportContract


class TestHttp(TransportContract):
    scheme: ClassVar[str] = "http"
    bind: ClassVar[str] = "http=127.0.0.1:0"
    is_authenticated: ClassVar[bool] = False
    drip: ClassVar[bytes] = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9000\r\n\r\n"
        + b"1" * 9000
    )
