"""The steps of a call: nothing is left behind by what drives them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from fan import App, Service, Settings, rpc
from fan.drivers import Background
from fan.message import Response
from fan.middleware.base import Call, Options, Send, Sleep, Steps
from fan.stores.memory import MemoryStore
from fan.testing.fakes import RecordingTransport

#: A bound on hangs.
BOUND = 10.0


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


def reads_nothing(run: Any, call: Call) -> Future[Any]:
    raise AssertionError("this call reads nothing")


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
        chain, Call(service="a", method="b", options=Options()), lambda r: r, reads_nothing
    ).future
    assert future.cancel()
    timers[0].fire()
    assert transport.requests == []
    assert closed == [True]


class Held(MemoryStore):
    """A store whose reading waits, once told to, until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.is_held, self.entered, self.go = False, threading.Event(), threading.Event()

    def list(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_held:
            self.entered.set()
            assert self.go.wait(BOUND)
        return super().list(*args, **kwargs)


class Leaving(Service):
    name, version = "leaving", "1.0.0"

    @rpc
    def hi(self) -> str:
        return "leaving"


class Staying(Leaving):
    name = "staying"


@pytest.fixture
def retrying(private: Path) -> Iterator[App]:
    """An App whose calls of `leaving` are refused at first, and whose look at the registry after
    that waits for `store.go`."""
    store = Held()
    settings = Settings(registry="memory:", runtime_dir=str(private / "run"), timeout=BOUND)
    with contextlib.ExitStack() as stack:
        stack.callback(store.close)
        servers = [stack.enter_context(App(cls(), settings=settings, store=_another(store)))
                   for cls in (Leaving, Leaving, Staying)]  # fmt: skip
        for server in servers:
            server.start()
        caller = stack.enter_context(App(settings=settings, store=store))
        for target in ("leaving.hi", "staying.hi"):
            caller.submit(target).result(BOUND)
        servers[0].lifecycle._listeners[0].drain()  # still registered as up, and refuses
        store.is_held = True
        yield caller
        store.go.set()


def _another(store: MemoryStore) -> MemoryStore:
    other = MemoryStore()
    other._spaces, other._space = store._spaces, store._space
    return other


def test_a_retry_that_waits_for_the_registry_keeps_no_future_of_others_waiting(
    retrying: App,
) -> None:
    store: Any = retrying.store
    refused = [retrying.submit("leaving.hi") for _ in range(2)]  # one of each of its instances
    assert store.entered.wait(BOUND)
    assert retrying.submit("staying.hi").result(BOUND / 2) == "leaving"
    store.go.set()
    assert [future.result(BOUND) for future in refused] == ["leaving", "leaving"]


def test_a_retry_that_waits_for_the_registry_does_not_stop_the_event_loop(retrying: App) -> None:
    store: Any = retrying.store

    async def main() -> None:
        refused = [asyncio.ensure_future(retrying.acall("leaving.hi")) for _ in range(2)]
        assert await asyncio.to_thread(store.entered.wait, BOUND)
        assert await retrying.acall("staying.hi") == "leaving"
        store.go.set()
        assert await asyncio.gather(*refused) == ["leaving", "leaving"]

    asyncio.run(asyncio.wait_for(main(), BOUND))
