"""The loop thread: what it runs ends, whatever happens to it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextvars import copy_context
from typing import Any

import pytest

from fan.errors import Cancelled, FailedPrecondition
from fan.runner import Expired, LoopThread

#: A bound on hangs.
BOUND = 10.0


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.close()


async def give(value: Any) -> Any:
    return value


async def hold() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_coroutine_that_exits_leaves_the_loop_running(
    loop: LoopThread, kind: type[BaseException]
) -> None:
    async def leave() -> None:
        raise kind

    with pytest.raises(kind):
        loop.start(leave(), copy_context()).result(BOUND)
    assert loop.start(give(1), copy_context()).result(BOUND) == 1


def test_time_that_is_over_cancels(loop: LoopThread) -> None:
    with pytest.raises(Expired):
        loop.start(hold(), copy_context(), 0.0).result(BOUND)


def test_what_is_no_coroutine_is_an_error(loop: LoopThread) -> None:
    with pytest.raises(TypeError):
        loop.start(7, copy_context()).result(BOUND)  # type: ignore[arg-type]


def test_closing_cancels_what_runs_and_refuses_what_comes(loop: LoopThread) -> None:
    running = loop.start(hold(), copy_context())
    loop.close()
    with pytest.raises((Cancelled, CancelledError)):
        running.result(BOUND)
    with pytest.raises(FailedPrecondition):
        loop.start(give(1), copy_context()).result(BOUND)


def test_a_coroutine_may_close_its_own_loop(loop: LoopThread) -> None:
    async def close() -> str:
        loop.close()
        return "closed"

    other = loop.start(hold(), copy_context())
    assert loop.start(close(), copy_context()).result(BOUND) == "closed"
    with pytest.raises((Cancelled, CancelledError)):
        other.result(BOUND)
    thread = next((t for t in threading.enumerate() if t.name == "fan-async"), None)
    if thread is not None:
        thread.join(BOUND)
        assert not thread.is_alive()
