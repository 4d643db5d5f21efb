"""The contract of a transport, held against ipc."""

from __future__ import annotations

from typing import ClassVar

from fan.testing.contracts import TransportContract


class TestIpc(TransportContract):
    scheme: ClassVar[str] = "ipc"
    # A hello, then the beginning of a frame of 1000 bytes that never comes to its end.
    drip: ClassVar[bytes] = b"fanipc\x01\x00" + b"\x00\x00\x03\xe8\x02\x00\x00\x00\x01" + b"x" * 990
