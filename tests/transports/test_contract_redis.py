"""The contracts of a transport and of queues, held against redis on a real server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from redis import Redis

from fan.app import App
from fan.model import Letter, QueueName
from fan.testing.contracts import QueueContract, TransportContract
from fan.testing.contracts.callers import Caller
from fan.testing.contracts.harness import Harness, World
from fan.testing.contracts.probe import BOUND, Probe, probe
from fan.testing.contracts.queue_harness import soon, until

pytestmark = pytest.mark.redis

Face = Callable[[Any], Caller]

#: The queue of the pushes to a `Probe`.
PUSHES = QueueName("probe")

NO_STREAMS = "redis answers streaming_unsupported"
NO_CANCEL = "a worker is not told who gave up"
NO_CHOICE = "no instance is chosen: whichever is free takes a call from the queue"


def streaming() -> list[str]:
    """The tests that need an ability to stream."""
    return [
        name
        for name in dir(TransportContract)
        if "stream" in getattr(getattr(TransportContract, name), "__fan_needs__", ())
    ]


class OnRedis(Harness):
    """A world has one database of the run's server, empty at first."""

    scheme: ClassVar[str] = "redis"
    #: Redis does not say who wrote an entry.
    is_authenticated: ClassVar[bool] = False

    @pytest.fixture(autouse=True)
    def server(self, redis_server: Any) -> None:
        self.url = redis_server.url

    def broker(self, world: World) -> dict[str, Any]:
        with Redis.from_url(self.url) as client:
            client.flushdb()
        return {"redis_url": self.url}

    def spoil(self, world: World, client: App, name: QueueName) -> None:
        key = f"fan:ev:{name.topic}" if name.topic else f"fan:pq:{name.service}"
        with Redis.from_url(self.url) as redis:
            redis.xadd(key, {"no": "envelope", b"\xff\xfe": b"\x00\xff"})


class TestRedis(OnRedis, TransportContract):
    gates: ClassVar[dict[str, str]] = {
        **dict.fromkeys(streaming(), NO_STREAMS),
        "test_a_handler_learns_that_its_caller_gave_up": NO_CANCEL,
        "test_an_open_breaker_of_one_instance_leaves_the_others": NO_CHOICE,
    }
    # The answers to the greeting; then the beginning of a string that never comes to its end.
    drip: ClassVar[bytes] = b":1\r\n+PONG\r\n$1000\r\n" + b"x" * 990

    # A queue accepts what its worker then finds wrong, and keeps it as a dead letter.

    def test_a_push_with_arguments_that_do_not_fit_is_refused(
        self, caller: Caller, served: Probe
    ) -> None:
        caller.push("probe.add", "no number")
        assert self._dead(caller).error.startswith("invalid_argument/bad_signature")
        assert served.runs["add"] == 0

    def test_pushes_that_were_accepted_survive_a_drain(self, world: World, face: Face) -> None:
        service = probe()
        app = world.serve(service)
        client = world.client()
        for n in range(5):
            face(client).push("probe.note", n)
        app.stop(timeout=BOUND)
        transport = client.transport("redis")
        found = transport.queues(transport.home()).list([PUSHES], deadline=soon())
        (waiting,) = (queue.ready for queue in found if queue.name == PUSHES)
        assert service.runs["note"] + waiting == 5  # what it did not begin waits for another

    def _dead(self, caller: Caller) -> Letter:
        transport = caller.client.transport("redis")
        queues = transport.queues(transport.home())
        return until(lambda: queues.letters(PUSHES, dead=True, deadline=soon()))[0]


class TestRedisQueues(OnRedis, QueueContract):
    pass
