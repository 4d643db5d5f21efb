"""What requests and answers look like as AMQP messages.

`message_id` and `correlation_id` are the id, `app_id` the caller, `type` the kind, `expiration`
the time that is left; every other field is a header `fan-<field>` (`codec.TextForm`), the code of
an answer `fan-status`. The body of an error is JSON, `{"error": {...}}`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
from pika import BasicProperties

from fan.codec import TextForm
from fan.errors import CLASSES, InvalidArgument
from fan.message import JSON, Request, Response

#: Headers that are the broker's, never the user's.
_OWN = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "cc", "bcc")
_REQUEST = TextForm(Request, less=("id", "caller", "kind"), own=_OWN)
_RESPONSE = TextForm(
    Response,
    names={"code": "fan-status"},
    less=("id", "kind", "reason", "message", "type", "retry_after_ms", "seq"),
    own=_OWN,
)
#: Bytes of headers that fit a frame of 128 KB with what else is in it; more would end the
#: connection.
MAX_HEADERS = 100_000
#: `delivery_mode` of what is gone with the broker, and of what survives it.
TRANSIENT, PERSISTENT = 1, 2

# Of pushes and events, beside the envelope: when it was accepted (epoch ms), how often it was given
# to a worker before this copy of it was made, and why it is dead.
AT, DELIVERIES, ERROR = "fan-at-ms", "fan-deliveries", "fan-error"
#: The broker's own count of the times a message came back to a quorum queue.
RETURNED = "x-delivery-count"

_KINDS = ("call", "push", "event")
_encode = msgspec.json.Encoder().encode


class _Failure(msgspec.Struct):
    """The object under "error"."""

    reason: str = ""
    message: str = ""
    type: str | None = None
    details: Any = None
    retry_after_ms: int | None = None


class _Body(msgspec.Struct):
    error: _Failure


_decode_error = msgspec.json.Decoder(_Body).decode


def call_properties(request: Request, correlation: str, user: str) -> BasicProperties:
    """The properties of a call. Raises InvalidArgument for headers that cannot be sent."""
    return BasicProperties(
        request.content_type,
        None,
        _headers(request, user),
        TRANSIENT,
        None,
        correlation,
        "amq.rabbitmq.reply-to",
        None,
        request.id,
        None,
        request.kind,
        user if request.principal else None,  # which the broker checks
        request.caller,
    )


def post_properties(request: Request, user: str) -> BasicProperties:
    """The properties of a push or event, for a queue that survives the broker."""
    headers = _headers(request, user)
    headers[AT] = str(int(time.time() * 1000))
    return BasicProperties(
        content_type=request.content_type,
        headers=headers,
        delivery_mode=PERSISTENT,
        expiration=str(request.ttl_ms) if request.ttl_ms else None,
        message_id=request.id,
        type=request.kind,
        user_id=user if request.principal else None,
        app_id=request.caller,
    )


def _headers(request: Request, user: str) -> dict[str, str]:
    headers = dict(_REQUEST.encode(request))
    if sum(map(len, headers.values())) > MAX_HEADERS:
        raise InvalidArgument(
            f"the headers have more than {MAX_HEADERS} bytes: send them as arguments",
            reason="malformed",
        )
    return headers


def request_of(properties: BasicProperties, body: bytes) -> Request:
    """The request in a message. Raises InvalidArgument for what is none."""
    kind = properties.type
    if kind not in _KINDS:
        raise InvalidArgument("the message is no request", reason="malformed")
    fields, users = _REQUEST.decode(text_headers(properties.headers))
    if "timeout_ms" not in fields or not properties.message_id:
        raise InvalidArgument("the message is no request: it has no deadline", reason="malformed")
    if kind != "event" and not (fields.get("service") and fields.get("method")):
        raise InvalidArgument("the message is no request: it has no method", reason="malformed")
    fields.setdefault("service", "")
    fields.setdefault("method", "")
    return Request(
        id=properties.message_id,
        kind=kind,
        caller=properties.app_id or "",
        content_type=properties.content_type or JSON,
        headers=users,
        body=body,
        **fields,
    )


def text_headers(headers: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Headers as text, names in lower case; what is no text and no number is left out."""
    out = []
    for name, value in (headers or {}).items():
        if type(value) is str:
            out.append((name.lower(), value))
        elif isinstance(value, int):
            out.append((name.lower(), str(value)))
        elif type(value) is bytes:
            out.append((name.lower(), value.decode("latin-1")))
    return out


def number(properties: BasicProperties, name: str) -> int:
    """A header that holds a count, 0 where it is missing or none."""
    value = (properties.headers or {}).get(name, 0)
    if type(value) is str and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value)
    return int(value) if isinstance(value, int) and value > 0 else 0  # pika has an int of its own


def reply_properties(response: Response, correlation: str) -> tuple[BasicProperties, bytes]:
    """Properties and body of an answer."""
    body, content_type = response.body, response.content_type
    if response.code != "ok":
        body, content_type = _error_body(response), JSON
    headers = dict(_reply_headers(response))
    if response.code != "ok":
        headers["fan-executed"] = response.executed
    properties = BasicProperties(
        content_type, None, headers, TRANSIENT, None, correlation, None, None, None, None, "reply"
    )
    return properties, body


def _reply_headers(response: Response) -> list[tuple[str, str]]:
    """Of an answer whose own headers cannot be sent, those of the envelope."""
    try:
        pairs = _RESPONSE.encode(response)
        if sum(len(value) for _, value in pairs) <= MAX_HEADERS:
            return pairs
    except InvalidArgument:
        pass
    return _RESPONSE.encode(msgspec.structs.replace(response, headers={}))


def _error_body(response: Response) -> bytes:
    failure = _Failure(
        response.reason, response.message, response.type, response.details, response.retry_after_ms
    )
    try:
        return _encode(_Body(failure))
    except (TypeError, ValueError, OverflowError, RecursionError):
        failure.details = None
        return _encode(_Body(failure))


def response_of(properties: BasicProperties, body: bytes, id: str) -> Response:
    """The answer in a message. Raises ValueError for what is none."""
    if properties.type != "reply":
        raise ValueError("it is not marked as a reply")
    try:
        fields, users = _RESPONSE.decode(text_headers(properties.headers))
    except InvalidArgument as exc:
        raise ValueError(exc.message) from exc
    if fields.get("executed", "yes") not in ("no", "maybe", "yes"):
        raise ValueError("fan-executed is none of no, maybe and yes")
    code = fields.get("code", "ok")
    if code == "ok":
        content_type = properties.content_type or JSON
        return Response(id=id, headers=users, content_type=content_type, body=body, **fields)
    if code not in CLASSES:
        fields["code"] = "unknown"
    failure = _decode_error(body).error
    return Response(
        id=id,
        headers=users,
        reason=failure.reason,
        message=failure.message,
        type=failure.type,
        details=failure.details,
        retry_after_ms=failure.retry_after_ms,
        **fields,
    )


def copy_of(properties: BasicProperties, user: str, **changes: Any) -> BasicProperties:
    """The same properties with some changed, for a message that `user` sends on. The broker takes a
    `user_id` from its owner alone; without it a principal counts no more."""
    copied = BasicProperties(
        content_type=properties.content_type,
        headers=dict(properties.headers or {}),
        delivery_mode=properties.delivery_mode,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        expiration=properties.expiration,
        message_id=properties.message_id,
        type=properties.type,
        user_id=user if properties.user_id == user else None,
        app_id=properties.app_id,
    )
    for name, value in changes.items():
        setattr(copied, name, value)
    return copied
