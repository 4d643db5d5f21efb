"""What a request and its answer look like in HTTP/1.1: paths, headers, statuses, bodies, lines.

A call is `POST /rpc/<service>/<method>`, a push `POST /push/<service>/<method>`. The body holds the
arguments or the result; an error is the status of its code, `Fan-Code` and the body
`{"error": {"code", "reason", "message", "type", "details", "executed", "retry_after_ms"}}`.

A stream is `application/x-ndjson`, one JSON object in a line::

    {"chunk": VALUE}            an item; one that is bytes as a whole is {"base64": TEXT}
    {"end": {"code": "ok"}}     the last line, always; after a failure an error's object

so an answer that ends without an `end` line was cut off.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from fan.codec import TextForm
from fan.errors import CLASSES, MAYBE, FanError, Internal, InvalidArgument
from fan.message import BYTES, JSON, Request, Response
from fan.model import Address

NDJSON: Final = "application/x-ndjson"

#: Headers that are HTTP's or a browser's, never the user's. A "-" at the end makes a prefix.
_HTTP_OWN = (
    "connection", "keep-alive", "proxy-", "te", "trailer", "transfer-encoding", "upgrade", "expect",
    "host", "content-", "http2-settings",
)  # fmt: skip
REQUEST_HEADERS = TextForm(
    Request,
    names={"key": "idempotency-key"},
    less=("service", "method"),
    own=(*_HTTP_OWN, "grpc-timeout", "context-ttl-ms", "origin", "sec-fetch-"),
)
RESPONSE_HEADERS = TextForm(
    Response,
    less=("kind", "code", "message", "type", "seq"),
    own=(*_HTTP_OWN, "date", "server", "retry-after"),
)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_unsafe = re.compile(r"[^A-Za-z0-9._~-]").sub
#: Statuses of servers that know nothing of fan; the rest of 4xx is invalid_argument, else unknown.
_FOREIGN = {
    401: "unauthenticated",
    403: "permission_denied",
    404: "not_found",
    409: "aborted",
    429: "resource_exhausted",
    502: "unavailable",
    503: "unavailable",
    504: "deadline_exceeded",
}


class Origin(NamedTuple):
    """A server: what a connection is kept for. `authority` is the value of `Host`."""

    scheme: str
    host: str
    port: int
    authority: str
    prefix: str


def origin_of(address: Address) -> Origin:
    """The server at an address; a path in the URL goes before `/rpc`. Raises InvalidArgument."""
    scheme, found, rest = address.url.partition("://")
    authority, slash, path = rest.partition("/")
    host, colon, port = authority.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = authority, "443" if scheme == "https" else "80"
    bare = host.removeprefix("[").removesuffix("]")
    is_port = port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536
    if not found or not bare or not is_port or re.search(r"[^!-~]|[@?#]", rest):
        raise InvalidArgument(
            f"{address.url!r} is no address of an http server: http://HOST:PORT",
            reason="bad_address",
        )
    return Origin(scheme, bare, int(port), authority, (slash + path).rstrip("/"))


def path_of(request: Request) -> str:
    """`/rpc/<service>/<method>`, or `/push/...`."""
    root = "push" if request.kind == "push" else "rpc"
    return f"/{root}/{_quoted(request.service)}/{_quoted(request.method)}"


def _quoted(name: str) -> str:
    return _unsafe(lambda m: "".join(f"%{b:02X}" for b in m[0].encode("utf-8", "replace")), name)


def request_head(origin: Origin, request: Request) -> bytes:
    """Everything before the body. Raises InvalidArgument for headers that cannot be sent."""
    lines = [
        f"POST {origin.prefix}{path_of(request)} HTTP/1.1\r\nhost: {origin.authority}",
        f"content-type: {_line(request.content_type)}",
        f"content-length: {len(request.body)}",
    ]
    lines += [f"{name}: {value}" for name, value in REQUEST_HEADERS.encode(request)]
    return "\r\n".join([*lines, "\r\n"]).encode("utf-8", "replace")


def _line(text: str) -> str:
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise InvalidArgument(f"the content type {text!r} cannot be sent", reason="malformed")
    return text


def text_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Headers as text: names in lower case, values UTF-8, or Latin-1 where they are not."""
    out = []
    for name, value in headers:
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = value.decode("latin-1")
        out.append((name.decode("latin-1").lower(), text.strip(" \t")))
    return out


