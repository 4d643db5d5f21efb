"""What both versions of the demo's greeter share: a method for every kind of answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from fan import Service, current, rpc


class BaseGreeter(Service):
    """Says hello, and shows what a call can do."""

    name = "greeter"
    #: The word before the name.
    greeting = "Hello"

    @rpc(idempotent=True)
    def hello(self, name: str = "World") -> str:
        """Greet somebody."""
        return f"{self.greeting} {name}"

    @rpc(idempotent=True)
    def add(self, a: int, b: int) -> int:
        """The sum of two whole numbers."""
        return a + b

    @rpc
    def boom(self) -> None:
        """Fail, as a handler with a bug does."""
        raise ValueError("boom")

    @rpc
    def slow(self, s: float) -> float:
        """Answer after `s` seconds, with `s`."""
        time.sleep(s)
        return s

    @rpc(idempotent=True)
    def echo(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Give the arguments back."""
        return {"args": list(args), "kwargs": kwargs}

    @rpc(idempotent=True)
    def count(self, n: int) -> Iterator[int]:
        """Stream 0 to n-1."""
        yield from range(n)

    @rpc(idempotent=True)
    def whoami(self) -> dict[str, Any]:
        """Which instance answers, and what it knows of the caller."""
        ctx = current()
        return {
            "instance": self.instance_id,
            "version": self.version,
            "caller": ctx.caller if ctx else "",
            "headers": dict(ctx.headers) if ctx else {},
            "baggage": dict(ctx.baggage) if ctx else {},
        }
