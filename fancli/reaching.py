"""Whether something answers at an address, and what it says: for services that are not of fan."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from fancli.params import Usage

#: Seconds for one try.
_PATIENCE = 1.0
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
    """The text at a URL. Raises Usage where it cannot be had."""
    from urllib.request import urlopen

    if urlsplit(url).scheme not in _PORTS:
        raise Usage(f"{url!r} is no http URL")
    try:
        with urlopen(url, timeout=timeout) as answer:
            text: str = answer.read().decode()
    except (OSError, ValueError) as exc:
        raise Usage(f"{url} cannot be read: {getattr(exc, 'reason', exc)}") from exc
    return text