def response_of(
    request: Request, status: int, raw_headers: Iterable[tuple[bytes, bytes]], body: bytes
) -> Response:
    """The answer to `request` that an HTTP response holds. Raises Internal (malformed_reply)."""
    headers = text_headers(raw_headers)
    named = dict(headers)
    code = named.get("fan-code", "")
    if not code:
        return _foreign(request, status, headers, body)
    fields, users = _fields(headers)
    if (answered := fields.pop("id", request.id)) != request.id:
        raise malformed(f"it answers the request {answered[:40]!r}, not {request.id!r}")
    common = {**fields, "id": request.id, "headers": users}
    if code == "ok":
        return Response(
            **common, content_type=_media_type(named.get("content-type", JSON)), body=body
        )
    return _failed(common, _error_in(body, code))


def _media_type(value: str) -> str:
    return value.partition(";")[0].strip().lower()


def _fields(headers: list[tuple[str, str]]) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        fields, users = RESPONSE_HEADERS.decode(headers)
    except InvalidArgument as exc:
        raise malformed(exc.message) from exc
    if fields.get("executed", "yes") not in ("no", "maybe", "yes"):
        raise malformed("its Fan-Executed is none of no, maybe and yes")
    return fields, users


def _error_in(body: bytes, code: str) -> dict[str, Any]:
    try:
        value = _decode(body)["error"] if body else {}
        return {"code": code, **value} if value.get("code", code) == code else {"code": code}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {"code": code}


_ERROR_FIELDS = {
    "code": str, "reason": str, "message": str, "type": str, "executed": str, "retry_after_ms": int,
}  # fmt: skip


def _failed(common: dict[str, Any], error: dict[str, Any]) -> Response:
    """A Response from the error object of a body or of an `end` line; what is missing there may
    stand in the headers."""
    fields = {
        name: error[name]
        for name, kind in _ERROR_FIELDS.items()
        if isinstance(error.get(name), kind) and not isinstance(error[name], bool)
    }
    if fields.get("executed", "yes") not in ("no", "maybe", "yes"):
        del fields["executed"]
    if fields["code"] not in CLASSES:
        fields["code"] = "unknown"
    return Response(**{**common, **fields, "details": error.get("details")})


def _foreign(
    request: Request, status: int, headers: list[tuple[str, str]], body: bytes
) -> Response:
    named = dict(headers)
    if 200 <= status < 300:
        content_type = _media_type(named.get("content-type", JSON))
        kind = BYTES if content_type == BYTES else JSON
        return Response(id=request.id, content_type=kind, body=body)
    code = _FOREIGN.get(status) or ("invalid_argument" if 400 <= status < 500 else "unknown")
    retry_after = named.get("retry-after", "")
    return Response(
        id=request.id,
        code=code,
        message=f"the server answered {status}; it does not speak fan",
        executed=MAYBE,
        retry_after_ms=int(retry_after) * 1000 if re.fullmatch(r"\d{1,6}", retry_after) else None,
        details={"status": status, "body": body[:512].decode("utf-8", "replace")},
    )


def malformed(what: str) -> Internal:
    """The error for a reply that cannot be read."""
    return Internal(f"the reply cannot be read: {what}", reason="malformed_reply")


