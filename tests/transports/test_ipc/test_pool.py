"""The idle connections of a client: each is kept, in use or closed, whoever else is at them."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from fan.errors import Unavailable
from fan.message import Request
from fan.transports.ipc_client import MAX_IDLE, MOST_TURNS, Exclusive, Pool
from fan.transports.ipc_frames import Wire


class Probed(Exclusive):
    """A connection during whose look at itself somebody else does something with the pool."""

    def __init__(self, pair: tuple[socket.socket, socket.socket], meanwhile: Callable[[], object]):
        super().__init__("/x.sock", Wire(pair[0], 1000))
        self.peer = pair[1]
        self.meanwhile = meanwhile

    @property
    def is_reusable(self) -> bool:
        self.meanwhile()
        return super().is_reusable

    @property
    def is_closed(self) -> bool:
        return self.wire.sock.fileno() < 0

    def end(self) -> None:
        self.wire.close()
        self.peer.close()


def nothing() -> None:
    """Nobody comes between."""


def connections(*doings: Callable[[], object]) -> list[Probed]:
    return [Probed(socket.socketpair(), doing) for doing in doings]


def test_a_connection_put_back_during_a_sweep_is_kept_and_closed_with_the_pool() -> None:
    pool = Pool(1000)
    first, second = connections(nothing, pool.sweep)
    pool.release(first)
    first.peer.close()  # its server is gone: a sweep leaves an empty list behind
    pool.release(second)
    assert first.is_closed
    assert pool.count() == 1
    pool.close()
    assert second.is_closed
    second.end()


def test_a_connection_put_back_while_the_pool_closes_is_closed() -> None:
    pool = Pool(1000)
    (late,) = connections(pool.close)
    pool.release(late)
    assert late.is_closed
    assert pool.count() == 0
    late.end()


def test_a_sweep_closes_what_its_server_left_and_keeps_the_order_of_the_rest() -> None:
    pool = Pool(1000)
    kept = connections(nothing, nothing, nothing)
    gone = connections(nothing, nothing)
    for connection in (kept[0], gone[0], kept[1], gone[1], kept[2]):
        pool.release(connection)
    for connection in gone:
        connection.peer.close()
    pool.sweep()
    assert all(connection.is_closed for connection in gone)
    assert pool._idle["/x.sock"] == kept
    pool.close()
    for connection in kept:
        connection.end()


def test_what_comes_back_above_the_limit_is_closed() -> None:
    pool = Pool(1000)
    many = connections(*[nothing] * (MAX_IDLE + 1))
    for connection in many:
        pool.release(connection)
    assert pool.count() == MAX_IDLE
    assert many[-1].is_closed
    pool.close()
    assert all(connection.is_closed for connection in many)
    for connection in many:
        connection.end()


def test_a_server_that_left_leaves_nothing_behind_in_the_pool() -> None:
    pool = Pool(1000)
    (one,) = connections(nothing)
    pool.release(one)
    one.peer.close()
    pool.sweep()
    assert repr(pool._idle) == "{}"
    pool.close()


def test_servers_that_come_and_go_leave_a_bounded_number_of_turns() -> None:
    pool = Pool(1000)
    request = Request(id="1", service="x", method="y", timeout_ms=1000)
    for number in range(2 * MOST_TURNS):
        with pytest.raises(Unavailable):
            pool.call(f"/nowhere/{number}", request, None)
    assert len(pool._turns) <= MOST_TURNS
    pool.close()
