"""Which HTTP requests are fan's: path, method, `Host`, no web page; and what they ask for.

The server takes JSON from curl on loopback, and a browser would send it as well: for a page of
another origin, and for a name that an attacker points at 127.0.0.1 (DNS rebinding). Neither gets
through.
"""

from __future__ import annotations

import re
import socket
from typing import Any, Final

from fan.context import new_id
from fan.errors import (
    FanError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unimplemented,
)
from fan.message import BYTES, DEFAULT_TIMEOUT_MS, FAN_JSON, JSON, Request
from fan.transports import http_wire as wire

#: Bytes of header that a request may have.
MAX_HEAD: Final = 64 * 1024
#: Content types that are passed on; the rest is JSON whatever curl calls it.
_CONTENT_TYPES = frozenset({JSON, FAN_JSON, BYTES})
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_ANY = frozenset({"0.0.0.0", "::"})
#: Milliseconds in the units of `grpc-timeout`.
_GRPC_UNITS = {"H": 3_600_000, "M": 60_000, "S": 1000, "m": 1, "u": 1e-3, "n": 1e-6}


class Refused(Exception):
    """A request that is answered without the handler, with a status of its own (0: the code's)."""

    def __init__(
        self, error: FanError, status: int = 0, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.status = status
        self.headers = headers


class Gate:
    """The rules of one server: where it listens, and the `Host` values that it also answers to."""

    def __init__(self, host: str, port: int, hosts: tuple[str, ...]) -> None:
        self._is_any = host in _ANY
        # Nobody can connect to 0.0.0.0 from elsewhere; the machine's name is what others know.
        shown = socket.gethostname() if self._is_any else host
        #: `HOST:PORT` as it is registered.
        self.authority = f"[{shown}]:{port}" if ":" in shown else f"{shown}:{port}"
        self._hosts = _LOOPBACK | {host, shown.lower(), *(h.lower() for h in hosts)}

    def request_of(self, scope: dict[str, Any]) -> Request:
        """The Request of an ASGI scope, still without its body. Raises Refused."""
        raw = scope["headers"]
        if sum(len(name) + len(value) for name, value in raw) > MAX_HEAD:
            error = ResourceExhausted("the headers are too large", reason="payload_too_large")
            raise Refused(error, 431, ((b"connection", b"close"),))
        headers = wire.text_headers(raw)
        named = dict(headers)
        self._check_source(named)
        kind, service, method = _target(scope)
        try:
            fields, users = wire.REQUEST_HEADERS.decode(headers)
        except InvalidArgument as exc:
            raise Refused(exc) from exc
        if kind != "push":
            accepts = named.get("accept", "")
            is_stream = fields.get("kind") == "stream" or wire.NDJSON in accepts
            kind = "stream" if is_stream else "call"
        content_type = named.get("content-type", "").partition(";")[0].strip().lower()
        fields.update(
            kind=kind,
            service=service,
            method=method,
            headers=users,
            content_type=content_type if content_type in _CONTENT_TYPES else JSON,
            timeout_ms=fields.get("timeout_ms") or _foreign_timeout(named),
        )
        fields.setdefault("id", new_id())
        return Request(**fields)

    def _check_source(self, named: dict[str, str]) -> None:
        host = named.get("host", "").lower()
        bare = _host_of(host)
        if not (bare in self._hosts or host in self._hosts or (self._is_any and _is_ip(bare))):
            raise _forbidden(
                f"this server does not answer to the host {host[:100]!r}: name it in the setting"
                " http_hosts",
                "unexpected_host",
            )
        origin = named.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
            raise _forbidden("a web page of another origin may not call", "foreign_origin")
        if named.get("sec-fetch-site", "").lower() in ("cross-site", "same-site"):
            raise _forbidden("a web page of another site may not call", "foreign_origin")


def _forbidden(message: str, reason: str) -> Refused:
    return Refused(PermissionDenied(message, reason=reason))


def _host_of(authority: str) -> str:
    """`HOST:PORT` less the port, and an IPv6 address less its brackets."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.partition(":")[0]


def _is_ip(host: str) -> bool:
    return bool(re.fullmatch(r"[0-9.]+|[0-9a-f:.]*:[0-9a-f:.]*", host))


def _target(scope: dict[str, Any]) -> tuple[str, str, str]:
    """Kind, service and method of the path. GET asks for health, nothing else."""
    path: str = scope["path"]
    verb: str = scope["method"]
    parts = path.split("/")
    if len(parts) != 4 or parts[0] or parts[1] not in ("rpc", "push") or not all(parts[2:]):
        raise Refused(
            NotFound(
                f"there is nothing at {path[:200]!r}: POST /rpc/SERVICE/METHOD or"
                " /push/SERVICE/METHOD",
                reason="no_such_path",
            )
        )
    is_health = parts[1] == "rpc" and parts[3] == "health"
    if verb != "POST" and not (verb == "GET" and is_health):
        allowed = b"GET, POST" if is_health else b"POST"
        message = f"{verb} is not understood here; use POST"
        error = Unimplemented(message, reason="method_not_allowed")
        raise Refused(error, 405, ((b"allow", allowed),))
    return ("push" if parts[1] == "push" else "call"), parts[2], parts[3]


def _foreign_timeout(named: dict[str, str]) -> int:
    """Milliseconds of `Context-TTL-MS` (TChannel) or `grpc-timeout`, else the default."""
    text = named.get("context-ttl-ms", "")
    if re.fullmatch(r"\d{1,12}", text):
        return int(text) or 1
    found = re.fullmatch(r"(\d{1,8})([HMSmun])", named.get("grpc-timeout", ""))
    if found:
        return max(1, int(int(found[1]) * _GRPC_UNITS[found[2]]))
    return DEFAULT_TIMEOUT_MS
