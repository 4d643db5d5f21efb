"""Who stops takes over nothing any more, and leaves nothing in its hand."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from redis import Redis

import fan
from fan.testing.contracts.probe import BOUND
from fan.testing.contracts.queue_harness import until
from fan.transports.redis_keys import GROUP, Keys
from fan.transports.redis_lane import Lane
from fan.transports.redis_message import Message
from fan.transports.redis_pipe import Pipe
from fan.transports.redis_place import place_of

pytestmark = pytest.mark.redis

STREAM = "fan:pq:slow"


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
    """Notes what is to be handled."""

    def __init__(self) -> None:
        self.begun: list[Message] = []

    def read(self, message: Message) -> bool:
        return False

    def begin(self, messages: list[Message]) -> None:
        self.begun += messages

    def doubt(self, messages: list[Message]) -> None:
        raise AssertionError("nothing was to be acknowledged")


class Loop:
    """A loop that runs nothing."""

    def soon(self, run: Any) -> None:
        """Nobody waits for it."""


def test_a_claim_whose_answer_is_on_its_way_is_waited_for() -> None:
    loop: Any = Loop()
    place, desk = place_of("redis://127.0.0.1:1/0"), Desk()
    lane = Lane(loop, Pipe(loop, place), desk, GROUP, "me", 4)
    source = Keys().pushes("slow")
    stopped: list[int] = []
    assert lane.expect()
    lane.stop(lambda: stopped.append(len(desk.begun)))
    assert not stopped
    assert not lane.expect()  # and no other one is made
    lane.add(source, [[b"1-1", [b"a", b"b"], 1]])
    assert stopped == [1]  # what came is told of first
