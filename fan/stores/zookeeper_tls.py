"""TLS to the servers: one context for all connections, and no socket left behind by a handshake
that fails, as kazoo leaves them."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import Any

from fan.errors import InvalidArgument
from fan.stores.zookeeper_handler import Handler
from fan.stores.zookeeper_url import Ensemble


def context_of(ensemble: Ensemble) -> ssl.SSLContext:
    """Who is trusted, and who we are. Names are checked. Raises InvalidArgument (bad_setting) for
    files that cannot be used."""
    try:
        context = ssl.create_default_context()
        if ensemble.ca:
            context.load_verify_locations(ensemble.ca)
        if ensemble.cert:
            context.load_cert_chain(ensemble.cert, ensemble.key)
    except OSError as error:
        files = [path for path in (ensemble.ca, ensemble.cert, ensemble.key) if path]
        raise InvalidArgument(
            f"the registry {ensemble} cannot be used with {', '.join(files)}: {error}",
            reason="bad_setting",
        ) from error
    return context


class TlsHandler(Handler):
    """The same with connections of our own making."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        self._context = context

    def select(
        self,
        reads: Sequence[Any],
        writes: Sequence[Any],
        errors: Sequence[Any],
        timeout: float | None = None,
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """What can be read or written; also what TLS has decrypted already, of which the socket
        itself knows nothing. A TLS proxy sends several answers in one piece, and all but the first
        would lie there until more comes."""
        ready = [sock for sock in reads if isinstance(sock, ssl.SSLSocket) and sock.pending()]
        if not ready:
            return super().select(reads, writes, errors, timeout)
        others = [sock for sock in reads if sock not in ready]
        found, writable, broken = super().select(others, writes, errors, 0)
        return [*ready, *found], writable, broken

    def create_connection(
        self, address: tuple[str, int], hostname: str, timeout: float, **_: Any
    ) -> ssl.SSLSocket:
        """Connect to an address, which is the host's of that name. Raises OSError."""
        plain = socket.create_connection(address, timeout)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return self._context.wrap_socket(plain, server_hostname=hostname)
        except BaseException:
            plain.close()
            raise
