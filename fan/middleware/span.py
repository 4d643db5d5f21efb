"""Has a tracer record spans: one for each call, one for each request.

fan carries the trace with or without a tracer. With one, a call gets a span of its own between the
handler that makes it and the one that serves it, and only what is sampled is recorded.
"""

from __future__ import annotations

from typing import Any

from fan.context import new_span_id
from fan.errors import FanError
from fan.middleware.base import Call, CallNext, Inbound, InboundNext, Middleware, Steps
from fan.tracers.base import Tracer


def is_sampled(traceparent: str) -> bool:
    """Whether whoever began the trace wants it recorded
    (https://www.w3.org/TR/trace-context/#sampled-flag)."""
    try:
        return bool(int(traceparent[53:55], 16) & 1)
    except ValueError:
        return False


class ClientSpan(Middleware):
    """The caller's span, around all attempts of one call."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def on_call(self, call: Call, next: CallNext) -> Steps:
        """Raises nothing of its own."""
        if not is_sampled(call.traceparent):
            return next(call)
        return self._traced(call, next)

    def _traced(self, call: Call, next: CallNext) -> Steps:
        above = call.traceparent if call.parent is not None else ""
        if above:  # at the root the call's own span is the first of the trace
            call.traceparent = f"{above[:36]}{new_span_id()}{above[52:]}"
        tags = {"fan.service": call.service, "fan.method": call.method or call.topic,
                "fan.kind": call.kind}  # fmt: skip
        span = self._tracer.start(call.target, call.traceparent, above, "client", tags)
        error: BaseException | None = None
        try:
            return (yield from next(call))
        except BaseException as exc:
            error = exc
            raise
        finally:
            self._tracer.finish(span, error)
            del error  # it refers to this frame


class ServerSpan(Middleware):
    """The handler's span: it ends when the handler has, a stream's when it is read."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def on_request(self, inbound: Inbound, next: InboundNext) -> Steps:
        """Raises nothing of its own."""
        if not is_sampled(inbound.request.traceparent):
            return next(inbound)
        return self._traced(inbound, next)

    def _traced(self, inbound: Inbound, next: InboundNext) -> Steps:
        request, context = inbound.request, inbound.context
        tags: dict[str, Any] = {
            "fan.service": context.service,
            "fan.method": context.method,
            "fan.kind": request.kind,
            "fan.instance": context.instance,
            "fan.caller": request.caller,
        }
        name = f"{context.service}.{context.method}"
        span = self._tracer.start(name, context.traceparent, request.traceparent, "server", tags)
        error: BaseException | None = None
        try:
            return (yield from next(inbound))
        except FanError as exc:
            error = exc
            raise
        finally:
            self._tracer.finish(span, error)
            del error
