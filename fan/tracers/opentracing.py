"""Spans for the OpenTracing API: whatever tracer a program has set as the global one records them.

OpenTracing 2.4 lets nobody choose the ids of a span, so the ones that fan carries are its tags
`trace_id`, `span_id` and `parent_id`; within one process the spans are children of each other as
the API has it.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Any

from fan.error_types import text_of
from fan.errors import FanError
from fan.tracers.base import Tracer

#: Spans that are remembered to be parents; beyond, the oldest is forgotten.
MAX_OPEN = 10_000


class OpenTracingTracer(Tracer):
    """Hands spans to `opentracing.global_tracer()`, or to the tracer that is given."""

    def __init__(self, settings: Any = None, *, tracer: Any = None) -> None:
        self._tracer = tracer
        self._open: OrderedDict[str, Any] = OrderedDict()
        self._lock = Lock()

    def start(
        self, name: str, traceparent: str, parent: str, kind: str, tags: dict[str, Any]
    ) -> Any:
        """Begin a span; None where the tracer fails."""
        try:
            import opentracing

            tracer = self._tracer or opentracing.global_tracer()
            own = {
                **tags,
                "span.kind": kind,
                "trace_id": traceparent[3:35],
                "span_id": traceparent[36:52],
                "parent_id": parent[36:52],
            }
            with self._lock:
                above = self._open.get(parent[36:52])
            span = tracer.start_span(
                name, child_of=above, tags=own, ignore_active_span=above is None
            )
            with self._lock:
                self._open[traceparent[36:52]] = span
                while len(self._open) > MAX_OPEN:
                    self._open.popitem(last=False)
        except Exception as exc:  # a tracer is never worth a call
            _log("start", exc)
            return None
        return span, traceparent[36:52]

    def finish(self, span: Any, error: BaseException | None) -> None:
        """End it, with the tags `error`, `fan.code` and `fan.reason` where it failed."""
        if span is None:
            return
        found, span_id = span
        with self._lock:
            self._open.pop(span_id, None)
        try:
            if error is not None:
                found.set_tag("error", True)
                found.set_tag("error.message", text_of(error))
                if isinstance(error, FanError):
                    found.set_tag("fan.code", error.code)
                    found.set_tag("fan.reason", error.reason)
            found.finish()
        except Exception as exc:
            _log("finish", exc)

    def close(self, timeout: float = 1.0) -> None:
        """The global tracer is the program's own, and stays open."""
        with self._lock:
            self._open.clear()


def _log(what: str, exc: Exception) -> None:
    import logging

    logging.getLogger("fan").warning("the tracer could not %s a span: %s", what, exc)
