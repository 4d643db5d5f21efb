"""The threads of transports, on a machine that gives no more of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from fan.transports.amqp_workers import Workers as AmqpWorkers
from fan.transports.database_workers import Workers as DatabaseWorkers
from fan.transports.http_workers import Workers as HttpWorkers
from fan.transports.ipc_workers import Workers as IpcWorkers
from fan.transports.redis_crew import Crew

#: A bound on hangs.
BOUND = 10.0
Run = Callable[[Callable[[], None]], object]


class Task:
    def __init__(self, run: Callable[[], None]) -> None:
        self.run = run

    def begin(self) -> bool:
        return True


class Link:
    """The link's thread is the one that asks."""

    def do(self, job: Callable[[], None]) -> None:
        job()


def of_ipc() -> tuple[Run, Callable[[], None]]:
    workers = IpcWorkers("test")
    return workers.run, workers.close


def of_http() -> tuple[Run, Callable[[], None]]:
    workers = HttpWorkers(4, "test")
    return workers.run, workers.close


def of_redis() -> tuple[Run, Callable[[], None]]:
    crew = Crew(4, "test")
    return lambda job: crew.put([job]), crew.close


def of_database() -> tuple[Run, Callable[[], None]]:
    workers = DatabaseWorkers(4)
    return workers.run, lambda: workers.close(BOUND)


def of_amqp() -> tuple[Run, Callable[[], None]]:
    link: Any = Link()
    workers = AmqpWorkers(link, 4, "test")
    return lambda job: workers.offer(Task(job)), workers.close


@pytest.mark.parametrize("make", [of_ipc, of_http, of_redis, of_database, of_amqp])
def test_where_no_more_threads_can_be_had_those_that_there_are_do_the_work(
    make: Callable[[], tuple[Run, Callable[[], None]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, close = make()
    entered, go, done = threading.Event(), threading.Event(), threading.Semaphore(0)
    start, given = threading.Thread.start, []

    def first_only(thread: threading.Thread) -> None:
        if given:
            raise RuntimeError("can't start new thread")
        given.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", first_only)

    def hold() -> None:
        entered.set()
        assert go.wait(BOUND)
        done.release()

    run(hold)
    assert entered.wait(BOUND)
    for _ in range(3):
        run(done.release)
    go.set()
    assert all(done.acquire(timeout=BOUND) for _ in range(4))
    run(done.release)  # and none was counted that is not there
    assert done.acquire(timeout=BOUND)
    monkeypatch.undo()
    close()
    given[0].join(BOUND)
    assert not given[0].is_alive()
