"""Requests to HTTP servers that know nothing of fan: each method has its own path and verb."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from fan.codec import decode_arguments
from fan.errors import InvalidArgument
from fan.message import JSON, Request, Response
from fan.model import HttpForm
from fan.transports.http_wire import REQUEST_HEADERS, Origin

FORM = "application/x-www-form-urlencoded"
#: Verbs that have no body: their arguments are in the query.
_BODILESS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})

_VARIABLE = re.compile(r"\{([^{}]+)\}")


def written(origin: Origin, form: HttpForm, request: Request) -> tuple[bytes, Request]:
    """The head of a request and the request with the body that goes behind it. Raises
    InvalidArgument (bad_signature) for arguments that the form has no place for."""
    args, named = decode_arguments(request.content_type, request.body)
    if args:
        raise InvalidArgument(
            f"{request.service} is no service of fan: its arguments have names",
            reason="bad_signature",
        )
    rest = dict(named)
    path = _VARIABLE.sub(lambda m: quote(_text(_take(rest, m[1])), safe=""), form.path)
    in_query = [n for n in rest if n in form.query or form.verb in _BODILESS]
    query = urlencode([(n, _text(v)) for n in in_query for v in _values(rest.pop(n))])
    body = _body(form, rest)
    mark = "&" if "?" in path else "?"
    lines = [
        f"{form.verb} {origin.prefix}{path}{mark + query if query else ''} HTTP/1.1",
        f"host: {origin.authority}",
        "accept: */*",
    ]
    if form.verb not in _BODILESS or body:
        lines += [f"content-type: {form.content_type}", f"content-length: {len(body)}"]
    lines += _headers(request)
    head = "\r\n".join([*lines, "\r\n"]).encode("utf-8", "replace")
    return head, msgspec.structs.replace(request, body=body, content_type=form.content_type)


def read(response: Response) -> Response:
    """An answer whose body is a value for us: what is no JSON is a text."""
    if response.code != "ok" or response.content_type != JSON or not response.body:
        return response
    try:
        msgspec.json.decode(response.body)
    except (ValueError, RecursionError):
        text = response.body.decode("utf-8", "replace")
        return msgspec.structs.replace(response, body=msgspec.json.encode(text))
    return response


def _headers(request: Request) -> list[str]:
    """Of an envelope what others understand: the trace, and what the user gave."""
    found = REQUEST_HEADERS.encode(request)
    return [f"{name}: {value}" for name, value in found if not name.startswith("fan-")]


def _take(arguments: dict[str, Any], name: str) -> Any:
    value = arguments.pop(name, None)
    if value is None or value == "":
        raise InvalidArgument(f"the argument {name} is missing", reason="bad_signature")
    return value


def _body(form: HttpForm, rest: Mapping[str, Any]) -> bytes:
    if form.body and rest.keys() <= {form.body}:
        value: Any = rest.get(form.body)
        if value is None:
            return b""
        if isinstance(value, str) and form.content_type.startswith("text/"):
            return value.encode()
        return msgspec.json.encode(value)
    if not rest and form.verb in _BODILESS:
        return b""
    if form.content_type == FORM:
        pairs = [(n, _text(v)) for n, each in rest.items() for v in _values(each)]
        return urlencode(pairs).encode()
    return msgspec.json.encode(rest)


def _values(value: Any) -> list[Any]:
    """The values of one name in a query: None is none, a list as many as it has."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