def response_parts(
    response: Response, status: int = 0
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of an answer. `status` replaces that of the code."""
    headers = [(b"fan-code", response.code.encode("ascii", "replace"))]
    body, content_type = response.body, response.content_type
    if response.code != "ok":
        body, content_type = _encode({"error": error_object(response)}), JSON
        status = status or CLASSES.get(response.code, FanError).http_status
        if response.retry_after_ms is not None:
            headers.append((b"retry-after", b"%d" % -(-response.retry_after_ms // 1000)))
    headers.append((b"content-type", content_type.encode("ascii", "replace")))
    headers.append((b"content-length", b"%d" % len(body)))
    headers += response_headers(response)
    return status or 200, headers, body


def response_headers(response: Response) -> list[tuple[bytes, bytes]]:
    """The `Fan-*` and user headers of an answer; the user's are left out when one of them
    cannot be sent."""
    try:
        pairs = RESPONSE_HEADERS.encode(response)
    except InvalidArgument:
        pairs = RESPONSE_HEADERS.encode(msgspec.structs.replace(response, headers={}))
    if response.executed == "yes" and response.code != "ok":
        pairs.append(("fan-executed", "yes"))
    # A request that could not be read has no id to answer to.
    return [(name.encode(), value.encode("utf-8", "replace")) for name, value in pairs if value]


def error_object(response: Response) -> dict[str, Any]:
    """The object under "error" of a body, and under "end" of a failed stream."""
    error = {
        "code": response.code,
        "reason": response.reason,
        "message": response.message,
        "type": response.type,
        "details": response.details,
        "executed": response.executed,
    }
    if response.retry_after_ms is not None:
        error["retry_after_ms"] = response.retry_after_ms
    try:
        _encode(error)
    except (TypeError, ValueError, OverflowError, RecursionError):
        error["details"] = None
    return error


def stream_line(response: Response) -> bytes:
    """A chunk or the end of a stream as a line."""
    if response.kind == "chunk":
        if response.content_type == BYTES:
            return _encode({"base64": response.body}) + b"\n"
        return b'{"chunk":%b}\n' % (response.body or b"null")
    end: dict[str, Any] = error_object(response) if response.code != "ok" else {"code": "ok"}
    # The head went out before anybody knew; over other transports the end says it, too.
    if response.served:
        end["served"] = response.served
    if response.gen:
        end["gen"] = response.gen
    return _encode({"end": end}) + b"\n"


class _Line(msgspec.Struct):
    chunk: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    base64: bytes | msgspec.UnsetType = msgspec.UNSET
    end: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


_decode_line = msgspec.json.Decoder(_Line).decode


def chunk_of(line: bytes, common: dict[str, Any], seq: int) -> Response:
    """The chunk or end in a line of a stream; `common` are the fields that all lines share. Raises
    Internal (malformed_reply)."""
    try:
        read = _decode_line(line)
    except (ValueError, RecursionError) as exc:
        raise malformed(f"line {seq + 1} of the stream is no chunk: {exc}") from exc
    if isinstance(read.chunk, msgspec.Raw):
        return Response(**common, kind="chunk", seq=seq, body=bytes(read.chunk))
    if isinstance(read.base64, bytes):
        return Response(**common, kind="chunk", seq=seq, content_type=BYTES, body=read.base64)
    if not isinstance(read.end, dict):
        raise malformed(f"line {seq + 1} of the stream is neither a chunk nor the end")
    common = {**common, "kind": "end", "seq": seq}
    served, gen = read.end.get("served"), read.end.get("gen")
    if isinstance(served, str):
        common["served"] = served
    if isinstance(gen, int):
        common["gen"] = gen
    code = read.end.get("code")
    if code == "ok":
        return Response(**common)
    return _failed(common, {**read.end, "code": code if isinstance(code, str) else "unknown"})


def stream_fields(request: Request, raw_headers: Iterable[tuple[bytes, bytes]]) -> dict[str, Any]:
    """The fields that all chunks of a streamed answer share."""
    fields, users = _fields(text_headers(raw_headers))
    return {**fields, "id": request.id, "headers": users}
