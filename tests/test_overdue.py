"""What is not done at its time is told, once, and nothing else is."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator

import pytest

from fan.overdue import Watch

BOUND = 10.0


@pytest.fixture
def watch() -> Iterator[Watch]:
    made = Watch()
    yield made
    made.close()


def test_only_what_is_not_dropped_is_told_the_earliest_first(watch: Watch) -> None:
    told: queue.SimpleQueue[str] = queue.SimpleQueue()
    now = time.monotonic()
    far = watch.add(now + 1000.0, lambda: told.put("far"))
    watch.drop(watch.add(now + 0.1, lambda: told.put("dropped")))
    watch.add(now + 0.2, lambda: told.put("second"))
    watch.add(now, lambda: told.put("first"))
    assert [told.get(timeout=BOUND) for _ in range(2)] == ["first", "second"]
    watch.drop(far)
    assert told.empty()


def test_what_fails_when_it_is_told_keeps_nobody_else(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    told = threading.Event()
    now = time.monotonic()
    watch.add(now, lambda: 1 / 0)
    watch.add(now + 0.01, told.set)
    assert told.wait(BOUND)
    assert "ZeroDivisionError" in caplog.text


def test_a_closed_watch_tells_nothing(watch: Watch) -> None:
    told: list[int] = []
    watch.add(time.monotonic() + 1000.0, lambda: told.append(1))
    watch.close()
    watch.add(time.monotonic() - 1000.0, lambda: told.append(2))
    watch.close()
    assert told == []
    assert "fan-overdue" not in {thread.name for thread in threading.enumerate()}
