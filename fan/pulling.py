"""How the items of an async generator come to a thread that may block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import Context as Variables
from typing import Any

from fan.context import Context
from fan.runner import FAREWELL, Expired, LoopThread


def pull(
    produced: Any, runner: LoopThread, variables: Variables, context: Context
) -> Iterator[Any]:
    """The items of an async generator, pulled one at a time from a thread that may block. Raises
    Expired where one is not there at the context's deadline."""
    try:
        while True:
            left = context.remaining
            pulled = runner.start(_anext(produced), variables.copy(), left)
            try:
                item = pulled.result(None if left is None else left + FAREWELL)
            except TimeoutError as exc:
                if pulled.done():
                    raise  # the generator's own
                raise Expired from exc  # it does not end when it is cancelled
            if item is _END:
                return
            yield item
    finally:
        closing = runner.start(_aclose(produced), variables.copy(), FAREWELL)
        with contextlib.suppress(TimeoutError):  # it goes on by itself
            closing.result(2 * FAREWELL)


#: What `_anext` gives at the end of an async generator.
_END = object()


async def _anext(produced: Any) -> Any:
    return await anext(produced, _END)


async def _aclose(produced: Any) -> None:
    await produced.aclose()
