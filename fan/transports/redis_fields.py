"""A request as the fields of a stream entry, a reply as one element of a list.

A request's fields have the envelope's names; what holds its default is left out. `baggage` is the
W3C text, `headers` a JSON object, `reply` the list that the answer goes to. A reply is a line of
JSON, the envelope with `corr` for the request's id, and then the body as it is.
"""

from __future__ import annotations

from typing import Any

import msgspec

from fan.codec import decode_baggage, encode_baggage
from fan.errors import Executed, Internal, InvalidArgument
from fan.message import JSON, Request, Response

_INTEGERS = frozenset({b"timeout_ms", b"v", b"gen", b"ttl_ms", b"deadline_ms", b"attempt", b"hops"})
_KINDS = frozenset({"call", "stream", "push", "event"})
_ALWAYS = ("id", "service", "method", "timeout_ms")
#: Field -> its default, for those that are written only where they differ. `instance` and `attempt`
#: are what the sender meant; the receiver has its own.
_REST: tuple[tuple[str, Any], ...] = tuple(
    (name, default)
    for name, default in zip(
        Request.__struct_fields__[len(_ALWAYS) :], Request.__struct_defaults__, strict=True
    )
    if name not in ("body", "baggage", "headers")
)
_NAMES: dict[bytes, str] = {name.encode(): name for name in Request.__struct_fields__}
#: What the transport adds to an entry; none of it is a field of a request.
REPLY, ONLY, ERROR, DELIVERIES, AT = b"reply", b"for", b"error", b"deliveries", b"at"
_OWN = frozenset({REPLY, ONLY, ERROR, DELIVERIES, AT})

Fields = dict[bytes, bytes]
#: The fields of an entry as Redis has them: name, value, name, value.
Flat = list[bytes]


def encode_request(request: Request, **more: str) -> list[bytes | str | int]:
    """The fields of a request, flat, and `more` of them. Raises InvalidArgument for what no header
    may hold."""
    out: list[bytes | str | int] = [
        "id", request.id, "service", request.service, "method", request.method,
        "timeout_ms", request.timeout_ms,
    ]  # fmt: skip
    for name, default in _REST:
        value = getattr(request, name)
        if value != default:
            out += (name, value)
    if request.baggage:
        out += ("baggage", encode_baggage(request.baggage))
    if request.headers:
        try:
            out += ("headers", msgspec.json.encode(request.headers))
        except (TypeError, ValueError) as exc:  # a lone surrogate, say
            raise InvalidArgument(f"a header cannot be sent: {exc}", reason="malformed") from exc
    if request.body:
        out += ("body", request.body)
    for name, text in more.items():
        out += (name, text)
    return out


def fields_of(flat: Flat) -> Fields:
    """The fields by name."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def decode_request(fields: Fields, **ours: Any) -> Request:
    """The request of an entry, with those fields that the receiver knows better. Raises
    InvalidArgument (malformed) for one that no fan wrote."""
    found: dict[str, Any] = {}
    try:
        for name, value in fields.items():
            field = _NAMES.get(name)
            if field is None:
                continue
            if name in _INTEGERS:
                found[field] = _natural(value)
            elif field == "body":
                found[field] = value
            elif field == "baggage":
                found[field] = decode_baggage(value.decode())
            elif field == "headers":
                found[field] = _decode_headers(value)
            else:
                found[field] = value.decode()
        found.update(ours)
        request = Request(**found)
        if request.kind not in _KINDS:
            raise ValueError(f"the kind {request.kind!r}")
    except (TypeError, ValueError) as exc:  # also a UnicodeDecodeError and msgspec's
        raise InvalidArgument(f"not a request: {exc}", reason="malformed") from exc
    return request


def decode_anything(fields: Fields, number: str, service: str) -> Request:
    """The request of an entry, or of one that nobody can read a request without a method, whose
    body is the entry as JSON: for who looks at a queue."""
    try:
        return decode_request(fields)
    except InvalidArgument:
        told = {
            name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
            for name, value in fields.items()
            if name not in _OWN
        }
        body = msgspec.json.encode(told)
        return Request(
            id=number, service=service, method="", timeout_ms=0, body=body, content_type=JSON
        )


class _Head(msgspec.Struct, omit_defaults=True, gc=False):
    """A reply without its body."""

    corr: str
    v: int = 1
    kind: str = "reply"
    code: str = "ok"
    reason: str = ""
    message: str = ""
    type: str | None = None
    details: Any = None
    executed: Executed = "yes"
    retry_after_ms: int | None = None
    served: str = ""
    gen: int = 0
    headers: dict[str, str] = {}
    content_type: str = JSON


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Head).decode


def encode_reply(response: Response) -> bytes:
    """The element of a reply list. Raises TypeError or ValueError for what has no JSON form."""
    if response.code == "ok" and not response.headers:
        head = _Head(
            response.id,
            executed=response.executed,
            served=response.served,
            gen=response.gen,
            content_type=response.content_type,
        )
    else:
        fields = {name: getattr(response, name) for name in _Head.__struct_fields__[1:]}
        head = _Head(response.id, **fields)
    return b"%b\n%b" % (_encode(head), response.body)


def decode_reply(data: bytes) -> Response:
    """A reply from its element. Raises Internal (malformed_reply), with the `id` that it answers in
    the details where one can tell."""
    line, _, body = data.partition(b"\n")
    try:
        head = _decode(line)
    except (ValueError, RecursionError) as exc:
        raise Internal(
            f"not a reply: {exc}",
            reason="malformed_reply",
            executed="maybe",
            details={"id": _answered(line)},
        ) from exc
    if head.code == "ok" and not head.headers:
        return Response(
            id=head.corr,
            executed=head.executed,
            served=head.served,
            gen=head.gen,
            content_type=head.content_type,
            body=body,
        )
    fields = {name: getattr(head, name) for name in _Head.__struct_fields__[1:]}
    return Response(id=head.corr, body=body, **fields)


class _Address(msgspec.Struct, gc=False):
    """Whose a reply is."""

    corr: str = ""


def _answered(line: bytes) -> str:
    try:
        return msgspec.json.decode(line, type=_Address).corr
    except (ValueError, RecursionError):
        return ""


def _natural(value: bytes) -> int:
    # int() takes signs, blanks and underscores too, and 4300 digits of them.
    if not (value.isdigit() and len(value) <= 18):
        raise ValueError(f"{value[:40]!r} is no whole number")
    return int(value)


def _decode_headers(value: bytes) -> dict[str, str]:
    return msgspec.json.decode(value, type=dict[str, str])
