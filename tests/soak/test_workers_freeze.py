"""SIGSTOP of random workers for longer than their lease, and SIGCONT, under load."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.soak.fleet import LEASE, Fleet, Load

pytestmark = pytest.mark.soak

REDIS = pytest.param("redis", marks=pytest.mark.redis)
AMQP = pytest.param("amqp", marks=pytest.mark.rabbitmq)


@pytest.mark.parametrize("scheme", ["ipc", "http", REDIS, AMQP])
def test_calls_and_pushes_go_on_while_workers_freeze_and_thaw(
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
        for _ in range(scale(2, 40)):
            load.wait_for_more(50)
            frozen = chance.choice(fleet.workers)
            frozen.send(signal.SIGSTOP)
            try:
                threading.Event().wait(chance.uniform(0.1, 2.5) * LEASE)  # the lease itself
                load.wait_for_more(20)
            finally:
                frozen.send(signal.SIGCONT)
        load.wait_for_more(100, 20 if is_queue else 0)
    finally:
        load.stop()
    if is_queue:
        fleet.settle()
    fleet.stop()
    load.check()
