"""Foreign entries and keys of the wrong type, in every place: they stop nobody."""

from __future__ import annotations

import time
from typing import Any

import pytest
from redis import Redis

from fan.errors import FanError
from fan.model import QueueName
from fan.testing.contracts.probe import BOUND, probe
from fan.testing.contracts.queue_harness import until
from fan.testing.contracts.queue_probe import SHARED, Inbox

pytestmark = pytest.mark.redis

CALLS, PUSHES, TOPIC = "fan:rq:inbox:1.0.0", "fan:pq:inbox", f"fan:ev:{SHARED}"
ENTRIES: list[dict[bytes, bytes]] = [
    {b"foo": b"bar"},
    {b"id": b"1", b"service": b"inbox", b"method": b"take", b"timeout_ms": b"-5"},
    {b"id": b"1", b"service": b"inbox", b"method": b"take", b"timeout_ms": b"5", b"kind": b"end"},
    {b"id": b"\xff", b"service": b"\xff", b"method": b"\xff", b"timeout_ms": b"\xff"},
    {b"id": b"1", b"service": b"x", b"method": b"__init__", b"timeout_ms": b"5", b"reply": b"a:b"},
    {b"field %d" % n: b"v" for n in range(3000)},
]


@pytest.mark.parametrize("key", [CALLS, CALLS + ":{}", "fan:rq:inbox", PUSHES, TOPIC])
def test_foreign_entries_in_a_stream_stop_nobody(apps: Any, redis: Redis, key: str) -> None:
    box = Inbox()
    apps.serve(box)
    key = key.format(box.instance_id)
    client = apps.app()
    for n, entry in enumerate(ENTRIES):
        redis.xadd(key, entry)  # type: ignore[arg-type]
        assert client.call("inbox.add", n) == n + 1
        client.using(transport="redis").push("inbox.take", n)
        client.publish(SHARED, n)
        assert {box.wait_seen()[:2] for _ in range(2)} == {("take", n), ("share", n)}
    until(lambda: all(g["pending"] == 0 and not g["lag"] for g in redis.xinfo_groups(key)))


def test_foreign_replies_stop_nobody(apps: Any, redis: Redis) -> None:
    service = probe()
    apps.serve(service)
    client = apps.app()
    held = client.using(timeout=4 * BOUND).submit("probe.hold", "held")
    service.wait_entered()
    _, entries = redis.hscan("fan:hand:rq:probe:1.0.0")
    assert len(entries) == 1
    transport = client.transport("redis")
    caller = transport._hub(transport.home().url).calls._caller
    for element in (b"", b"\xff", b"{}", b'{"corr": "nobody"}\nx', b"[" * 10_000, b"null\n"):
        redis.rpush(f"fan:rp:{caller}", element)
    assert client.call("probe.add", 1) == 2
    service.gate("held").set()
    assert held.result(BOUND) == "held"


def test_a_reply_with_a_word_that_is_none_of_ours_fails_its_call_at_once(
    apps: Any, redis: Redis
) -> None:
    service = probe()
    apps.serve(service)
    client = apps.app(retries=0)
    held = client.using(timeout=4 * BOUND).submit("probe.hold", "held")
    service.wait_entered()
    transport = client.transport("redis")
    calls = transport._hub(transport.home().url).calls
    (id,) = calls.pending
    redis.rpush(f"fan:rp:{calls._caller}", b'{"corr": "%b", "executed": "later"}\n' % id.encode())
    with pytest.raises(FanError) as info:
        held.result(BOUND)
    assert (info.value.reason, info.value.executed) == ("malformed_reply", "maybe")
    service.gate("held").set()


@pytest.mark.parametrize("key", [CALLS, PUSHES])
def test_a_stream_whose_key_is_something_else_stops_only_itself(
    apps: Any, redis: Redis, key: str
) -> None:
    box = Inbox()
    apps.serve(box)
    client = apps.app(retries=0)
    redis.delete(key)
    redis.set(key, "no stream")
    by_call, by_push = client.call, client.using(transport="redis").push
    spoilt, sound = (by_call, by_push) if key == CALLS else (by_push, by_call)
    with pytest.raises(FanError) as info:
        spoilt("inbox.add", 1)
    assert (info.value.code, info.value.reason) == ("unavailable", "unroutable")
    assert info.value.executed == "no"
    sound("inbox.add", 1)
    redis.delete(key)
    until(lambda: redis.type(key) == b"stream")
    spoilt("inbox.add", 2)
    until(lambda: box.runs["add"] == 2)


def test_a_hash_of_calls_in_hand_that_is_none_stops_no_call(apps: Any, redis: Redis) -> None:
    box = Inbox()
    apps.serve(box)
    redis.set("fan:hand:rq:inbox:1.0.0", "no hash")
    assert apps.app().call("inbox.add", 1) == 2


def test_a_reply_list_that_is_none_costs_its_caller_the_reply_and_nobody_else(
    apps: Any, redis: Redis
) -> None:
    service = probe()
    apps.serve(service)
    unlucky, lucky = apps.app(retries=0), apps.app()
    assert unlucky.call("probe.add", 1) == 2
    transport = unlucky.transport("redis")
    caller = transport._hub(transport.home().url).calls._caller
    redis.set(f"fan:rp:{caller}", "no list")
    with pytest.raises(FanError) as info:
        unlucky.using(timeout=3.0).call("probe.add", 2)
    assert info.value.executed == "maybe"
    assert lucky.call("probe.add", 3) == 4
    redis.delete(f"fan:rp:{caller}")
    until(lambda: unlucky.call("probe.add", 4) == 5)


def test_dead_letters_that_cannot_be_kept_stop_no_other_push(apps: Any, redis: Redis) -> None:
    box = Inbox()
    apps.serve(box, deliveries=1)
    redis.set("fan:dead:inbox", "no stream")
    sender = apps.app().using(transport="redis")
    sender.push("inbox.refuse", "bad")
    for n in range(5):
        sender.push("inbox.take", n)
    assert {box.wait_seen().tag for _ in range(6)} == {"bad", *range(5)}


def test_garbage_among_pushes_is_a_dead_letter_that_can_be_looked_at(
    apps: Any, redis: Redis
) -> None:
    apps.serve(Inbox())
    redis.xadd(PUSHES, {"foo": "bar"})
    transport = apps.app().transport("redis")
    queues = transport.queues(transport.home())
    (letter,) = until(
        lambda: queues.letters(QueueName("inbox"), dead=True, deadline=time.monotonic() + BOUND)
    )
    assert letter.error.startswith("invalid_argument/malformed")
    assert letter.request.body == b'{"foo":"bar"}'
