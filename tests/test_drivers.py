"""The steps of a call: nothing is left behind by what drives them."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from fan import App, Settings
from fan.drivers import Background
from fan.message import Response
from fan.middleware.base import Call, Options, Send, Sleep, Steps
from fan.testing.fakes import RecordingTransport


@pytest.fixture
def app() -> Iterator[App]:
    with App(settings=Settings(), transports={"fake": RecordingTransport()}) as app:
        yield app


def test_an_event_loop_that_ended_is_not_kept(app: App) -> None:
    loops: list[weakref.ref[Any]] = []

    async def call() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await app.using(peers=("fake:x",)).acall("a.b")

    for _ in range(3):
        asyncio.run(call())
    gc.collect()
    assert [loop() for loop in loops] == [None, None, None]
    assert len(app._mailboxes) == 0


def test_a_call_that_is_cancelled_while_it_pauses_sends_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timers: list[Any] = []

    class Timer:
        def __init__(self, seconds: float, go: Any, args: tuple[Any, ...]) -> None:
            self.fire = lambda: go(*args)
            self.daemon = False

        def start(self) -> None:
            timers.append(self)

    monkeypatch.setattr(threading, "Timer", Timer)
    transport, closed = RecordingTransport(), []

    def chain(call: Call) -> Steps:
        try:
            yield Sleep(1.0)
            response: Response = yield Send(transport, None, None)  # type: ignore[arg-type]
            return response
        finally:
            closed.append(True)

    future: Future[Any] = Background(
        chain, Call(service="a", method="b", options=Options()), lambda r: r
    ).future
    assert future.cancel()
    timers[0].fire()
    assert transport.requests == []
    assert closed == [True]
