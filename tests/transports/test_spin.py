"""Looks come seldom once they are in vain, and every time once they are not."""

from __future__ import annotations

import threading
import time

from fan.testing.contracts.probe import BOUND
from fan.transports.redis_loop import Loop
from fan.transports.spin import Spin


def looks(spin: Spin, times: int) -> int:
    """How many of so many times are looks, all of them in vain."""
    count = 0
    for _ in range(times):
        if spin.is_due():
            spin.came_not()
            count += 1
    return count


def test_looks_in_vain_become_seldom() -> None:
    spin = Spin()
    assert looks(spin, 127) == 7
    assert looks(spin, 640) == 10


def test_a_time_that_is_sat_out_counts_for_no_other() -> None:
    spin = Spin()
    spin.sit_out()
    assert not spin.is_due()
    assert spin.is_due()
    spin.came_not()
    spin.sit_out()
    assert [spin.is_due() for _ in range(3)] == [False, False, True]


def test_a_look_that_was_not_in_vain_is_followed_by_others() -> None:
    spin = Spin()
    looks(spin, 127)
    while not spin.is_due():
        pass
    spin.came()
    assert all(spin.is_due() for _ in range(10))


def test_a_look_ends_with_what_is_found() -> None:
    spin = Spin()
    looks(spin, 127)
    while not spin.is_due():
        pass
    answers = iter(["", "", "found", "too far"])
    assert spin.look(lambda: next(answers), 600.0) == "found"
    assert spin.is_due()


def test_a_look_that_finds_nothing_is_in_vain() -> None:
    spin = Spin()
    assert spin.look(lambda: "", 0.001) is None
    assert not spin.is_due()


def test_what_is_found_too_late_is_given_and_was_looked_for_in_vain() -> None:
    spin = Spin()

    def slow() -> str:
        time.sleep(0.002)
        return "found"

    assert spin.look(slow, 0.001) == "found"
    assert not spin.is_due()


def test_a_look_that_is_cut_short_says_nothing() -> None:
    spin = Spin()
    assert spin.look(lambda: "", 0.0, is_cut=True) is None
    assert spin.is_due()


class Crowd:
    """Tasks of an event loop that wait."""


class Seen(Loop):
    """A loop of redis that tells of its looks."""

    def __init__(self) -> None:
        super().__init__()
        self.glanced = threading.Event()

    def _glance(self) -> list[tuple[int, int]]:
        self.glanced.set()
        return super()._glance()


def turn(loop: Loop) -> None:
    """Have it do something, and wait for that."""
    done = threading.Event()
    loop.soon(done.set)
    assert done.wait(BOUND)


def test_a_redis_loop_looks_before_it_sleeps() -> None:
    loop = Seen()
    turn(loop)
    assert loop.glanced.wait(BOUND)
    loop.close()


def test_a_redis_loop_does_not_look_in_a_crowd() -> None:
    loop, crowd = Seen(), Crowd()
    loop.crowds.add(crowd)
    for _ in range(100):
        turn(loop)
    assert not loop.glanced.is_set()
    loop.close()
