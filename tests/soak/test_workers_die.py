"""kill -9 of random workers: nothing is lost, each push is run, none more often than it may be."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.soak.fleet import DELIVERIES, Fleet, Load, until

pytestmark = pytest.mark.soak

REDIS = pytest.param("redis", marks=pytest.mark.redis)
AMQP = pytest.param("amqp", marks=pytest.mark.rabbitmq)


@pytest.mark.parametrize("scheme", ["database", REDIS, AMQP])
def test_no_push_is_lost_when_workers_are_killed_at_random(
    scheme: str,
    scale: Callable[[int, int], int],
    broker: Callable[[str], dict[str, Any]],
    new_fleet: Callable[..., Fleet],
    chance: random.Random,
) -> None:
    kills = scale(5, 100)
    share = 100  # between two kills
    fleet = new_fleet(scheme, **broker(scheme))
    fleet.start(3)
    fleet.wait_ready()
    sent: set[str] = set()
    for _ in range(kills):
        done = len(fleet.look()["take"])
        tags = [str(len(sent) + n) for n in range(share)]
        pushing = [threading.Thread(target=push, args=(fleet, tags[n::4])) for n in range(4)]
        for thread in pushing:
            thread.start()
        sent.update(tags)
        wanted = done + chance.randrange(1, share // 2)
        until(lambda wanted=wanted: len(fleet.look()["take"]) >= wanted, f"{wanted} runs")
        fleet.kill(chance)
        for thread in pushing:
            thread.join()
    until(lambda: len(fleet.look()["take"]) >= len(sent), f"all {len(sent)} pushes are run")
    fleet.settle()
    fleet.stop()
    runs = fleet.look()["take"]
    assert set(runs) == sent
    assert max(runs.values()) <= DELIVERIES


def push(fleet: Fleet, tags: list[str]) -> None:
    """Push each of them."""
    client = fleet.client.using(transport=fleet.bind)
    for tag in tags:
        client.push(f"{fleet.service}.take", tag)


@pytest.mark.parametrize("scheme", ["ipc", "http", REDIS, AMQP])
def test_calls_and_pushes_go_on_while_workers_are_killed_at_random(
    scheme: str,
    scale: Callable[[int, int], int],
    broker: Callable[[str], dict[str, Any]],
    new_fleet: Callable[..., Fleet],
    chance: random.Random,
) -> None:
    fleet = new_fleet(scheme, **broker(scheme))
    fleet.start(3)
    fleet.wait_ready()
    is_queue = scheme in ("redis", "amqp")
    load = Load(fleet, pushers=2 if is_queue else 0)
    try:
        for _ in range(scale(3, 60)):
            load.wait_for_more(chance.randrange(100, 200), 20 if is_queue else 0)
            fleet.kill(chance)
        load.wait_for_more(100)
    finally:
        load.stop()
    load.check()
