"""Pushes and events on their way into Redis: accepted once Redis says so."""

from __future__ import annotations

import time

from fan.errors import FanError, InvalidArgument
from fan.message import Request, Response
from fan.transports.redis_failures import late, too_large
from fan.transports.redis_fields import encode_request
from fan.transports.redis_hub import Hub
from fan.transports.redis_scripts import PUBLISH


def push(hub: Hub, request: Request, max_body: int) -> Response:
    """Put a push into the queue of its service, which is made if need be: that it may be pushed to
    is known to the registry."""
    _check(request, max_body)
    stream = hub.keys.pushes(request.service).stream
    try:
        command = ("XADD", stream, "*", *encode_request(request))
        hub.pipe.ask(command, deadline=time.monotonic() + request.timeout_ms / 1000)
    except UnicodeEncodeError as exc:
        raise _unsendable(exc) from exc
    return Response(id=request.id, executed="maybe", gen=request.gen)


def publish(hub: Hub, request: Request, max_body: int) -> Response:
    """Add an event to its topic, if anybody subscribed to that."""
    _check(request, max_body)
    stream = hub.keys.topic(request.topic)
    try:
        groups = hub.pipe.ask_script(
            PUBLISH,
            (stream,),
            encode_request(request),
            deadline=time.monotonic() + request.timeout_ms / 1000,
        )
    except UnicodeEncodeError as exc:
        raise _unsendable(exc) from exc
    return Response(id=request.id, executed="maybe", gen=request.gen, details={"groups": groups})


def _check(request: Request, max_body: int) -> None:
    if len(request.body) > max_body:
        raise too_large("the request", len(request.body), max_body, "no")
    if request.timeout_ms <= 0:
        raise late(request.timeout_ms, was_sent=False)


def _unsendable(exc: UnicodeEncodeError) -> FanError:
    return InvalidArgument(f"the request cannot be sent: {exc}", reason="malformed")
