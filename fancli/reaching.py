"""Whether something answers at an address, and what it says: for services that are not of fan."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Any, Self
from urllib.parse import urlsplit

from fancli.params import Usage

#: Seconds for one try.
_PATIENCE = 1.0
#: Bytes of a text at most; what is larger is something else.
MAX_TEXT = 16 << 20
_PORTS = {"http": 80, "https": 443}


def is_reached(url: str) -> bool:
    """Whether a connection to the address can be made; an address over a broker always can."""
    parts = urlsplit(url)
    if parts.scheme not in (*_PORTS, "unix"):
        return True
    try:
        if parts.scheme == "unix":
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.settimeout(_PATIENCE)
                sock.connect(parts.path)
            return True
        place = (parts.hostname or "", parts.port or _PORTS[parts.scheme])
        socket.create_connection(place, _PATIENCE).close()
    except (OSError, ValueError):
        return False
    return True


def fetch(url: str, timeout: float) -> str:
    """The text at a URL, had within `timeout` seconds however slowly it comes. Raises Usage where
    it cannot be had."""
    from http.client import HTTPException

    if urlsplit(url).scheme not in _PORTS:
        raise Usage(f"{url!r} is no http URL")
    limit = _Limit(timeout)
    try:
        with limit, limit.open(url, timeout) as answer:
            data: bytes = answer.read(MAX_TEXT + 1)
            if limit.is_over:
                raise TimeoutError
        if len(data) > MAX_TEXT:
            raise ValueError(f"it has more than {MAX_TEXT} bytes")
        return data.decode()
    except (OSError, HTTPException, ValueError) as exc:
        why = getattr(exc, "reason", None) or exc
        if limit.is_over:
            why = f"not all of it came within {timeout:g} s"
        raise Usage(f"{url} cannot be read: {why}") from exc


class _Limit:
    """Ends what urllib does at a point of time: its own timeout begins anew with each byte."""

    def __init__(self, seconds: float) -> None:
        self.is_over = False
        self._guard = threading.Lock()
        self._socks: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._timer.cancel()
        with self._guard:
            for sock in self._socks:
                sock.close()
            self._socks.clear()

    def open(self, url: str, timeout: float) -> Any:
        """What `urlopen` gives."""
        from http.client import HTTPConnection, HTTPSConnection
        from urllib.request import HTTPHandler, HTTPSHandler, build_opener

        watch = self._watch

        class Http(HTTPConnection):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self._create_connection = watch

        class Https(HTTPSConnection):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self._create_connection = watch

        class Plain(HTTPHandler):
            def http_open(self, req: Any) -> Any:
                return self.do_open(Http, req)

        class Secure(HTTPSHandler):
            def https_open(self, req: Any) -> Any:
                return self.do_open(Https, req)

        return build_opener(Plain, Secure).open(url, timeout=timeout)

    def _watch(self, *args: Any) -> socket.socket:
        sock = socket.create_connection(*args)
        with self._guard:
            # Another descriptor of the same connection: TLS takes the first one for itself.
            self._socks.append(sock.dup())
        if self.is_over:
            self._end()
        return sock

    def _end(self) -> None:
        self.is_over = True
        with self._guard:
            for sock in self._socks:
                with suppress(OSError):  # closed by the other end
                    sock.shutdown(socket.SHUT_RDWR)
