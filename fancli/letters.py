"""Messages for who looks at them: an event that comes, a letter that waits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from fancli.mask import mask_pairs

if TYPE_CHECKING:
    from fan import Letter, Request
    from fancli.env import Environment

_BYTES = "application/octet-stream"


def body_of(request: Request) -> bytes:
    """The arguments as compact JSON, as they came; what is none as `{"$base64": ...}`."""
    from fancli.render import to_json

    if not request.body:
        return b"{}"
    if request.content_type != _BYTES:
        try:
            msgspec.json.decode(request.body)
            return msgspec.json.format(request.body, indent=-1)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    return to_json(request.body)


def event_object(env: Environment, request: Request, transport: str) -> dict[str, Any]:
    """An event with everything that is known of it; `at` is when it came here."""
    return {
        "v": 1,
        "ok": True,
        "topic": request.topic,
        "transport": transport,
        "at": now(),
        **_fields(env, request),
        "attempt": request.attempt,
        "body": msgspec.Raw(body_of(request)),
    }


def letter_row(env: Environment, letter: Letter) -> dict[str, Any]:
    """A message in a queue, by the name that the broker has for it."""
    request = letter.request
    fields = _fields(env, request)
    return {
        "id": letter.number,
        "at": letter.at or None,
        "deliveries": letter.deliveries,
        "kind": request.kind,
        "target": request.topic or f"{request.service}.{request.method}".strip("."),
        "error": letter.error or None,
        "body": msgspec.Raw(body_of(request)),
        "message": fields.pop("id"),
        **fields,
    }


def _fields(env: Environment, request: Request) -> dict[str, Any]:
    shows_all = env.show_secrets
    return {
        "id": request.id,
        "key": request.key or None,
        "caller": request.caller or None,
        "principal": request.principal or None,
        "ttl_ms": request.ttl_ms,
        "trace_id": request.traceparent[3:35] or None,
        "headers": dict(request.headers) if shows_all else mask_pairs(request.headers),
        "baggage": dict(request.baggage) if shows_all else mask_pairs(request.baggage),
        "content_type": request.content_type,
    }


def now() -> str:
    """RFC 3339, UTC, to the millisecond."""
    seconds, ms = divmod(time.time_ns() // 1_000_000, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{ms:03d}Z"
