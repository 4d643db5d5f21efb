"""Calls that take long, and calls in hand of a server that stops."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from redis import Redis

from fan.testing.contracts.probe import BOUND, probe
from fan.testing.contracts.queue_harness import until
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


def test_a_call_that_was_taken_and_not_begun_is_answered_though_its_server_stops(
    apps: Any, redis: Redis
) -> None:
    service = probe()
    app = apps.serve(service, workers=1)
    client = apps.app(retries=0).using(timeout=4 * BOUND)
    mine = client.using(instance=service.instance_id)
    held = [client.submit("probe.hold", 1)]
    service.wait_entered()
    # One read brings both: they wait in two streams.
    held += [client.submit("probe.hold", 2), mine.submit("probe.hold", 3)]
    streams = ("fan:rq:probe:1.0.0", f"fan:rq:probe:1.0.0:{service.instance_id}")
    until(lambda: [redis.xlen(stream) for stream in streams] == [1, 1])
    service.gate(1).set()
    service.wait_entered()
    until(lambda: not any(redis.xlen(stream) for stream in streams))
    stopping = threading.Thread(target=app.stop, args=(4 * BOUND,))
    stopping.start()
    until(lambda: redis.pubsub_numsub("fan:at:0:rq:probe:1.0.0/fan")[0][1] == 0)
    service.release()
    assert [future.result(4 * BOUND) for future in held] == [1, 2, 3]
    stopping.join(4 * BOUND)
