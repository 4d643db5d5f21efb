"""Where a Redis is: `redis://host:port/db`, and the credentials that are never shown."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec

from fan.errors import InvalidArgument
from fan.model import Address

PORT = 6379
_SCHEMES = ("redis", "rediss")


class Place(msgspec.Struct, frozen=True):
    """One database of one server. `login` is the whole URL, with the credentials and the options
    of redis-py's TLS in it (`?ssl_ca_certs=...`)."""

    host: str
    port: int
    db: int
    is_tls: bool
    login: str

    def __repr__(self) -> str:
        return f"<Place {self.url}>"

    @property
    def url(self) -> str:
        """The URL without credentials: as it is registered and told."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' if self.is_tls else ''}://{host}:{self.port}/{self.db}"

    @property
    def address(self) -> Address:
        """The same as an address."""
        return Address(self.url)

    @property
    def has_credentials(self) -> bool:
        """Whether its URL says who we are."""
        return "@" in self.login.partition("//")[2].partition("/")[0]


def place_of(url: str, known: Place | None = None) -> Place:
    """The place of a URL. One without credentials has those of `known`, where that is the same
    database. Raises InvalidArgument for what is none."""
    try:
        parts = urlsplit(url)
        db = parts.path.strip("/")
        # int() takes signs and blanks too.
        if parts.scheme not in _SCHEMES or not parts.hostname or not (db or "0").isdecimal():
            raise ValueError
        place = Place(
            parts.hostname, parts.port or PORT, int(db or 0), parts.scheme == "rediss", url
        )
    except ValueError:
        raise InvalidArgument(
            f"{_shown(url)!r} is no address of Redis; write redis://host:port/0",
            reason="bad_address",
        ) from None
    if known is not None and place.url == known.url and not place.has_credentials:
        return known
    return place


def options_of(place: Place) -> dict[str, Any]:
    """What redis-py's connection is told: where, who, and its options of TLS. Raises
    InvalidArgument for an option that it cannot read."""
    from redis import connection

    parse_url: Any = connection.parse_url  # which has no types
    try:
        found = parse_url(place.login)
    except ValueError as exc:
        raise InvalidArgument(f"the URL of {place.url}: {exc}", reason="bad_address") from exc
    return {
        name: value
        for name, value in found.items()
        if name in ("username", "password") or name.startswith("ssl_")
    }


def _shown(url: str) -> str:
    """The URL as far as it holds no password."""
    scheme, slashes, rest = url.partition("://")
    return f"{scheme}{slashes}{rest.rpartition('@')[2]}"
