"""Calls that take long."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from fan.testing.contracts.probe import BOUND, probe
from fan.transports.redis_watch import PERIOD

pytestmark = pytest.mark.redis


@pytest.mark.parametrize("method", ["hold", "hold_async"])
def test_a_call_in_the_hand_of_a_living_worker_is_waited_for(apps: Any, method: str) -> None:
    service = probe()
    apps.serve(service)
    held = apps.app().using(timeout=4 * BOUND).submit(f"probe.{method}", "long")
    service.wait_entered()
    threading.Event().wait(5 * PERIOD)  # looks at it that find it well
    assert not held.done()
    service.gate("long").set()
    assert held.result(BOUND) == "long"


def test_a_call_that_waits_for_a_busy_worker_is_waited_for(apps: Any) -> None:
    service = probe()
    apps.serve(service, workers=1)
    client = apps.app().using(timeout=4 * BOUND)
    first, second = client.submit("probe.hold", 1), client.submit("probe.add", 1)
    service.wait_entered()
    threading.Event().wait(5 * PERIOD)  # looks at it that find it well
    assert not second.done()
    service.release()
    assert (first.result(BOUND), second.result(BOUND)) == (1, 2)
