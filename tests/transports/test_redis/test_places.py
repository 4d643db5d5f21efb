"""More messages than a worker has places for: one read of several streams brings them, and so do a
read and a claim at the same time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from redis import Redis

import fan
from fan.errors import Unavailable
from fan.message import Request
from fan.testing.contracts.probe import BOUND, Probe, probe
from fan.testing.contracts.queue_harness import until
from fan.transports.redis_fields import encode_request

pytestmark = pytest.mark.redis


def crowd(apps: Any, redis: Redis, service: Probe) -> tuple[Future[Any], Future[Any]]:
    """Have the one place of a service taken by a call while its worker has one more: the call that
    is held, and the other one. One read brings both, since they wait in two streams."""
    client = apps.app(retries=0).using(timeout=4 * BOUND)
    client.submit("probe.hold", "before")
    service.wait_entered()
    held = client.submit("probe.hold", "held")
    other = client.using(peers=(apps.url,)).submit("probe.add", 1)  # it names no version
    until(lambda: (redis.xlen("fan:rq:probe:1.0.0"), redis.xlen("fan:rq:probe")) == (1, 1))
    service.gate("before").set()
    assert service.wait_entered() == "held"
    return held, other


def test_a_call_that_has_no_place_is_for_another_server(apps: Any, redis: Redis) -> None:
    service, second = probe(), probe()
    apps.serve(service, workers=1)
    held, other = crowd(apps, redis, service)
    apps.serve(second, workers=1)
    assert other.result(4 * BOUND) == 2
    assert second.runs["add"] == 1
    service.release()
    assert held.result(BOUND) == "held"


def test_a_call_that_has_no_place_is_told_that_its_server_stops(apps: Any, redis: Redis) -> None:
    service = probe()
    app = apps.serve(service, workers=1)
    held, other = crowd(apps, redis, service)
    stopping = threading.Thread(target=app.stop, args=(4 * BOUND,))
    stopping.start()
    failure = other.exception(4 * BOUND)
    assert isinstance(failure, Unavailable)
    assert (failure.reason, failure.executed) == ("draining", "no")
    service.release()
    assert held.result(BOUND) == "held"
    stopping.join(4 * BOUND)
    assert service.runs["add"] == 0


class Slow(fan.Service):
    """Its pushes fail once, then take until the gate is open."""

    name = "slow"
    version = "1.0.0"

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.begun = threading.Semaphore(0)

    @fan.push
    def work(self) -> None:
        """Fail, then take long."""
        context = fan.current()
        if context is None or context.attempt == 0:
            raise ValueError("not yet")
        self.begun.release()
        self.gate.wait(4 * BOUND)

    @fan.push
    def quick(self) -> None:
        """Take no time."""
        self.begun.release()

    def release(self) -> None:
        """Let all go on."""
        self.gate.set()


@pytest.fixture
def patient(redis: Redis, url: str) -> Iterator[str]:
    """The URL for a user who may not end a read before its time."""
    redis.acl_setuser(
        "patient", enabled=True, passwords=["+pw"], keys=["*"], channels=["*"],
        commands=["+@all", "-client|unblock"],
    )  # fmt: skip
    yield url.replace("redis://", "redis://patient:pw@")
    redis.acl_deluser("patient")


def test_a_push_that_comes_to_a_worker_that_claimed_another_goes_to_an_idle_one(
    patient: str,
    apps: Any,  # which end first: Redis lets go of a user who is deleted
) -> None:
    full, idle = Slow(), Slow()
    apps.serve(full, workers=1, url=patient)
    sender = apps.app().using(transport="redis")
    sender.push("slow.work")
    assert full.begun.acquire(timeout=4 * BOUND)  # claimed, while a read is on its way
    sender.push("slow.quick")
    apps.serve(idle, workers=1)
    assert idle.begun.acquire(timeout=2 * BOUND)


def test_calls_of_several_streams_do_not_wait_for_the_next_read(apps: Any, redis: Redis) -> None:
    streams = ("fan:rq:probe:1.0.0", "fan:rq:probe")
    for stream in streams:
        request = Request(id=stream, service="probe", method="add", timeout_ms=60_000, body=b"[1]")
        fields = encode_request(request, reply="tester")
        redis.xadd(stream, dict(zip(fields[::2], fields[1::2], strict=True)))
    with redis.monitor() as monitor:
        apps.serve(probe())
        for _ in streams:
            assert redis.blpop(["fan:rp:tester"], int(4 * BOUND)) is not None
        redis.echo("the end")
        told: list[dict[str, Any]] = []
        while "the end" not in (told[-1]["command"] if told else ""):
            told.append(monitor.next_command())
    reads = [each for each in told if each["command"].startswith("XREADGROUP")]
    (reader,) = {each["client_port"] for each in reads if streams[0] in each["command"]}
    lane = [each["command"].split()[0] for each in told if each["client_port"] == reader]
    first = lane.index("XREADGROUP")
    assert lane[first : first + 3] == ["XREADGROUP", "EVALSHA", "EVALSHA"]
