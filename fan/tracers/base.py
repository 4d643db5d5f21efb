"""The contract of a tracer: an adapter that records spans. fan itself owns propagation.

`fan` carries `traceparent`, `tracestate` and `baggage` with or without a tracer; a tracer only
turns begun and ended spans into records of its own kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class Tracer(ABC):
    """Records spans. Thread-safe; created lazily, once per process."""

    @abstractmethod
    def start(
        self, name: str, traceparent: str, parent: str, kind: str, tags: dict[str, Any]
    ) -> Any:
        """Begin the span that `traceparent` names, child of `parent` (a traceparent or empty);
        `kind` is "client" or "server". Returns a handle for `finish`. Raises nothing."""

    @abstractmethod
    def finish(self, span: Any, error: BaseException | None) -> None:
        """End the span, with an error tag where there is one. Raises nothing."""

    @abstractmethod
    def close(self, timeout: float = 1.0) -> None:
        """Deliver what is pending, waiting at most `timeout` seconds. Twice does no harm."""
