"""Threads that call one server take turns, and no call waits for its turn longer than it pays."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable

import pytest

from fan.message import Request, Response
from fan.transports import ipc_turns
from fan.transports.ipc_client import SHORT, Exclusive
from fan.transports.ipc_spin import LOOK, Receiver
from fan.transports.ipc_turns import IN_A_ROW, Turns
from tests.transports.test_ipc.conftest import HANG, Place

LONG = 1000.0


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody leaves the line, and no turn takes long, however slow this machine is."""
    monkeypatch.setattr(ipc_turns, "PATIENCE", HANG)
    monkeypatch.setattr(ipc_turns, "_HICCUP", HANG)


def until(what: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    give_up = time.monotonic() + HANG
    while not what():
        assert time.monotonic() < give_up
        time.sleep(0.001)


class Waiter(threading.Thread):
    """A thread that wants a turn, and ends it when it is told to."""

    def __init__(self, turns: Turns, done: list[str], name: str, *, seconds: float = LONG) -> None:
        super().__init__(name=name)
        self.turns, self.done, self.seconds = turns, done, seconds
        self.start()

    def run(self) -> None:
        if self.turns.take(self.seconds):
            self.done.append(self.name)
            self.turns.end(was_quick=True)
        else:
            self.done.append(f"{self.name} without")


def test_turns_come_in_the_order_in_which_they_were_asked_for(patient: None) -> None:
    turns, done = Turns(), list[str]()
    assert turns.take(LONG)
    waiters = []
    for count, name in enumerate("abcdefgh", 1):
        waiters.append(Waiter(turns, done, name))
        until(lambda count=count: len(turns._line) == count)  # type: ignore[misc]
    assert not done
    turns.end(was_quick=True)
    for waiter in waiters:
        waiter.join(HANG)
    assert "".join(done) == "abcdefgh"
    assert turns.take(LONG)
    turns.end(was_quick=True)


def test_who_comes_back_at_once_leaves_others_their_turn(
    patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ipc_turns, "SOON", HANG)
    monkeypatch.setattr(ipc_turns, "_LOOK", HANG)
    turns, done = Turns(), list[str]()
    assert turns.take(LONG)
    waiter = Waiter(turns, done, "other")
    until(lambda: bool(turns._line))
    turns._is_back = True  # as one that came back at once
    turns.end(was_quick=True)
    calls = 0
    while not done:
        assert turns.take(LONG)
        calls += 1
        turns.end(was_quick=True)
        assert calls <= IN_A_ROW + 1
    waiter.join(HANG)


def test_a_turn_that_is_left_lying_is_taken(patient: None) -> None:
    turns, done = Turns(), list[str]()
    assert turns.take(LONG)
    waiter = Waiter(turns, done, "other")
    until(lambda: bool(turns._line))
    turns._is_back = True  # as one that came back at once, and now does not any more
    turns.end(was_quick=True)
    waiter.join(HANG)
    assert done == ["other"]


def test_a_turn_that_is_not_given_back_costs_one_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipc_turns, "PATIENCE", 0.01)
    turns = Turns()
    assert turns.take(LONG)
    assert not turns.take(LONG)
    monkeypatch.setattr(ipc_turns, "PATIENCE", HANG)  # another wait would be noticed
    for _ in range(1000):
        assert not turns.take(LONG)


def test_a_call_waits_for_its_turn_for_a_part_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipc_turns, "PATIENCE", LONG)
    turns = Turns()
    assert turns.take(LONG)
    assert not turns.take(0.1)


def test_the_longest_line_is_no_reason_to_wait_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipc_turns, "_LOOK", 2 * HANG)
    turns, done = Turns(), list[str]()
    assert turns.take(LONG)
    hasty = Waiter(turns, done, "hasty", seconds=0.01)
    hasty.join(HANG)
    assert done == ["hasty without"]


def test_who_has_little_time_turns_nothing_off(patient: None) -> None:
    turns = Turns()
    assert turns.take(LONG)
    assert not turns.take(0.001)
    turns.end(was_quick=True)
    assert turns.take(LONG)


def test_a_turn_that_was_passed_is_had_before_the_word_of_it_came(patient: None) -> None:
    turns = Turns()
    mine = threading.Lock()
    with mine:
        assert turns._leave(mine)


def go_off(turns: Turns, *, was_quick: bool) -> bool:
    """Take turns while somebody else wants them; whether there are none any more in the end."""
    for count in range(100):
        if not turns.take(LONG):
            return True
        waiter = Waiter(turns, [], f"{count}")
        until(lambda: bool(turns._line))
        turns.end(was_quick=was_quick)
        waiter.join(HANG)
    return False


