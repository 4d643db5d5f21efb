"""The stores of one process that watch the same registry file look at it together."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fan.stores.base import HEAD, Hint
from fan.stores.sqlite import SqliteStore
from fan.testing.contracts.store import Eventually, soon, write

Opens = Callable[[], SqliteStore]


@pytest.fixture
def opens(tmp_path: Path) -> Iterator[Opens]:
    """`opens()` is one more store on the same file."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(SqliteStore(str(tmp_path / "registry.db")))


def watched(store: SqliteStore) -> Eventually:
    """What a watch of the generations sees."""
    seen = Eventually(lambda: store.head(deadline=soon()).gen)
    store.watch(HEAD, seen)
    return seen


_FIVE = """
def inotifies():
    links = []
    for fd in os.listdir('/proc/self/fd'):
        try:
            links.append(os.readlink('/proc/self/fd/' + fd))
        except OSError:
            pass  # that of this very listing
    return sum('inotify' in link for link in links)
def become(number):
    until = soon()
    while inotifies() != number and time.monotonic() < until:
        time.sleep(0.02)
    return inotifies()

import queue
stores = [SqliteStore(path) for _ in range(5)]
told = queue.SimpleQueue()
for number, store in enumerate(stores):
    store.watch(HEAD, lambda hint, number=number: told.put(number))
waiting = set(range(5))
while waiting:
    waiting.discard(told.get(timeout=20))
say(inotifies())
for store in stores:
    store.close()
say(become(0))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="others look without the kernel's help")
def test_all_are_woken_by_one_watch_of_the_file_that_ends_with_the_last(
    tmp_path: Path, run: Callable[[str, str], Any]
) -> None:
    with run(str(tmp_path / "registry.db"), _FIVE) as process:
        assert process.rest() == ["1", "0"]


def test_a_store_that_is_closed_leaves_the_others_their_watches(opens: Opens) -> None:
    first, second = opens(), opens()
    first_seen, second_seen = watched(first), watched(second)
    write(second, x="1")
    assert first_seen.sees(1)
    assert second_seen.sees(1)
    first.close()  # whose thread looked for both
    write(second, x="2")
    assert second_seen.sees(2)


def test_who_comes_after_the_last_has_left_is_told(opens: Opens) -> None:
    first = opens()
    seen = watched(first)
    write(first, x="1")
    assert seen.sees(1)
    first.close()
    second = opens()
    seen = watched(second)
    assert seen.sees(1)
    write(second, x="2")
    assert seen.sees(2)


def test_a_callback_that_does_not_come_back_keeps_no_other_store_waiting(opens: Opens) -> None:
    slow, quick = opens(), opens()
    entered, go = threading.Event(), threading.Event()

    def call_back(hint: Hint) -> None:
        entered.set()
        go.wait(30.0)

    slow.watch(HEAD, call_back)
    assert entered.wait(10.0)
    try:
        seen = watched(quick)
        write(quick, x="1")
        assert seen.sees(1)
        write(quick, x="2")
        assert seen.sees(2)
    finally:
        go.set()
