"""Ports for servers that stay theirs while they are down."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack, suppress

from fan.errors import ResourceExhausted

#: The lowest port to take.
_LOWEST = 15_000
#: Linux's default range of ports for outgoing connections begins here.
_USUAL_LIMIT = 32_768
_TRIES = 200


def free_ports(count: int) -> tuple[int, ...]:
    """`count` ports of 127.0.0.1 that nobody listens on.

    They lie below those that the kernel gives to outgoing connections and to port 0, so that nobody
    gets one by chance between a server's end and its restart. Raises ResourceExhausted when there
    are none.
    """
    highest = max(_limit(), _LOWEST + 1_000)
    found: list[int] = []
    with ExitStack() as held:
        for _ in range(_TRIES):
            if len(found) == count:
                return tuple(found)
            port = random.randrange(_LOWEST, highest)
            with suppress(OSError):
                # Held to the end, so that it cannot be found twice.
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
    raise ResourceExhausted("no port of 127.0.0.1 is free", reason="no_port", executed="no")


def is_listening(port: int) -> bool:
    """Whether somebody accepts connections on `port` of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def ask(port: int, question: bytes, end: bytes = b"", timeout: float = 1.0) -> bytes:
    """What the server on `port` answers to `question`: up to `end`, or else up to its end of file;
    what there is after a failure or `timeout` seconds without a byte."""
    answer = b""
    with (
        suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection,
    ):
        connection.sendall(question)
        while not end or end not in answer:
            more = connection.recv(65_536)
            if not more:
                break
            answer += more
    return answer


def _limit() -> int:
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
            return int(file.read().split()[0])
    except OSError:
        return _USUAL_LIMIT
