"""The stores of one process that watch the same registry file look at it together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

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


def lookouts() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name == "fan-registry-look"}


def test_one_thread_looks_for_all_and_ends_with_the_last(
    opens: Opens, eventually: Callable[[Callable[[], bool]], bool]
) -> None:
    before = lookouts()
    stores = [opens() for _ in range(5)]
    each = [watched(store) for store in stores]
    write(stores[0], x="1")
    assert all(seen.sees(1) for seen in each)
    (thread,) = lookouts() - before
    for store in stores:
        store.close()
    assert eventually(lambda: not thread.is_alive())


def test_a_store_that_is_closed_leaves_the_others_their_watches(opens: Opens) -> None:
    first, second = opens(), opens()
    first_seen, second_seen = watched(first), watched(second)
    write(second, x="1")
    assert first_seen.sees(1)
    assert second_seen.sees(1)
    first.close()
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