def test_turns_that_take_long_are_no_turns_for_a_while(
    patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ipc_turns, "_HICCUP", 1e-9)
    turns = Turns()
    assert go_off(turns, was_quick=True)


def test_those_in_line_leave_it_when_turns_go_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipc_turns, "PATIENCE", LONG)
    turns, done = Turns(), list[str]()
    assert turns.take(LONG)
    waiters = [Waiter(turns, done, name) for name in "ab"]
    until(lambda: len(turns._line) == 2)
    turns._pause = 1000  # as after too many that took long; this one is not given back
    for waiter in waiters:
        waiter.join(HANG)
    assert sorted(done) == ["a without", "b without"]


def test_an_exception_behind_the_end_of_a_turn_ends_no_other(place: Place) -> None:
    class Interrupted(Turns):
        def end(self, *, was_quick: bool) -> None:
            super().end(was_quick=was_quick)
            raise KeyboardInterrupt

    turns = place.client._pool._turns[place.path] = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        place.call("wait")
    assert turns.take(LONG)


def test_an_exception_behind_a_call_leaves_the_connection_to_who_took_it(place: Place) -> None:
    class Interrupted(list[Exclusive]):
        def append(self, connection: Exclusive, /) -> None:
            super().append(connection)
            raise KeyboardInterrupt

    place.call("echo")
    ((path, (connection,)),) = place.client._pool._idle.items()
    idle = place.client._pool._idle[path] = Interrupted([connection])
    with pytest.raises(KeyboardInterrupt):
        place.call("echo")
    assert idle == [connection]
    assert connection.wire.sock.fileno() >= 0


def test_who_is_interrupted_in_line_keeps_no_turn(patient: None) -> None:
    turns = Turns()
    assert turns.take(LONG)
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        until(lambda: bool(turns._line))
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        turns.take(LONG)
    assert not turns.is_wanted
    turns.end(was_quick=True)
    assert turns.take(LONG)


def test_without_quick_answers_nobody_waits_for_a_turn(patient: None) -> None:
    turns = Turns()
    assert go_off(turns, was_quick=False)
    assert not turns.is_wanted


def test_calls_that_take_long_run_side_by_side(place: Place) -> None:
    everybody = threading.Barrier(16)

    def meet(request: Request, _: object) -> Response:
        everybody.wait(HANG)
        return Response(id=request.id)

    place.handler.do_meet = meet  # type: ignore[attr-defined]
    answers: list[str] = []
    for _ in range(3):  # with turns on, and with turns off
        callers = [
            threading.Thread(target=lambda: answers.append(place.call("meet").code))
            for _ in range(16)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(HANG)
    assert answers == ["ok"] * 48


def test_who_looked_in_vain_sleeps_and_leaves_the_look_to_who_has_the_turn(place: Place) -> None:
    class Counted(Receiver):
        __slots__ = ("looks",)

        def receive(self, sock: socket.socket, into: memoryview, seconds: float = LOOK) -> int:
            self.looks += 1
            return super().receive(sock, into, seconds)

    place.call("echo")
    (idle,) = place.client._pool._idle.values()
    spin = idle[0].wire.spin = Counted("answer")
    spin.looks = 0
    place.call("soon")
    assert spin.looks == 1
    place.call("soon")  # the look of before was in vain, so it sits this one out
    assert spin.looks == 1
    place.call("soon")
    assert spin.looks == 2


def test_every_thread_gets_its_own_answers(place: Place) -> None:
    wrong: list[bytes] = []

    def call(name: int) -> None:
        for count in range(100):
            body = b"%d/%d" % (name, count) * (1 if count % 10 else SHORT)
            if place.call("echo", body).body != body:
                wrong.append(body[:10])

    callers = [threading.Thread(target=call, args=(name,)) for name in range(16)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(HANG)
    assert not wrong
    assert not any(caller.is_alive() for caller in callers)


def test_short_calls_of_many_threads_need_no_connection_each(
    place: Place, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fan.transports.ipc_client.LOOK", HANG)  # so that all are, even here
    monkeypatch.setattr("fan.transports.ipc_client.QUICK", HANG)
    place.call("echo")
    callers = [
        threading.Thread(target=lambda: [place.call("echo") for _ in range(20)]) for _ in range(16)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(HANG)
    assert place.client._pool.count() == 1


def test_a_child_forked_while_its_parent_looks_for_an_answer_looks_too() -> None:
    from fan.transports import ipc_spin

    with ipc_spin._looking["answer"]:
        child = os.fork()
        if not child:
            os._exit(0 if ipc_spin._looking["answer"].acquire(blocking=False) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
