"""Who waits behind a handler holds no thread, and what waits behind a disk holds up no loop."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from fan import App, Service, rpc
from fan.context import new_id
from fan.message import Request, Response
from fan.middleware.dedupe import Dedupe
from fan.settings import Settings
from fan.transports.base import Ledger

#: A bound on hangs.
BOUND = 20.0


class Desk(Service):
    name = "desk"
    version = "1.0.0"

    def __init__(self) -> None:
        self.ran = 0
        self.gate = threading.Event()
        self.is_broken = False

    @rpc
    async def hold(self) -> int:
        self.ran += 1
        await asyncio.get_running_loop().run_in_executor(None, self.gate.wait, BOUND)
        return self.ran

    @rpc(idempotent=True)
    def turn(self) -> int:
        self.ran += 1
        if self.ran == 1:
            self.gate.wait(BOUND)
            raise ValueError("no")
        return self.ran

    @rpc(dedupe="shared")
    async def keep(self) -> str:
        return "kept"

    @rpc
    async def hi(self) -> str:
        return "hi"


class SlowLedger(Ledger):
    """Keeps nothing, and that slowly."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.gate = threading.Event()

    def claim(self, key: str, holder: str, *, ttl: float, deadline: float) -> bytes | None:
        return b""

    def settle(
        self, key: str, holder: str, answer: bytes | None, *, ttl: float, deadline: float
    ) -> None:
        self.entered.set()
        self.gate.wait(BOUND)


def request(method: str, **fields: Any) -> Request:
    return Request(id=new_id(), service="desk", method=method, timeout_ms=20_000, **fields)


def result(answer: Any) -> Response:
    got = answer.result(BOUND) if isinstance(answer, Future) else answer
    assert isinstance(got, Response)
    return got


@pytest.mark.parametrize("kind", ["call", "push"])
def test_repeats_of_one_key_hold_no_thread_while_the_first_runs(kind: Any) -> None:
    desk = Desk()
    with App(desk, settings=Settings(workers=2)) as app:
        first = app.dispatcher(request("hold", key="k", kind=kind), is_queued=True)
        repeats = [
            app.dispatcher(request("hold", key="k", kind=kind), is_queued=True) for _ in range(20)
        ]
        assert all(isinstance(one, Future) and not one.done() for one in repeats)
        assert result(app.dispatcher(request("hi"))).body == b'"hi"'
        assert app.pool.submit(lambda: "free").result(BOUND) == "free"
        desk.gate.set()
        assert {result(one).body for one in (first, *repeats)} == {b"1"}
        assert desk.ran == 1
        assert app.dispatcher.wait_idle(BOUND)


@pytest.mark.parametrize("kind", ["call", "push"])
def test_a_repeat_runs_where_the_first_has_failed(kind: Any) -> None:
    desk = Desk()
    with App(desk, settings=Settings()) as app:
        began: Future[Any] = app.pool.submit(
            app.dispatcher, request("turn", key="k", kind=kind), is_queued=True
        )
        while not desk.ran:
            threading.Event().wait(0.005)
        repeat = app.dispatcher(
            request("turn", key="k", kind=kind), is_queued=True, on_overdue=lambda late: None
        )
        desk.gate.set()
        assert result(began.result(BOUND)).code == "unknown"
        assert result(repeat).body == b"2"


def test_a_repeat_that_is_given_up_leaves_nothing_behind() -> None:
    desk = Desk()
    with App(desk, settings=Settings()) as app:
        first = app.dispatcher(request("hold", key="k"))
        repeat = app.dispatcher(request("hold", key="k"))
        assert isinstance(repeat, Future)
        assert repeat.cancel()
        desk.gate.set()
        assert result(first).body == b"1"
        assert app.dispatcher.wait_idle(BOUND)


def test_an_answer_that_is_kept_slowly_holds_up_no_other_async_handler() -> None:
    ledger = SlowLedger()
    layers = [Dedupe(ledger=lambda: ledger)]
    with App(Desk(), settings=Settings(), middleware=layers) as app:
        kept = app.dispatcher(request("keep", key="k"))
        assert ledger.entered.wait(BOUND)
        assert result(app.dispatcher(request("hi"))).body == b'"hi"'
        ledger.gate.set()
        assert result(kept).body == b'"kept"'
