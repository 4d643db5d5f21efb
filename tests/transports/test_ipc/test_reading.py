"""Who reads a shared connection: the thread that runs the handlers, until one stays away."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from fan.transports.ipc_watch import LOOKS, Watch

HANG = 20.0


def threads_of(name: str) -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == name]


def test_short_handlers_run_where_the_connection_is_read(place: Any) -> None:
    names: list[str] = []
    echo = place.handler.do_echo

    def noted(request: Any, is_cancelled: Any) -> Any:
        names.append(threading.current_thread().name)
        return echo(request, is_cancelled)

    place.handler.do_echo = noted
    for _ in range(20):
        for future in [place.submit("echo", b"%d" % n) for n in range(50)]:
            future.result(HANG)
    assert len(names) == 1000
    assert "fan-ipc-serve" in names  # the others came after one that a busy machine held up


def test_a_stalled_handler_does_not_hold_up_what_comes_after_it(place: Any) -> None:
    slow = place.submit("wait", b"slow")
    assert place.handler.entered.acquire(timeout=HANG)
    assert [place.submit("echo", b"%d" % n).result(HANG).body for n in range(5)] == [
        b"0", b"1", b"2", b"3", b"4",
    ]  # fmt: skip
    assert not slow.done()
    place.handler.release.set()
    assert slow.result(HANG).body == b"slow"


def test_a_thread_that_was_relieved_ends_with_its_handler(place: Any) -> None:
    futures = []
    for _ in range(3):
        futures.append(place.submit("wait"))
        assert place.handler.entered.acquire(timeout=HANG)
        assert place.submit("echo").result(HANG).code == "ok"
    place.handler.release.set()
    assert [future.result(HANG).code for future in futures] == ["ok"] * 3
    until = time.monotonic() + HANG
    while len(threads_of("fan-ipc-serve")) > 1 and time.monotonic() < until:
        time.sleep(0.01)
    assert len(threads_of("fan-ipc-serve")) == 1
    assert place.submit("echo", b"after").result(HANG).body == b"after"


def test_a_close_ends_the_thread_that_watches(place: Any) -> None:
    place.submit("echo").result(HANG)
    assert len(threads_of("fan-ipc-watch")) == 1
    place.listener.close()
    assert not threads_of("fan-ipc-watch")


class Stuck:
    """A reader at a handler that does not come back."""

    def __init__(self) -> None:
        self.looks = 0
        self.was_relieved = threading.Event()

    def relieve(self) -> None:
        self.was_relieved.set()


@pytest.fixture
def watch() -> Any:
    watch = Watch("test-watch")
    yield watch
    watch.close()


def test_a_reader_is_relieved_after_so_many_looks(watch: Watch) -> None:
    stuck = Stuck()
    watch.enter(stuck)
    assert stuck.was_relieved.wait(HANG)
    assert stuck.looks > LOOKS


def test_the_watch_that_fell_asleep_is_woken(watch: Watch) -> None:
    first = Stuck()
    watch.enter(first)
    watch.leave(first)
    until = time.monotonic() + HANG
    while not watch.is_asleep and time.monotonic() < until:
        time.sleep(0.01)
    assert watch.is_asleep
    second = Stuck()
    watch.enter(second)
    assert second.was_relieved.wait(HANG)


def test_a_watch_that_was_never_used_has_no_thread(watch: Watch) -> None:
    assert not threads_of("test-watch")
