"""Threads for what would block a caller: deadlines count while a call waits for one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from fan import App, Service, rpc
from fan.errors import DeadlineExceeded
from fan.pool import Pool
from fan.settings import Settings

BOUND = 20.0
THREADS = 2


class Desk(Service):
    name = "desk"
    version = "1.0.0"
    gate: threading.Event
    began: threading.Semaphore

    @rpc
    def hold(self) -> str:
        self.began.release()
        assert self.gate.wait(BOUND)
        return "held"

    @rpc
    def quick(self) -> str:
        return "quick"

    @rpc
    def outer(self) -> str:
        """Waits, in a thread of the pool, for a call that needs one."""
        self.began.release()
        assert self.gate.wait(BOUND)
        future: Future[str] = self.app.submit("desk.quick")
        return future.result(BOUND)

    @rpc
    async def ticks(self) -> Any:
        yield "tick"
        await asyncio.get_running_loop().run_in_executor(None, self.gate.wait, BOUND)
        yield "tock"


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    made.gate, made.began = threading.Event(), threading.Semaphore(0)
    yield made
    made.gate.set()


@pytest.fixture
def app(desk: Desk) -> Iterator[App]:
    with App(desk, settings=Settings(registry="memory:", workers=THREADS)) as made:
        yield made
        desk.gate.set()


def took_all(desk: Desk) -> None:
    for _ in range(THREADS):
        assert desk.began.acquire(timeout=BOUND)


def test_a_local_call_that_finds_no_thread_ends_at_its_deadline_and_does_not_run(
    app: App, desk: Desk
) -> None:
    held = [app.submit("desk.hold") for _ in range(THREADS)]
    took_all(desk)
    with pytest.raises(DeadlineExceeded) as caught:
        asyncio.run(app.using(timeout=0.05).acall("desk.hold"))
    assert (caught.value.executed, caught.value.target) == ("no", "desk.hold")
    desk.gate.set()
    assert [future.result(BOUND) for future in held] == ["held"] * THREADS
    assert not desk.began.acquire(blocking=False)


def test_a_call_in_the_background_whose_time_was_over_before_it_had_a_thread_does_not_run(
    app: App, desk: Desk
) -> None:
    for _ in range(THREADS):
        app.submit("desk.hold")
    took_all(desk)
    late = app.using(timeout=0.01).submit("desk.hold")
    with pytest.raises(DeadlineExceeded):  # as one that was made later has ended, so has its time
        asyncio.run(app.using(timeout=0.02).acall("desk.hold"))
    desk.gate.set()
    with pytest.raises(DeadlineExceeded) as caught:
        late.result(BOUND)
    assert caught.value.executed == "no"
    assert not desk.began.acquire(blocking=False)


def test_handlers_on_all_threads_may_wait_for_calls_that_need_one(app: App, desk: Desk) -> None:
    outer = [app.submit("desk.outer") for _ in range(THREADS)]
    took_all(desk)
    desk.gate.set()
    assert [future.result(BOUND) for future in outer] == ["quick"] * THREADS


def test_streams_that_wait_keep_no_other_from_its_items(desk: Desk) -> None:
    async def read(app: App) -> None:
        client = app.using(transport="ipc")
        waiting = [client.astream("desk.ticks") for _ in range(THREADS + 1)]
        assert [await anext(stream) for stream in waiting] == ["tick"] * (THREADS + 1)
        tocks = [asyncio.ensure_future(anext(stream)) for stream in waiting]
        another = client.astream("desk.ticks")
        assert await anext(another) == "tick"
        assert not any(tock.done() for tock in tocks)
        assert await app.acall("desk.quick") == "quick"
        desk.gate.set()
        assert await asyncio.gather(*tocks) == ["tock"] * (THREADS + 1)
        for stream in (*waiting, another):
            await stream.aclose()

    with App(desk, settings=Settings(registry="memory:", workers=THREADS)) as app:
        app.start(["ipc"])
        asyncio.run(read(app))


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool(1, "one")
    yield made
    made.shutdown()


def test_a_job_of_a_thread_of_the_pool_runs_apart_however_deep(pool: Pool) -> None:
    def nested(depth: int) -> int:
        return depth if depth == 3 else pool.submit(nested, depth + 1).result(BOUND)

    assert pool.submit(nested, 0).result(BOUND) == 3


def test_what_a_nested_job_raises_is_in_its_future(pool: Pool) -> None:
    def fail() -> None:
        raise ValueError("no")

    def inner() -> BaseException | None:
        return pool.submit(fail).exception(BOUND)

    assert repr(pool.submit(inner).result(BOUND)) == "ValueError('no')"
