"""The tracer that records nothing: the default. The trace travels all the same."""

from __future__ import annotations

from typing import Any

from fan.tracers.base import Tracer


class NoopTracer(Tracer):
    """Takes spans and forgets them."""

    def __init__(self, settings: Any = None) -> None:
        """Needs no settings."""

    def start(
        self, name: str, traceparent: str, parent: str, kind: str, tags: dict[str, Any]
    ) -> None:
        """Record nothing."""

    def finish(self, span: Any, error: BaseException | None) -> None:
        """Record nothing."""

    def close(self, timeout: float = 1.0) -> None:
        """Nothing is pending."""
