"""Who stops takes over nothing any more, and leaves nothing in its hand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

import fan
from fan.errors import FanError, Unavailable
from fan.testing.contracts.probe import BOUND
from fan.testing.contracts.queue_harness import until
from fan.transports.redis_keeper import Keeper
from fan.transports.redis_keys import GROUP, Keys
from fan.transports.redis_lane import Lane
from fan.transports.redis_message import Message
from fan.transports.redis_pipe import Done, Item, Pipe
from fan.transports.redis_place import place_of
from fan.transports.redis_resp import Refusal, Reply
from fan.transports.redis_scripts import Script

pytestmark = pytest.mark.redis

STREAM = "fan:pq:slow"
FIELDS = [b"a", b"b"]


class Slow(fan.Service):
    """A push that takes until the gate is open, and one that takes no time."""

    name = "slow"
    version = "1.0.0"

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.begun: list[str] = []

    @fan.push
    def work(self) -> None:
        """Take long."""
        self.begun.append("work")
        self.gate.wait(4 * BOUND)

    @fan.push
    def quick(self) -> None:
        """Take no time."""
        self.begun.append("quick")

    def release(self) -> None:
        """Let all go on."""
        self.gate.set()


def held(redis: Redis) -> dict[str, Any]:
    """Who has the pushes that are in hand, the oldest first: consumer -> ms since its last sign of
    life."""
    rows = redis.xpending_range(STREAM, GROUP, "-", "+", 10)
    return {row["consumer"].decode(): row["time_since_delivered"] for row in rows}


def is_taken(redis: Redis) -> bool:
    """Whether a worker shows that it takes, or reads."""
    shown = redis.pubsub_numsub(Keys().pushes("slow").at)[0][1]
    return bool(shown) or any(
        "b" in client["flags"] and client["cmd"] == "xreadgroup" for client in redis.client_list()
    )


def test_who_stops_leaves_what_a_dead_worker_had_to_others(apps: Any, redis: Redis) -> None:
    service, second = Slow(), Slow()
    app = apps.serve(service, workers=4, lease=0.4)
    sender = apps.app().using(transport="redis")
    sender.push("slow.work")
    until(lambda: service.begun)
    assert not app.drain(0.0)  # it waits for that one
    until(lambda: not is_taken(redis))
    sender.push("slow.quick")
    redis.xreadgroup(GROUP, "dead", {STREAM: ">"})
    (worker,) = held(redis).keys() - {"dead"}
    for _ in range(4):  # each sign of life comes with a look, and the second look is sure
        until(lambda: held(redis)[worker] > 50)
        until(lambda: held(redis)[worker] < 50)
    assert set(held(redis)) == {worker, "dead"}
    apps.serve(second)
    until(lambda: second.begun == ["quick"])
    service.release()
    app.stop(4 * BOUND)
    assert service.begun == ["work"]


class Desk:
    """Notes what is to be handled, for a crew that has a thread or not."""

    def __init__(self) -> None:
        self.begun: list[Message] = []
        self.has_threads = True
        #: Whether messages are acknowledged first.
        self.acknowledges = False

    def read(self, message: Message) -> bool:
        return self.acknowledges

    def begin(self, messages: list[Message]) -> None:
        if not self.has_threads:
            raise RuntimeError("can't start new thread")
        self.begun += messages

    def doubt(self, messages: list[Message]) -> None:
        raise AssertionError("no acknowledgement was lost")


class Loop:
    """A loop that runs nothing."""

    is_here = True

    def soon(self, run: Any) -> None:
        """Nobody waits for it."""


class Asked(Pipe):
    """Keeps what scripts are run for, and gives no answer by itself."""

    def __init__(self, loop: Any) -> None:
        super().__init__(loop, place_of("redis://127.0.0.1:1/0"))
        self.asked: list[Done] = []

    def run(self, script: Script, keys: Any, args: Any, done: Done) -> Item:
        self.asked.append(done)
        return Item(b"", 1, done)


class Lanes:
    """A lane of one source, and the moments at which it told that it had stopped."""

    def __init__(self) -> None:
        loop: Any = Loop()
        self.pipe, self.desk, self.source = Asked(loop), Desk(), Keys().pushes("slow")
        self.lane = Lane(loop, self.pipe, self.desk, GROUP, "me", 4)
        self.lane.sources = (self.source,)
        self.keeper = Keeper(loop, self.pipe, Keys(), self.lane, 8.0, lambda: None)
        self.stopped: list[int] = []

    def open(self) -> None:
        """Have it read, over a connection that is there and swallows everything."""
        self.lane._line.is_open = True
        self.lane.set([self.source], lambda: None)

    def stop(self) -> None:
        """Have it stop; what was begun by then is noted."""
        self.lane.stop(lambda: self.stopped.append(len(self.desk.begun)))


@pytest.fixture
def lanes() -> Lanes:
    return Lanes()


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The exceptions of the loop's thread that were reported."""
    reports: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", reports.append)
    return reports


