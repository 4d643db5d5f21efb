"""Envelope and payload to bytes and back: the only place that knows a wire form.

Payloads are JSON on every transport, so a value means the same everywhere: bytes inside a document
are base64 text, datetime RFC 3339, Decimal and UUID their text; an annotated parameter turns them
back. A value that is bytes as a whole travels as such (`application/octet-stream`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from fan.errors import Internal, InvalidArgument
from fan.message import BYTES, FAN_JSON, JSON, Request, Response

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Both(msgspec.Struct):
    """Body of `application/vnd.fan+json`."""

    args: list[Any] = []
    kwargs: dict[str, Any] = {}


_decode_both = msgspec.json.Decoder(Both).decode


def encode_arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[str, bytes]:
    """Content type and body of a call's arguments. Raises InvalidArgument for what JSON cannot
    hold."""
    try:
        if not args:
            return JSON, _encode(kwargs)
        if kwargs:
            return FAN_JSON, _encode({"args": args, "kwargs": kwargs})
        if len(args) == 1 and type(args[0]) is bytes:
            return BYTES, args[0]
        return JSON, _encode(args)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as exc:
        raise InvalidArgument(
            f"the arguments cannot be sent: {exc}", reason="unserializable_args"
        ) from exc


def decode_arguments(content_type: str, body: bytes) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments of a body. Raises InvalidArgument (malformed)."""
    if content_type == BYTES:  # also where there are none: b"" is an argument
        return [body], {}
    if not body:
        return [], {}
    try:
        if content_type == FAN_JSON:
            both = _decode_both(body)
            return both.args, both.kwargs
        value = _decode(body)
    except (ValueError, RecursionError) as exc:
        raise InvalidArgument(f"the arguments are not JSON: {exc}", reason="malformed") from exc
    if type(value) is dict:
        return [], value
    if type(value) is list:
        return value, {}
    raise InvalidArgument(
        "arguments are a JSON object (by name) or array (by position), not a bare value",
        reason="malformed",
    )


def encode_result(value: Any) -> tuple[str, bytes]:
    """Content type and body of a result. Raises Internal for what JSON cannot hold."""
    if type(value) is bytes:
        return BYTES, value
    try:
        return JSON, _encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as exc:
        raise Internal(f"the result cannot be sent: {exc}", reason="unserializable_result") from exc


def decode_result(response: Response) -> Any:
    """The value of a response's body. Raises Internal (malformed_reply)."""
    if response.content_type == BYTES:
        return response.body
    if not response.body:
        return None
    try:
        return _decode(response.body)
    except (ValueError, RecursionError) as exc:
        raise Internal(f"the reply is not JSON: {exc}", reason="malformed_reply") from exc


pack = msgspec.msgpack.Encoder().encode
_unpack_request = msgspec.msgpack.Decoder(Request).decode
_unpack_response = msgspec.msgpack.Decoder(Response).decode


def unpack_request(data: bytes | memoryview) -> Request:
    """A Request from its MessagePack map. Raises InvalidArgument (malformed)."""
    try:
        return _unpack_request(data)
    except (ValueError, RecursionError) as exc:
        raise InvalidArgument(f"not a request: {exc}", reason="malformed") from exc


def unpack_response(data: bytes | memoryview) -> Response:
    """A Response from its MessagePack map. Raises Internal (malformed_reply)."""
    try:
        return _unpack_response(data)
    except (ValueError, RecursionError) as exc:
        raise Internal(f"not a response: {exc}", reason="malformed_reply") from exc


# The text form: a field of the envelope is the header `fan-<field>`, `_` as `-`, left out where it
# holds its default. Text outside printable ASCII is percent-encoded UTF-8. `traceparent`,
# `tracestate` and `baggage` are W3C's own names and formats; the user's headers go verbatim, less
# the protocol's own.

#: What a W3C baggage list may hold (https://www.w3.org/TR/baggage/#limits).
MAX_BAGGAGE_MEMBERS = 64
MAX_BAGGAGE_BYTES = 8192

_W3C = frozenset({"traceparent", "tracestate", "baggage"})
_NOT_TEXT = frozenset({"body", "headers", "content_type", "details"})
_INTEGERS = frozenset(
    {"v", "timeout_ms", "gen", "deadline_ms", "ttl_ms", "attempt", "hops", "retry_after_ms", "seq"}
)

# Patterns that `re` compiles at the first use: most calls have none.
_NOT_PLAIN = r"[^ !-$&-~]+|^ +| +$"
_NOT_OCTET = r"[^!#-$&-+\--:<-\[\]-~]+"
_NOT_TOKEN = r"[^!#$&'*+\-.^_`|~0-9A-Za-z]+"
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_CONTROL = r"[\x00-\x08\x0a-\x1f\x7f]"
_ESCAPES = r"(?:%[0-9A-Fa-f]{2})+"


