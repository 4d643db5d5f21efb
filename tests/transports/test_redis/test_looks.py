"""The looks at calls that take long, and at connections: one at a time, whoever asks for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from fan.testing.contracts.probe import BOUND
from fan.transports.redis_keys import Keys
from fan.transports.redis_loop import Timer
from fan.transports.redis_pipe import Pipe
from fan.transports.redis_place import place_of
from fan.transports.redis_watch import Watch


class HandLoop:
    """A loop whose timers run when a test says so."""

    is_here = True

    def __init__(self) -> None:
        self.timers: list[Timer] = []
        #: What another thread does while a timer is being set.
        self.meanwhile: Callable[[], object] = lambda: None

    def later(self, seconds: float, run: Callable[[], object]) -> Timer:
        self.meanwhile()
        self.timers.append(Timer(seconds, run))
        return self.timers[-1]

    @property
    def planned(self) -> list[Timer]:
        return [timer for timer in self.timers if timer.run is not None]

    def turn(self) -> None:
        """Run what is planned now."""
        due, self.timers = self.planned, []
        for timer in due:
            assert timer.run is not None
            timer.run()


class Young:
    """A call that is too young for a look."""

    began = deadline = float("inf")
    entry = b""


class Calls:
    """The calls of a process."""

    can_hear = True

    def __init__(self) -> None:
        self.pending: dict[str, Any] = {"a": Young()}


def watching() -> tuple[Any, HandLoop, Calls]:
    loop, calls = HandLoop(), Calls()
    pipe: Any = None
    return Watch(loop, pipe, Keys(""), calls), loop, calls  # type: ignore[arg-type]


def test_calls_that_begin_at_once_in_several_threads_are_looked_at_once() -> None:
    watch, loop, _ = watching()
    threads: list[threading.Thread] = []

    def begin_too() -> None:
        if not threads:
            threads.append(threading.Thread(target=watch.begin))
            threads[0].start()
            threads[0].join(0.2)  # it ends after the first has planned its look, or never before

    loop.meanwhile = begin_too
    watch.begin()
    threads[0].join(BOUND)
    assert len(loop.planned) == 1


def test_a_call_that_begins_during_a_look_does_not_add_another() -> None:
    watch, loop, calls = watching()
    watch.begin()
    loop.meanwhile = lambda: None if threading.current_thread().name == "other" else other(watch)
    for _ in range(3):
        loop.turn()
        assert len(loop.planned) == 1
    calls.pending.clear()
    loop.turn()
    assert loop.planned == []
    calls.pending["b"] = Young()
    watch.begin()
    assert len(loop.planned) == 1


def other(watch: Any) -> None:
    thread = threading.Thread(target=watch.begin, name="other")
    thread.start()
    thread.join(0.2)


def test_nothing_is_looked_at_once_it_is_closed() -> None:
    watch, loop, _ = watching()
    watch.begin()
    watch.close()
    watch.begin()
    loop.turn()
    assert loop.planned == []


def test_a_connection_that_is_made_anew_often_is_looked_at_once() -> None:
    loop: Any = HandLoop()
    pipe = Pipe(loop, place_of("redis://127.0.0.1:1/0"))
    for _ in range(5):
        pipe.line_opened()
        pipe.line_lost("it was closed")
    assert len(loop.planned) == 1
