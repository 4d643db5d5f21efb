"""The answer that carries an error, whatever the error holds."""

from __future__ import annotations

from typing import Any

import msgspec

from fan.error_types import text_of
from fan.errors import FanError
from fan.message import Request, Response


def error_response(request: Request, exc: FanError, served: str = "") -> Response:
    """The answer that carries an error."""
    after = exc.retry_after_ms
    return Response(
        id=request.id,
        kind="end" if request.kind == "stream" else "reply",
        code=exc.code,
        reason=text_of(exc.reason),
        message=text_of(exc.message),
        type=exc.type,
        details=_details_of(exc.details) if exc.details is not None else None,
        executed=exc.executed,
        retry_after_ms=int(after) if after is not None else None,
        served=served,
        gen=request.gen,
    )


def _details_of(details: Any) -> Any:
    """The details as every wire carries them. What cannot travel is told as text, of an exception's
    arguments each for itself."""
    found = _portable(details)
    if found is not _NOTHING:
        return found
    if type(details) is dict and details.keys() == {"args"} and type(details["args"]) is list:
        told = [(_portable(value), value) for value in details["args"]]
        return {"args": [_told(value) if sent is _NOTHING else sent for sent, value in told]}
    return {"unserializable": _told(details)}


def _portable(value: Any) -> Any:
    """The value as JSON has it, `_NOTHING` where no JSON or no MessagePack can hold it."""
    try:
        found = msgspec.json.decode(msgspec.json.encode(value))
        msgspec.msgpack.encode(found)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return _NOTHING
    return found


_NOTHING = object()


def _told(value: Any) -> str:
    try:
        return text_of(repr(value))[:500]
    except Exception:
        return text_of(value)
