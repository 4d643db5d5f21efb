"""Calls of tasks: their event loop sends, and is woken for what arrives."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fan.context import new_id
from fan.errors import AlreadyExists, DeadlineExceeded, FanError, ResourceExhausted, Unavailable
from fan.message import Request, Response
from fan.settings import Settings
from fan.testing.contracts.probe import BOUND
from fan.transports.base import Served
from fan.transports.redis import RedisTransport
from fan.transports.redis_loop import FEW_TASKS


class Place:
    """A transport that serves `raw`, and one that calls it."""

    def __init__(self, url: str) -> None:
        settings = Settings(redis_url=url, registry="memory:", queue="redis", workers=40)
        self.server, self.client = RedisTransport(settings), RedisTransport(settings)
        self.address = self.client.home()
        self.entered = threading.Semaphore(0)
        self.go = threading.Event()
        self.listener = self.server.serve("", self.handle)
        self.listener.update([Served("raw", "1.0.0", "only")])

    def handle(self, request: Request, **_: object) -> Response:
        if request.method == "hold":
            self.entered.release()
            assert self.go.wait(4 * BOUND)
        return Response(id=request.id, body=request.body)

    def ask(self, method: str, body: bytes = b"", **more: Any) -> Awaitable[Response]:
        fields = {"id": new_id(), "timeout_ms": 60_000, **more}
        request = Request(service="raw", method=method, want="1.0.0", body=body, **fields)
        return self.client.acall(self.address, request)

    @property
    def pending(self) -> int:
        """Calls that are noted as being on their way."""
        return len(self.client._hub(self.address.url).calls.pending)

    def close(self) -> None:
        self.go.set()
        self.client.close()
        self.listener.close()
        self.server.close()


@pytest.fixture
def place(url: str) -> Iterator[Place]:
    made = Place(url)
    yield made
    made.close()


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + BOUND
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


async def entered(place: Place, count: int = 1) -> None:
    """Wait on this loop until so many handlers have begun."""
    for _ in range(count):
        assert await asyncio.to_thread(place.entered.acquire, timeout=BOUND)


async def echo(place: Place, rounds: int = 20) -> None:
    async def work(number: int) -> None:
        for turn in range(rounds):
            body = b"%d/%d" % (number, turn)
            assert (await place.ask("echo", body)).body == body

    await asyncio.gather(*(work(number) for number in range(30)))


def test_every_task_gets_its_own_answer(place: Place) -> None:
    asyncio.run(echo(place))
    assert place.pending == 0


def test_event_loops_in_several_threads_get_their_own_answers(place: Place) -> None:
    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(asyncio.run, echo(place, 10)) for _ in range(3)]:
            done.result(BOUND)


def test_a_crowd_of_tasks_is_one_until_few_of_its_event_loop_wait(place: Place) -> None:
    async def main() -> None:
        await place.ask("echo")
        crowds = place.client._hub(place.address.url).loop.crowds
        assert not crowds
        calls = [asyncio.ensure_future(place.ask("hold")) for _ in range(FEW_TASKS + 1)]
        await entered(place, len(calls))
        await asyncio.to_thread(asyncio.run, echo(place, 1))  # another loop's, which come and go
        assert len(crowds) == 1
        calls[0].cancel()
        await asyncio.wait(calls[:1])
        assert not crowds
        place.go.set()
        await asyncio.gather(*calls[1:])

    asyncio.run(main())


def test_an_event_loop_that_is_closed_is_no_crowd(place: Place) -> None:
    loop = asyncio.new_event_loop()

    async def leave() -> list[asyncio.Task[Response]]:
        calls = [asyncio.create_task(place.ask("hold")) for _ in range(2 * FEW_TASKS)]
        await entered(place, len(calls))
        await asyncio.get_running_loop().shutdown_default_executor()
        return calls

    calls = loop.run_until_complete(leave())
    loop.close()
    crowds = place.client._hub(place.address.url).loop.crowds
    assert len(crowds) == 1
    place.go.set()
    wait_until(lambda: not crowds)
    for call in calls:
        call._log_destroy_pending = False  # type: ignore[attr-defined]  # nobody ends it any more


def test_many_in_flight_need_no_thread(place: Place) -> None:
    async def main() -> list[Response]:
        await place.ask("echo")
        before = {thread.name for thread in threading.enumerate()}
        calls = [asyncio.ensure_future(place.ask("hold", b"%d" % n)) for n in range(300)]
        await entered(place)
        added = {thread.name for thread in threading.enumerate()} - before
        assert {name.partition("_")[0] for name in added} <= {"asyncio", "fan-redis-worker"}
        place.go.set()
        return await asyncio.gather(*calls)

    assert [answer.body for answer in asyncio.run(main())] == [b"%d" % n for n in range(300)]


def test_a_task_that_is_answered_too_late_is_told_at_its_deadline(place: Place) -> None:
    async def main() -> None:
        later = asyncio.ensure_future(place.ask("hold"))
        with pytest.raises(DeadlineExceeded) as info:
            await place.ask("hold", timeout_ms=200)
        assert (info.value.reason, info.value.executed) == ("client_timer", "maybe")
        assert not later.done()
        place.go.set()
        await later
        assert (await place.ask("echo", b"own")).body == b"own"

    asyncio.run(main())
    assert place.pending == 0


def test_a_task_that_gives_up_leaves_nothing(place: Place) -> None:
    async def main() -> None:
        call = asyncio.ensure_future(place.ask("hold"))
        await entered(place)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert place.pending == 0
        place.go.set()
        assert (await place.ask("echo", b"own")).body == b"own"

    asyncio.run(main())


def test_what_a_loop_left_that_was_closed_ends_with_its_time(place: Place) -> None:
    async def ask() -> Response:
        return await place.ask("hold", timeout_ms=1000)

    loop = asyncio.new_event_loop()
    call = loop.create_task(ask())
    loop.run_until_complete(entered(place))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    wait_until(lambda: place.pending == 0)
    call._log_destroy_pending = False  # type: ignore[attr-defined]


def test_a_transport_that_is_closed_fails_the_calls_of_tasks(place: Place) -> None:
    async def main() -> FanError:
        call = asyncio.ensure_future(place.ask("hold"))
        await entered(place)
        await asyncio.to_thread(place.client.close)
        with pytest.raises(Unavailable) as info:
            await call
        return info.value

    assert asyncio.run(main()).executed == "maybe"


def test_what_cannot_be_sent_is_said_before_anything_is(place: Place) -> None:
    async def main() -> None:
        with pytest.raises(DeadlineExceeded) as late:
            await place.ask("echo", timeout_ms=0)
        assert late.value.executed == "no"
        with pytest.raises(ResourceExhausted):
            await place.ask("echo", bytes(100_000_000))
        first = asyncio.ensure_future(place.ask("hold", id="same"))
        await entered(place)
        with pytest.raises(AlreadyExists):
            await place.ask("echo", id="same")
        place.go.set()
        await first

    asyncio.run(main())
    assert place.pending == 0


def test_answers_of_quick_calls_do_not_wait_for_a_slow_one_that_came_with_them(
    place: Place,
) -> None:
    async def main() -> None:
        for n in range(10):
            await quick(place)
            calls = [asyncio.ensure_future(place.ask("echo", b"%d" % k)) for k in range(10)]
            slow = asyncio.ensure_future(place.ask("hold"))
            async with asyncio.timeout(BOUND):
                answers = await asyncio.gather(*calls)
            assert [answer.body for answer in answers] == [b"%d" % k for k in range(10)], n
            assert not slow.done()
            place.go.set()
            await slow
            place.go.clear()

    asyncio.run(main())


def test_slow_calls_that_come_together_after_quick_ones_run_at_once(place: Place) -> None:
    async def main() -> None:
        await quick(place)
        calls = [asyncio.ensure_future(place.ask("hold")) for _ in range(30)]
        await entered(place, 30)
        place.go.set()
        await asyncio.gather(*calls)

    asyncio.run(main())


def test_calls_of_tasks_survive_a_redis_that_is_killed_and_starts_empty(new_redis: Any) -> None:
    server = new_redis()
    place, stop, outcomes = Place(server.url), threading.Event(), Counter[str]()

    async def work(number: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            body = b"%d/%d" % (number, turn)
            try:
                answer = await place.ask("echo", body, timeout_ms=2000)
            except FanError as exc:
                outcomes[exc.code] += 1
            else:
                is_wrong = answer.code == "ok" and answer.body != body
                outcomes["wrong" if is_wrong else answer.code] += 1

    async def main() -> None:
        await asyncio.gather(*(work(number) for number in range(16)))

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(asyncio.run, main())
        try:
            for _ in range(2):
                more(outcomes, "ok")
                server.kill()
                more(outcomes, "unavailable")
                server.start()
            more(outcomes, "ok")
        finally:
            stop.set()
            done.result(4 * BOUND)
            left = place.pending
            place.close()
    assert set(outcomes) <= {"ok", "unavailable", "deadline_exceeded"}
    assert left == 0


def more(outcomes: Counter[str], what: str) -> None:
    """Wait for some more calls that end like this."""
    before = outcomes[what]
    wait_until(lambda: outcomes[what] > before + 50)


async def quick(place: Place) -> None:
    """Have the server take it that calls are quick."""
    for _ in range(60):
        await place.ask("echo")
