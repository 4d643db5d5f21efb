"""kill -9 of the broker and its restart, under load."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.soak.fleet import Fleet, Load

pytestmark = pytest.mark.soak

#: Redis confirms what it has on the disk.
SAFE = {"appendfsync": "always"}


def run(fleet: Fleet, server: Any, kills: int) -> None:
    """Kill the server again and again, and see that all goes on by itself."""
    fleet.start(2)
    fleet.wait_ready()
    load = Load(fleet)
    try:
        for _ in range(kills):
            load.wait_for_more(100, 20)
            if hasattr(server, "sync"):
                server.sync()
            server.kill()
            server.start()
        load.wait_for_more(100, 20)
    finally:
        load.stop()
    load.check()
    fleet.settle()
    fleet.stop()
    load.check()


@pytest.mark.redis
def test_calls_and_pushes_survive_a_redis_that_is_killed(
    scale: Callable[[int, int], int],
    new_redis: Callable[..., Any],
    new_fleet: Callable[..., Fleet],
) -> None:
    server = new_redis(keeps_data=True, conf=SAFE)
    run(new_fleet("redis", queue="redis", redis_url=server.url), server, scale(2, 40))


@pytest.mark.rabbitmq
def test_calls_and_pushes_survive_a_rabbitmq_that_is_killed(
    scale: Callable[[int, int], int],
    new_rabbitmq: Callable[..., Any],
    new_fleet: Callable[..., Fleet],
) -> None:
    server = new_rabbitmq()
    run(new_fleet("amqp", queue="amqp", amqp_url=server.url), server, scale(1, 15))