def _escape(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass"))


def _unescape(text: str) -> str:
    if "%" not in text:
        return text

    def decoded(found: re.Match[str]) -> str:
        return bytes.fromhex(found[0].replace("%", "")).decode("utf-8", "replace")

    return re.sub(_ESCAPES, decoded, text)


def encode_baggage(baggage: Mapping[str, str]) -> str:
    """A W3C `baggage` value. Raises InvalidArgument for more than it may hold."""
    text = ",".join(
        f"{re.sub(_NOT_TOKEN, _escape, key)}={re.sub(_NOT_OCTET, _escape, value)}"
        for key, value in baggage.items()
    )
    if len(baggage) > MAX_BAGGAGE_MEMBERS or len(text) > MAX_BAGGAGE_BYTES:
        raise InvalidArgument(
            f"the baggage has {len(baggage)} members and {len(text)} bytes: at most"
            f" {MAX_BAGGAGE_MEMBERS} and {MAX_BAGGAGE_BYTES} can travel",
            reason="malformed",
        )
    return text


def decode_baggage(text: str) -> dict[str, str]:
    """The members of a W3C `baggage` value, less their properties. What is malformed or beyond the
    limits is dropped, as the specification has it."""
    out: dict[str, str] = {}
    for member in text[:MAX_BAGGAGE_BYTES].split(",")[:MAX_BAGGAGE_MEMBERS]:
        key, equals, value = member.partition(";")[0].partition("=")
        if equals and (name := key.strip()):
            out[_unescape(name)] = _unescape(value.strip())
    return out


class TextForm:
    """How the messages of one type become headers in one protocol, and back.

    `names` gives a field the protocol's own header instead of `fan-<field>`; `less` are fields that
    travel elsewhere (a path, a status); `own` are headers, and prefixes that end in "-", which
    belong to the protocol and so are never the user's.
    """

    def __init__(
        self,
        cls: type[Request | Response],
        *,
        names: Mapping[str, str] | None = None,
        less: Iterable[str] = (),
        own: Iterable[str] = (),
    ) -> None:
        fields = cls.__struct_fields__
        defaults = cls.__struct_defaults__
        absent = (None,) * (len(fields) - len(defaults))  # a mandatory field is always written
        left_out = _NOT_TEXT.union(less)
        self._table = tuple(
            (field, (names or {}).get(field) or header_name(field), default)
            for field, default in zip(fields, absent + defaults, strict=True)
            if field not in left_out
        )
        self._fields = {header: field for field, header, _ in self._table}
        self._not_plain = re.compile(_NOT_PLAIN).sub
        own = {*own, *_W3C, "fan-", *self._fields}
        self._own = frozenset(name for name in own if not name.endswith("-"))
        self._own_prefixes = tuple(name for name in own if name.endswith("-"))

    def encode(self, message: Request | Response) -> list[tuple[str, str]]:
        """The headers of a message, names in lower case. Raises InvalidArgument for one that could
        be taken for something else: a line break in a value ends the header on the wire."""
        out = []
        for field, header, default in self._table:
            value = getattr(message, field)
            if value == default:
                continue
            if field == "baggage":
                if value:
                    out.append((header, encode_baggage(value)))
            elif field in _W3C:
                _check_header(header, value)
                out.append((header, value))
            else:
                out.append((header, self._not_plain(_escape, str(value))))
        for name, value in message.headers.items():
            _check_header(name, value)
            if not self.is_own(lower := name.lower()):
                out.append((lower, value))
        return out

    def decode(self, headers: Iterable[tuple[str, str]]) -> tuple[dict[str, Any], dict[str, str]]:
        """Envelope fields and the user's headers (names in lower case; repeated ones joined by a
        comma). Raises InvalidArgument (malformed) for a number that is none."""
        fields: dict[str, Any] = {}
        users: dict[str, str] = {}
        for name, value in headers:
            field = self._fields.get(name)
            if field is None:
                if not self.is_own(name):
                    users[name] = f"{users[name]}, {value}" if name in users else value
            elif field == "baggage":
                fields[field] = {**fields.get(field, {}), **decode_baggage(value)}
            elif field in _INTEGERS:
                fields[field] = _natural(name, value)
            else:
                fields[field] = value if field in _W3C else _unescape(value)
        return fields, users

    def is_own(self, name: str) -> bool:
        """Whether a header of that name belongs to the protocol, not to the user."""
        return name in self._own or name.startswith(self._own_prefixes)


def user_headers(headers: Mapping[Any, Any]) -> dict[str, str]:
    """A caller's own headers as they travel everywhere, names in lower case. Raises InvalidArgument
    for one that some transport could not send."""
    for name, value in headers.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise InvalidArgument(
                f"the header {name!r} is {value!r}: it has to be text", reason="malformed"
            )
        _check_header(name, value)
    return {name.lower(): value for name, value in headers.items()}


def check_baggage(baggage: Mapping[Any, Any]) -> None:
    """Raises InvalidArgument for what no transport carries: values that are no text, more than W3C
    allows."""
    for name, value in baggage.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise InvalidArgument(
                f"the baggage {name!r} is {value!r}: it has to be text", reason="malformed"
            )
    encode_baggage(baggage)


def header_name(field: str) -> str:
    """The header of an envelope field: `caller_instance` -> `fan-caller-instance`."""
    return field if field in _W3C else "fan-" + field.replace("_", "-")


def _check_header(name: str, value: str) -> None:
    if not re.fullmatch(_TOKEN, name) or re.search(_CONTROL, value):
        raise InvalidArgument(
            f"the header {name!r} cannot be sent: a name is letters, digits and dashes,"
            " a value has no line breaks or control characters",
            reason="malformed",
        )


def _natural(name: str, text: str) -> int:
    # int() takes signs, blanks and underscores too, and 4300 digits of them.
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidArgument(
            f"{name} is {text[:40]!r}: it has to be a whole number", reason="malformed"
        )
    return int(text)
