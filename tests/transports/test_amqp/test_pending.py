"""What the clock of the calls keeps."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from fan.errors import DeadlineExceeded
from fan.message import Response
from fan.transports.amqp_pending import Clock, Pending


class HandLink:
    """A link whose timers run when a test says so."""

    url = "amqp://nowhere"
    state = "up"
    is_blocked = False

    def __init__(self) -> None:
        self.ring: Callable[[], None] | None = None

    def later(self, seconds: float, run: Callable[[], None]) -> Any:
        self.ring = run
        return run

    def forget(self, timer: Any) -> None:
        self.ring = None


@pytest.fixture
def link() -> HandLink:
    return HandLink()


@pytest.fixture
def clock(link: HandLink) -> Clock:
    return Clock(link)  # type: ignore[arg-type]


def test_an_answer_is_let_go_with_its_caller_and_not_at_the_deadline(clock: Clock) -> None:
    pending = Pending("a", 60_000)
    clock.watch(pending)
    pending.answer(Response(id="a", body=b"large"))
    seen = weakref.ref(pending)
    del pending
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize("end", ["answer", "fail", "cancel"])
def test_calls_that_are_over_do_not_pile_up_until_their_deadlines(clock: Clock, end: str) -> None:
    waiting = [Pending(f"waits-{n}", 60_000) for n in range(100)]
    for pending in waiting:
        clock.watch(pending)
    shelf: dict[str, Pending] = {}
    for n in range(5000):
        pending = Pending(str(n), 60_000)
        clock.watch(pending)
        if end == "answer":
            pending.answer(Response(id=pending.id))
        elif end == "fail":
            pending.fail(DeadlineExceeded("late"))
        else:
            pending.put_on(shelf, pending.id)
            pending.cancel()
        assert len(clock) <= 2 * len(waiting) + 2
    assert len(shelf) <= 2 * len(waiting)


def test_those_that_still_wait_fail_at_their_deadlines_all_the_same(
    link: HandLink, clock: Clock
) -> None:
    due, later = Pending("due", 0), Pending("later", 60_000)
    clock.watch(later)
    clock.watch(due)
    for n in range(500):
        over = Pending(str(n), 30_000)
        clock.watch(over)
        over.answer(Response(id=over.id))
    assert link.ring is not None
    link.ring()
    with pytest.raises(DeadlineExceeded):
        due.result(0)
    assert not later.done()
    assert link.ring is not None  # set anew, for the other
