"""Looks come seldom once they are in vain, and every time once they are not."""

from __future__ import annotations

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