def read_of(number: bytes) -> Reply:
    """What a read says that brought one message."""
    return [[STREAM.encode(), [[number, FIELDS]]]]


def test_a_claim_whose_answer_is_on_its_way_is_waited_for(lanes: Lanes) -> None:
    assert lanes.lane.expect()
    lanes.stop()
    assert not lanes.stopped
    assert not lanes.lane.expect()  # and no other one is made
    lanes.lane.add(lanes.source, [[b"1-1", FIELDS, 1]])
    assert lanes.stopped == [1]  # what came is told of first


def test_who_stops_comes_to_its_end_though_no_thread_can_be_had(lanes: Lanes) -> None:
    lanes.desk.has_threads = False
    assert lanes.lane.expect()
    lanes.stop()
    with pytest.raises(RuntimeError):
        lanes.lane.add(lanes.source, [[b"1-1", FIELDS, 1]])
    assert lanes.stopped == [0]


LOOKS: dict[str, Callable[[Lanes], object]] = {
    "claim": lambda lanes: lanes.keeper.look(lanes.source),
    "missed": lambda lanes: lanes.lane.line_opened(),
}
FAILURES: dict[str, list[Reply] | FanError] = {
    "lost": Unavailable("it was lost"),
    "refused": [Refusal("NOGROUP No such key")],
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_a_look_that_failed_keeps_nobody_who_stops(
    lanes: Lanes, look: Callable[[Lanes], object], failure: list[Reply] | FanError
) -> None:
    look(lanes)
    lanes.pipe.asked.pop()(failure)
    look(lanes)  # and the next one is made
    lanes.stop()
    assert not lanes.stopped
    lanes.pipe.asked.pop()(failure)
    assert lanes.stopped == [0]


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_who_has_stopped_looks_for_nothing_more(
    lanes: Lanes, look: Callable[[Lanes], object]
) -> None:
    lanes.stop()
    look(lanes)
    assert lanes.stopped == [0]
    assert not lanes.pipe.asked


def test_who_stops_comes_to_its_end_though_no_thread_can_be_had_for_what_was_read(
    lanes: Lanes, broken: list[Any]
) -> None:
    lanes.desk.has_threads = False
    lanes.open()
    lanes.stop()
    assert not lanes.stopped
    lanes.lane.line_got([read_of(b"1-1")])
    assert lanes.stopped == [0]
    assert len(broken) == 1


def test_what_came_with_an_answer_that_could_not_be_used_is_not_lost(
    lanes: Lanes, broken: list[Any]
) -> None:
    lanes.open()
    lanes.desk.acknowledges = True
    lanes.lane.line_got([read_of(b"1-1")])
    lanes.desk.has_threads = False
    lanes.lane.line_got([[1], read_of(b"1-2")])
    assert [number for _, number in lanes.lane.in_hand] == [b"1-1", b"1-2"]
    assert len(broken) == 1
