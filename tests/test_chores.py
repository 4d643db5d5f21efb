"""What is done behind a change: apart, never twice at once, and until it went through."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from fan.chores import Chore, held
from fan.errors import DeadlineExceeded, Unavailable

BOUND = 30.0


def test_it_is_done_in_a_thread_that_is_there_only_meanwhile() -> None:
    threads: list[threading.Thread] = []
    chore = Chore("fan-test", "test", lambda: threads.append(threading.current_thread()))
    chore.ask()
    deadline = time.monotonic() + BOUND
    while "idle" not in repr(chore):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    (thread,) = threads
    thread.join(BOUND)
    assert not thread.is_alive()
    assert thread.daemon
    chore.ask()
    chore.close(BOUND)
    assert len(threads) <= 2


def test_asked_for_while_it_is_under_way_it_is_done_once_more() -> None:
    begun, go, runs = threading.Semaphore(0), threading.Semaphore(0), []

    def step() -> None:
        runs.append(threading.current_thread())
        begun.release()
        assert go.acquire(timeout=BOUND)

    chore = Chore("fan-test", "test", step)
    chore.ask()
    assert begun.acquire(timeout=BOUND)
    for _ in range(5):
        chore.ask()
    go.release()
    assert begun.acquire(timeout=BOUND)
    go.release()
    runs[-1].join(BOUND)
    assert len(runs) == 2
    chore.close()


@pytest.mark.parametrize("failure", [Unavailable("away"), ValueError("a bug")])
def test_what_fails_is_done_again_and_told_once(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    left, done = [failure, failure], threading.Event()

    def step() -> None:
        if left:
            raise left.pop()
        done.set()

    chore = Chore("fan-test", "follow", step)
    chore.ask()
    assert done.wait(BOUND)
    chore.close(BOUND)
    told = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert [r.getMessage().startswith("could not follow") for r in told] == [True]


def test_what_is_closed_begins_nothing_and_waits_for_nothing_any_more() -> None:
    runs: list[int] = []
    chore = Chore("fan-test", "test", lambda: runs.append(1))
    chore.ask(delay=BOUND)
    chore.close(BOUND)
    chore.close()
    chore.ask()
    assert (runs, repr(chore)) == ([], "<Chore fan-test closed>")


def test_a_chore_may_close_itself() -> None:
    closed = threading.Event()

    def step() -> None:
        chore.close(BOUND)
        closed.set()

    chore = Chore("fan-test", "test", step)
    chore.ask()
    assert closed.wait(BOUND / 2)


def test_a_lock_is_waited_for_until_the_deadline() -> None:
    lock = threading.Lock()
    with held(lock, time.monotonic() + BOUND):
        with (
            pytest.raises(DeadlineExceeded) as caught,
            held(lock, time.monotonic() + 0.01),
        ):
            raise AssertionError("two hold it")
        assert caught.value.executed == "no"
    with held(lock, float("inf")):
        assert lock.locked()
    assert not lock.locked()
