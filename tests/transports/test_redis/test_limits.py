"""What stays constant, what is too much, and who does not see whom."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import msgspec
import pytest
from redis import Redis

from fan.context import new_id
from fan.errors import DeadlineExceeded, FanError, NotFound, ResourceExhausted, Unavailable
from fan.message import Request
from fan.testing.contracts.probe import BOUND, probe
from fan.testing.contracts.queue_harness import until
from fan.testing.contracts.queue_probe import Inbox
from fan.transports.redis_fields import encode_request

pytestmark = pytest.mark.redis


def keys_of(redis: Redis) -> Counter[bytes]:
    """How many keys there are of each kind."""
    return Counter(key.split(b":")[1] for key in redis.scan_iter("fan:*"))


def test_a_thousand_calls_leave_connections_and_keys_where_they_were(
    apps: Any, redis: Redis
) -> None:
    box = Inbox()
    apps.serve(box)
    client = apps.app()
    sender = client.using(transport="redis")

    def work(n: int) -> None:
        threads = [
            threading.Thread(target=lambda: [client.call("inbox.add", i) for i in range(n)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for i in range(n):
            sender.push("inbox.take", i)
        for thread in threads:
            thread.join(4 * BOUND)
        box.wait_tags(n)

    def state() -> tuple[int, Counter[bytes]]:
        until(lambda: not any(redis.xlen(k) for k in (b"fan:rq:inbox:1.0.0", b"fan:pq:inbox")))
        until(lambda: not redis.exists("fan:hand:rq:inbox:1.0.0"))
        return redis.info("clients")["connected_clients"], keys_of(redis)

    work(50)
    before = state()
    work(250)
    assert state() == before


def test_a_queue_full_of_expired_calls_is_passed_over_quickly(apps: Any, redis: Redis) -> None:
    service = probe()
    apps.serve(service)
    past = int(time.time() * 1000) - 1000
    request = Request(
        id="old", service="probe", method="add", timeout_ms=10, deadline_ms=past, body=b"[1]"
    )
    with redis.pipeline(transaction=False) as pipe:
        for _ in range(3000):
            fields = encode_request(msgspec.structs.replace(request, id=new_id()), reply="nobody")
            pipe.xadd("fan:rq:probe:1.0.0", dict(zip(fields[::2], fields[1::2], strict=True)))
        pipe.execute()
    assert apps.app().using(timeout=4 * BOUND).call("probe.add", 1) == 2
    assert service.runs["add"] == 1
    assert 0 < redis.pttl("fan:rp:nobody") <= 60_000


def test_a_call_that_nobody_takes_is_unavailable_long_before_its_deadline(
    apps: Any, redis: Redis
) -> None:
    redis.xgroup_create("fan:rq:probe:1.0.0", "fan", mkstream=True)  # as a killed server leaves it
    transport = apps.app().transport("redis")
    request = Request(
        id="1", service="probe", method="add", timeout_ms=100_000, want="1.0.0", body=b"[1]"
    )
    response = transport.call(transport.home(), request)
    assert (response.code, response.reason) == ("unavailable", "unroutable")
    assert response.executed == "no"
    assert redis.xlen("fan:rq:probe:1.0.0") == 0


def test_a_stream_that_was_never_there_is_not_made_by_a_call(apps: Any, redis: Redis) -> None:
    transport = apps.app().transport("redis")
    request = Request(id="1", service="probe", method="add", timeout_ms=100_000, want="1.0.0")
    assert transport.call(transport.home(), request).reason == "unroutable"
    assert redis.keys("fan:rq:*") == []


def test_a_server_that_stops_leaves_no_stream_of_calls_behind(apps: Any, redis: Redis) -> None:
    app = apps.serve(probe())
    assert len(redis.keys("fan:rq:*")) == 3
    app.stop(BOUND)
    until(lambda: redis.keys("fan:rq:*") == [] and redis.pubsub_channels("fan:*") == [])


def test_what_a_killed_server_left_is_cleaned_up_by_the_next(apps: Any, redis: Redis) -> None:
    for key in ("fan:rq:probe:1.0.0", "fan:pq:probe"):
        redis.xgroup_create(key, "fan", mkstream=True)
        redis.xgroup_createconsumer(key, "fan", "dead-one")
    redis.hset("fan:hand:rq:probe:1.0.0", "1-1", "dead-one")
    apps.serve(probe())

    def left() -> list[Any]:
        consumers = redis.xinfo_consumers("fan:rq:probe:1.0.0", "fan")
        consumers += redis.xinfo_consumers("fan:pq:probe", "fan")
        return [c for c in consumers if c["name"] == b"dead-one"]

    until(lambda: not left() and not redis.exists("fan:hand:rq:probe:1.0.0"))


def test_a_subscriber_that_was_killed_does_not_keep_events_for_ever(
    apps: Any, redis: Redis
) -> None:
    heard: list[int] = []
    with apps.app().subscribe("news", heard.append):
        redis.xgroup_create("fan:ev:news", "~dead-one", id="0")
        for n in range(10):
            apps.app().publish("news", n)
        until(lambda: len(heard) == 10)
        until(lambda: len(redis.xinfo_groups("fan:ev:news")) == 1)
        until(lambda: redis.xlen("fan:ev:news") <= 1)
    until(lambda: not redis.exists("fan:ev:news"))


def test_events_are_kept_for_a_group_that_has_not_acknowledged_them(
    apps: Any, redis: Redis
) -> None:
    heard: list[int] = []
    client = apps.app()
    client.subscribe("news", lambda n: None, group="later").close()
    with client.subscribe("news", heard.append, group="now"):
        for n in range(10):
            client.publish("news", n)
        until(lambda: len(heard) == 10)
        threading.Event().wait(6.0)  # longer than the period of trimming
        assert redis.xlen("fan:ev:news") == 10


def test_a_namespace_does_not_see_another(apps: Any, redis: Redis) -> None:
    apps.serve(probe(), namespace="one")
    assert apps.app(namespace="one").call("probe.add", 1) == 2
    other = apps.app(namespace="two").transport("redis")
    request = Request(id="1", service="probe", method="add", timeout_ms=5000, want="1.0.0")
    assert other.call(other.home(), request).reason == "unroutable"


def test_a_database_does_not_see_another(apps: Any, url: str) -> None:
    apps.serve(probe())
    elsewhere = f"{url.rpartition('/')[0]}/5"
    with Redis.from_url(elsewhere) as redis:
        redis.flushdb()
        redis.xgroup_create("fan:rq:probe:1.0.0", "fan", mkstream=True)
        transport = apps.app().transport("redis")
        request = Request(id="1", service="probe", method="add", timeout_ms=50_000, want="1.0.0")
        home = msgspec.structs.replace(transport.home(), url=elsewhere)
        assert transport.call(home, request).reason == "unroutable"
        redis.flushdb()


def test_a_foreign_request_above_the_limit_is_refused(apps: Any) -> None:
    apps.serve(probe(), max_body=1000)
    client = apps.app(retries=0)
    with pytest.raises(ResourceExhausted) as info:
        client.call("probe.size", b"x" * 2000)
    assert (info.value.reason, info.value.executed) == ("payload_too_large", "no")


def test_a_reply_above_the_callers_limit_is_an_error(apps: Any) -> None:
    apps.serve(probe())
    client = apps.app(max_body=1000, retries=0)
    with pytest.raises(ResourceExhausted) as info:
        client.call("probe.reply_of", 2000)
    assert (info.value.reason, info.value.executed) == ("payload_too_large", "yes")
    assert client.call("probe.add", 1) == 2


def test_a_thousand_calls_in_flight_need_no_thread_of_their_own(apps: Any) -> None:
    service = probe()
    apps.serve(service, workers=4)
    client = apps.app().using(timeout=10 * BOUND)
    client.call("probe.add", 1)
    held = [client.submit("probe.hold", n) for n in range(4)]
    assert {service.wait_entered() for _ in held} == {0, 1, 2, 3}
    before = threading.active_count()
    pending = [client.submit("probe.add", n) for n in range(1000)]
    assert threading.active_count() <= before
    service.release()
    assert [future.result(4 * BOUND) for future in pending] == list(range(1, 1001))


def test_a_cancelled_call_that_was_not_taken_leaves_nothing(apps: Any) -> None:
    service = probe()
    apps.serve(service)
    client = apps.app()
    future = client.submit("probe.hold", 1)
    service.wait_entered()
    assert future.cancel()
    transport = client.transport("redis")
    assert transport._hub(transport.home().url).calls.pending == {}


def test_a_closed_transport_fails_what_is_under_way_and_what_comes(apps: Any) -> None:
    service = probe()
    apps.serve(service)
    client = apps.app(retries=0)
    held = client.using(timeout=10 * BOUND).submit("probe.hold")
    service.wait_entered()
    client.transport("redis").close()
    assert isinstance(held.exception(BOUND), Unavailable | DeadlineExceeded)
    with pytest.raises(FanError):
        client.call("probe.add", 1)


def test_a_queue_of_nobody_is_not_found(apps: Any) -> None:
    from fan.model import QueueName

    transport = apps.app().transport("redis")
    with pytest.raises(NotFound):
        transport.queues(transport.home()).purge(
            QueueName("nobody"), deadline=time.monotonic() + BOUND
        )
