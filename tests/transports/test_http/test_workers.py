"""The threads of the http side: as many as are needed, and no longer than that."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from fan.testing.contracts.probe import BOUND
from fan.transports.http_workers import Workers

NAME = "test-http-workers"


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(NAME)]


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers(16, NAME, idle=0.01)
    yield workers
    workers.close(BOUND)
    assert threads() == []


def burst(workers: Workers, count: int) -> list[threading.Thread]:
    """Have so many jobs run at once; the threads that they ran in."""
    gate, all_in = threading.Event(), threading.Barrier(count + 1)

    def job() -> None:
        all_in.wait(BOUND)
        gate.wait(BOUND)

    for _ in range(count):
        workers.run(job)
    all_in.wait(BOUND)
    found = threads()
    gate.set()
    return found


def test_the_threads_of_a_burst_end_for_want_of_work_and_come_again(workers: Workers) -> None:
    for _ in range(3):
        began = burst(workers, 16)
        assert len(began) == 16
        for thread in began:
            thread.join(BOUND)
        assert threads() == []


def test_no_job_is_lost_to_a_thread_that_is_about_to_end(workers: Workers) -> None:
    done = threading.Semaphore(0)
    for n in range(300):
        workers.run(done.release)
        assert done.acquire(timeout=BOUND)
        if n % 3 == 0:  # about as long as a thread waits for work
            threading.Event().wait(0.01)
