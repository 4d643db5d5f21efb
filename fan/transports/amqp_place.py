"""Where a RabbitMQ is, and how to log in: what a URL says of it.

`amqp://user:password@host:port/vhost`, `amqps://` over TLS. Of the query, the names that RabbitMQ
itself gives (https://www.rabbitmq.com/uri-query-parameters.html): `heartbeat` (seconds),
`cacertfile`, `certfile`, `keyfile` and `verify` (`verify_peer`, `verify_none`).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import msgspec

from fan.errors import InvalidArgument
from fan.model import Address

PORTS = {"amqp": 5672, "amqps": 5671}
#: Who RabbitMQ lets in from the same machine where nobody set up users.
GUEST = "guest"
_QUERY = ("heartbeat", "cacertfile", "certfile", "keyfile", "verify")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One virtual host of one broker, as one user sees it."""

    scheme: str
    host: str
    port: int
    vhost: str
    user: str = GUEST
    password: str = GUEST
    has_login: bool = False
    #: Seconds between two signs of life, 0 for none; a peer that missed two is taken to be gone.
    heartbeat: int = 0
    cacertfile: str = ""
    certfile: str = ""
    keyfile: str = ""
    is_verified: bool = True

    def __repr__(self) -> str:
        return f"<Place {self.address.url} as {self.user}>"

    @property
    def address(self) -> Address:
        """What others may see: no user, no password, no file of this machine."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        vhost = "" if self.vhost == "/" else quote(self.vhost, safe="")
        return Address(f"{self.scheme}://{host}:{self.port}/{vhost}")

    def parameters(self) -> Any:
        """What pika connects with. Raises OSError and ValueError for certificates that cannot be
        used."""
        import pika

        options = None
        if self.scheme == "amqps":
            options = pika.SSLOptions(self._tls(), self.host)
        return pika.ConnectionParameters(
            self.host,
            self.port,
            self.vhost,
            pika.PlainCredentials(self.user, self.password),
            heartbeat=self.heartbeat,
            ssl_options=options,
            client_properties={"product": "fan", "connection_name": "fan"},
            **_PATIENCE,
        )

    def _tls(self) -> Any:
        import ssl

        context = ssl.create_default_context(cafile=self.cacertfile or None)
        if not self.is_verified:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certfile:
            context.load_cert_chain(self.certfile, self.keyfile or None)
        return context


#: Seconds that one attempt to connect may take: for the socket, and for all of it. It is less than
#: a call's usual deadline, so that its caller is told what is wrong.
_PATIENCE = {"socket_timeout": 2.0, "stack_timeout": 3.0}


def place_of(url: str) -> Place:
    """The place that a URL names. Raises InvalidArgument, without the URL's password."""
    try:
        parts = urlsplit(url)
        usual = PORTS[parts.scheme]
        port = parts.port or usual
        query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        fields = _fields(query)
    except (ValueError, KeyError):
        raise _unknown(url) from None
    if not parts.hostname or parts.fragment or "/" in parts.path[1:]:
        raise _unknown(url)
    if parts.username is not None:
        fields["user"] = unquote(parts.username)
        fields["password"] = unquote(parts.password or "")
        fields["has_login"] = True
    vhost = unquote(parts.path[1:]) or "/"
    return Place(scheme=parts.scheme, host=parts.hostname, port=port, vhost=vhost, **fields)


def _fields(query: dict[str, str]) -> dict[str, Any]:
    if unknown := query.keys() - set(_QUERY):
        raise ValueError(unknown)
    fields: dict[str, Any] = {name: value for name, value in query.items() if name[0] in "ck"}
    if "heartbeat" in query:
        fields["heartbeat"] = int(query["heartbeat"])
    if "verify" in query:
        fields["is_verified"] = {"verify_peer": True, "verify_none": False}[query["verify"]]
    return fields


def _unknown(url: str) -> InvalidArgument:
    return InvalidArgument(
        f"{masked(url)!r} is no address of a RabbitMQ: amqp://HOST:PORT/VHOST", reason="bad_address"
    )


def masked(url: str) -> str:
    """The URL without its password."""
    scheme, found, rest = url.partition("://")
    login, at, where = rest.rpartition("@")
    return f"{scheme}{found}{login.partition(':')[0]}:***@{where}" if at else url
