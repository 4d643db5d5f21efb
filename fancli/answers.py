"""What a call came to, as the objects that `--json` and batches print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from fan import FanError, Response, Result
    from fancli.output import Output

_BYTES = "application/octet-stream"


def document_of(response: Response) -> bytes:
    """The result as compact JSON: what came, not what a decoder made of its numbers. Raises
    Internal (malformed_reply)."""
    if response.content_type != _BYTES and response.body:
        try:
            document = msgspec.json.format(response.body, indent=-1)
            document.decode()  # the formatter looks at no text
            return document
        except (ValueError, RecursionError):
            pass  # the decoder says better what is wrong with it
    from fan import decode_result
    from fancli.render import to_json

    return to_json(decode_result(response))


def envelope(
    target: str, result: Result, document: bytes, *, shows_all: bool = False
) -> dict[str, Any]:
    """The object of a call that went well; `document` is its result in JSON."""
    response = result.response
    headers = response.headers
    if headers and not shows_all:
        from fancli.mask import mask_pairs

        headers = mask_pairs(headers)
    return {
        "v": 1,
        "ok": True,
        "target": target,
        "version": response.version or None,
        "transport": result.transport,
        "instance": response.instance or None,
        "gen": response.gen or None,
        "result": msgspec.Raw(document),
        "headers": headers,
        "trace_id": result.trace_id,
        "attempts": result.attempts,
        "timing_ms": result.timing_ms,
    }


def item_of(document: bytes, seq: int) -> dict[str, Any]:
    """The object of one item of a stream."""
    return {"v": 1, "ok": True, "kind": "item", "seq": seq, "result": msgspec.Raw(document)}


def end_of(target: str, last: Response, count: int) -> dict[str, Any]:
    """The object at the end of a stream."""
    return {
        "v": 1,
        "ok": True,
        "kind": "end",
        "target": target,
        "version": last.version or None,
        "instance": last.instance or None,
        "gen": last.gen or None,
        "items": count,
    }


def failure_of(out: Output, target: str, exc: FanError) -> dict[str, Any]:
    """The object of a call that failed."""
    from fancli.exits import exit_of

    exc.target = exc.target or target
    return out.failure_of(exc, exit_of(exc.code, exc.reason, exc.executed))


def broken_promise(
    target: str, reason: str, message: str, details: Any, **more: Any
) -> dict[str, Any]:
    """The object of what was answered, and is not what it was to be (exit 9)."""
    from fancli.exits import Exit
    from fancli.render import failure

    found = failure(
        target=target,
        code="failed_precondition",
        reason=reason,
        exit=Exit.PARTIAL,
        message=message,
        details=details,
        executed="yes",
    )
    return {**found, **more}


def as_value(found: dict[str, Any]) -> dict[str, Any]:
    """An object as plain values, its result decoded."""
    value: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found))
    return value
