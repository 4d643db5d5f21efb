"""What goes wrong with a broker, its queues and its users, on a real one."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pika
import pytest

from fan.errors import FanError
from fan.message import Response
from fan.model import QueueName
from fan.settings import Settings
from fan.tools.servers_rabbitmq import RabbitMQ
from fan.transports.amqp import AmqpTransport
from fan.transports.amqp_names import pushes
from tests.transports.test_amqp.conftest import (
    HANG,
    PATIENT,
    Handler,
    Make,
    Serve,
    a_call,
    a_push,
    answered,
    as_json,
    ask,
    bare,
    failure,
    until,
)

pytestmark = pytest.mark.rabbitmq


class Load:
    """Calls and pushes from several threads, until `stop`."""

    def __init__(self, transport: AmqpTransport) -> None:
        self._transport = transport
        self._is_over = threading.Event()
        #: Bodies of the pushes that the broker confirmed.
        self.confirmed: list[bytes] = []
        #: Calls that were answered, by how; "wrong" would be somebody else's answer.
        self.outcomes: Counter[str] = Counter()
        jobs = [self._call] * 4 + [self._push] * 2
        self._threads = [threading.Thread(target=job, args=(n,)) for n, job in enumerate(jobs)]
        for thread in self._threads:
            thread.start()

    def _call(self, who: int) -> None:
        n = 0
        while not self._is_over.is_set():
            n += 1
            body = as_json([who, n])
            request = a_call(body=body, timeout_ms=2000)
            try:
                response = self._transport.call(self._transport.home(), request)
            except FanError as exc:
                self.outcomes[f"{exc.code} {exc.executed}"] += 1
            else:
                if response.code != "ok":  # as when it came out of its queue too late
                    self.outcomes[response.code] += 1
                else:
                    self.outcomes["ok" if response.body == body else "wrong"] += 1

    def _push(self, who: int) -> None:
        n = 0
        while not self._is_over.is_set():
            n += 1
            body = as_json([who, n])
            try:
                self._transport.send(self._transport.home(), a_push(body=body, timeout_ms=2000))
            except FanError:
                continue
            self.confirmed.append(body)

    def stop(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(HANG)


@pytest.mark.timeout(400)
def test_a_broker_that_is_killed_and_comes_back_loses_no_confirmed_push(
    new_rabbitmq: Callable[..., RabbitMQ],
    make: Make,
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = new_rabbitmq()
    handler = Handler()
    serve(make(broker.url), handler)
    client = make(broker.url)
    ask(client)
    client.send(client.home(), a_push())
    broker.sync()
    load = Load(client)
    until(lambda: len(load.confirmed) > 50 and load.outcomes["ok"] > 50)
    broker.kill()
    until(lambda: load.outcomes["unavailable no"])
    broker.start(timeout=120)
    before = load.outcomes["ok"]
    until(lambda: load.outcomes["ok"] > before + 50)  # both sides are back by themselves
    load.stop()
    assert load.outcomes["wrong"] == 0
    handled: Counter[bytes] = Counter()

    def all_were() -> bool:
        while not handler.requests.empty():
            request = handler.wait()
            handled[request.body] += request.kind == "push"
        return all(handled[body] for body in load.confirmed)

    until(all_were)
    told = [record.getMessage() for record in caplog.records]
    assert sum("was lost: " in line for line in told) == 1  # once, however often it was tried
    assert sum("is there again" in line for line in told) == 1
    assert not [record for record in caplog.records if record.name.startswith("pika")]
    logging.getLogger("pika.connection").error("of somebody else's connection")
    assert "of somebody else's connection" in caplog.text


@pytest.mark.timeout(400)
def test_a_broker_without_memory_keeps_calls_waiting_and_no_longer_than_their_deadline(
    new_rabbitmq: Callable[..., RabbitMQ], make: Make, serve: Serve
) -> None:
    broker = new_rabbitmq()
    client = make(broker.url)
    serve(make(broker.url), Handler())
    ask(client)
    broker.ctl("set_vm_memory_high_watermark", "0.00000001")
    until(lambda: not answered(client))  # it looks at its memory every few seconds
    again = failure(lambda: client.call(client.home(), a_call(timeout_ms=300)))
    assert (again.code, again.executed) == ("deadline_exceeded", "no")
    assert "short of memory" in again.message
    waiting = client.submit(client.home(), a_call(body=b"7", timeout_ms=60_000))
    broker.ctl("set_vm_memory_high_watermark", "0.4")
    assert waiting.result(HANG).body == b"7"


def test_a_handler_slower_than_two_heartbeats_keeps_its_message(
    new_vhost: Callable[[], str], make: Make, serve: Serve
) -> None:
    url = f"{new_vhost()}?heartbeat=2"
    handler = Handler()
    serve(make(url), handler)
    client = make(url)
    called = client.submit(client.home(), a_call("wait", body=b"1", timeout_ms=60_000))
    client.send(client.home(), a_push("wait", body=b"2"))
    assert {handler.wait().kind, handler.wait().kind} == {"call", "push"}
    threading.Event().wait(8.0)  # four heartbeats
    handler.release.set()
    assert called.result(HANG).body == b"1"
    until(lambda: _waiting(client) == 0)
    ask(client)
    assert [handler.wait().method] == ["echo"]  # nothing came a second time


def test_a_queue_full_of_expired_calls_is_no_hindrance(
    new_vhost: Callable[[], str], make: Make, serve: Serve
) -> None:
    url, handler = new_vhost(), Handler()
    serve(make(url, workers=1), handler)
    client = make(url)
    held = client.submit(client.home(), a_call("wait", timeout_ms=60_000))
    handler.wait()
    expired = [client.submit(client.home(), a_call(timeout_ms=300)) for _ in range(500)]
    for future in expired:  # by its own clock, or by who found it dead first
        outcome = future.exception(HANG) or future.result()
        assert isinstance(outcome, FanError | Response)
        assert outcome.code == "deadline_exceeded"
        assert outcome.reason in ("client_timer", "expired_in_queue")
    handler.release.set()
    assert held.result(HANG).code == "ok"
    ask(client)
    assert [handler.wait().timeout_ms for _ in range(handler.requests.qsize())] == [PATIENT]


def test_the_caller_of_a_call_that_dies_in_its_queue_is_told(
    new_vhost: Callable[[], str], make: Make, serve: Serve
) -> None:
    url = new_vhost()
    serve(make(url), Handler())
    with bare(url) as channel:
        channel.queue_declare(
            "idle",
            arguments={
                "x-dead-letter-exchange": "fan.dead",
                "x-dead-letter-routing-key": "fan.dead.calls",
            },
        )
        replies: list[Any] = []
        channel.basic_consume(
            "amq.rabbitmq.reply-to", lambda *reply: replies.append(reply), auto_ack=True
        )
        request = pika.BasicProperties(
            type="call", message_id="dead", correlation_id="dead", expiration="20",
            reply_to="amq.rabbitmq.reply-to",
        )  # fmt: skip
        channel.basic_publish("", "idle", b"{}", request)

        def told() -> bool:
            channel.connection.process_data_events(0.05)
            return bool(replies)

        until(told)
        (_, _, properties, body) = replies[0]
        assert properties.correlation_id == "dead"
        assert properties.headers["fan-status"] == "deadline_exceeded"
        assert properties.headers["fan-executed"] == "no"
        assert b"expired_in_queue" in body
        channel.queue_delete("idle")


FOREIGN = [
    pika.BasicProperties(),
    pika.BasicProperties(type="call"),
    pika.BasicProperties(type="call", message_id="m", headers={"fan-timeout-ms": "soon"}),
    pika.BasicProperties(type="push", message_id="m", headers={"fan-timeout-ms": "5"}),
    pika.BasicProperties(type="ask", reply_to="nowhere", correlation_id="x"),
    pika.BasicProperties(type="reply", headers={"fan-status": "ok"}),
    pika.BasicProperties(headers={"a": {"b": [1, None, True]}, "fan-method": 1}, priority=3),
    pika.BasicProperties(content_type="text/plain", content_encoding="gzip", delivery_mode=2),
]


def test_foreign_messages_in_every_queue_stop_nobody(
    new_vhost: Callable[[], str], make: Make, serve: Serve
) -> None:
    url, handler = new_vhost(), Handler()
    serve(make(url), handler)
    client = make(url)
    client.send(client.home(), a_push(body=b"0"))
    assert handler.wait().body == b"0"
    places = [
        ("fan.rpc", "shop@1.0.0"), ("fan.rpc", "shop@"), ("fan.rpc", "shop"),
        ("fan.rpc", "?shop@1.0.0"), ("", "fan.instance.shop-1"), ("fan.dead", "fan.dead.calls"),
    ]  # fmt: skip
    with bare(url) as channel:
        channel.confirm_delivery()
        for exchange, key in places:
            for properties in FOREIGN:
                channel.basic_publish(exchange, key, b"\x00 no JSON", properties, mandatory=True)
    for n in range(20):
        ask(client, as_json(n))
        client.send(client.home(), a_push(body=as_json(n)))
    until(lambda: _waiting(client) == 0)
    seen = Counter(handler.wait().kind for _ in range(40))
    assert seen == {"call": 20, "push": 20}
    queues = client.queues(client.home())
    letters = queues.letters(QueueName("shop"), dead=True, deadline=_soon())
    assert len(letters) == len(FOREIGN)
    assert all(letter.number and letter.error for letter in letters)


def test_foreign_replies_are_dropped(new_vhost: Callable[[], str], make: Make) -> None:
    url = new_vhost()
    client = make(url)
    with bare(url) as channel:
        channel.exchange_declare("fan.rpc", "direct", durable=True)
        channel.queue_declare("foreign", exclusive=True)
        channel.queue_bind("foreign", "fan.rpc", "shop@1.0.0")

        def answer(channel: Any, method: Any, properties: Any, body: bytes) -> None:
            for properties_of_reply in FOREIGN:
                channel.basic_publish("", properties.reply_to, b"?", properties_of_reply)
            mine = pika.BasicProperties(correlation_id=properties.correlation_id, type="text")
            channel.basic_publish("", properties.reply_to, b"?", mine)

        channel.basic_consume("foreign", answer, auto_ack=True)
        pending = client.submit(client.home(), a_call())

        def is_done() -> bool:
            channel.connection.process_data_events(0.05)
            return pending.done()

        until(is_done)
    error = failure(lambda: pending.result(0))
    assert (error.code, error.reason) == ("internal", "malformed_reply")


def test_a_reply_above_the_limit_is_told_and_the_next_call_works(
    new_vhost: Callable[[], str], make: Make, serve: Serve
) -> None:
    url = new_vhost()
    serve(make(url, max_body=1_000_000), Handler())
    client = make(url)
    response = client.call(client.home(), a_call("big"))
    assert (response.code, response.reason, response.executed) == (
        "resource_exhausted", "payload_too_large", "yes",
    )  # fmt: skip
    small = make(url, max_body=1000)
    ask(small)


@pytest.mark.parametrize("queue", ["fan.push.shop", "fan.call.shop@1.0.0"])
def test_a_queue_that_somebody_deletes_is_made_again(
    new_vhost: Callable[[], str], make: Make, serve: Serve, queue: str
) -> None:
    url, handler = new_vhost(), Handler()
    serve(make(url), handler)
    client = make(url)
    held = client.submit(client.home(), a_call("wait", body=b"held", timeout_ms=60_000))
    client.send(client.home(), a_push())
    assert {handler.wait().kind, handler.wait().kind} == {"call", "push"}
    with bare(url) as channel:
        channel.queue_delete(queue)
    until(lambda: answered(client))

    def is_handled() -> bool:  # what went into the queue that is being deleted is deleted with it
        _accepts(client, b'"after"')
        return handler.wait().body == b'"after"' if not handler.requests.empty() else False

    until(is_handled)
    handler.release.set()
    assert held.result(HANG).body == b"held"  # it lost nothing by it


@pytest.mark.timeout(400)
def test_queues_that_somebody_deletes_under_load_are_made_again(
    new_vhost: Callable[[], str], make: Make, serve: Serve
) -> None:
    url, handler = new_vhost(), Handler()
    serve(make(url), handler)
    client = make(url)
    load = Load(client)
    for _ in range(3):
        before = len(load.confirmed), load.outcomes["ok"]
        until(lambda b=before: len(load.confirmed) > b[0] + 50 and load.outcomes["ok"] > b[1] + 50)  # type: ignore[misc]
        with bare(url) as channel:
            for queue in ("fan.push.shop", "fan.call.shop@1.0.0"):
                channel.queue_delete(queue)
    before = len(load.confirmed), load.outcomes["ok"]
    until(lambda: len(load.confirmed) > before[0] + 50 and load.outcomes["ok"] > before[1] + 50)
    load.stop()
    assert load.outcomes["wrong"] == 0
    until(lambda: _accepts(client, b'"last"'))
    while handler.wait().body != b'"last"':
        pass


def test_a_queue_that_another_makes_again_at_once_is_consumed_anew(
    new_vhost: Callable[[], str], make: Make, serve: Serve
) -> None:
    url, handler = new_vhost(), Handler()
    serve(make(url), handler)
    client = make(url)
    client.send(client.home(), a_push(body=b"0"))
    assert handler.wait().body == b"0"
    spec = pushes("shop", Settings().deliveries)
    with bare(url) as channel:
        channel.queue_delete(spec.name)
        channel.queue_declare(spec.name, **spec.options)  # so the broker tells no consumer
        channel.queue_bind(spec.name, spec.exchange, spec.keys[0])
    for n in range(1, 5):
        client.send(client.home(), a_push(body=as_json(n)))
    assert sorted(handler.wait().body for _ in range(4)) == [b"1", b"2", b"3", b"4"]
    until(lambda: _waiting(client) == 0)


def test_a_channel_that_the_broker_closes_fails_only_its_own(
    new_vhost: Callable[[], str], make: Make, serve: Serve
) -> None:
    url, handler = new_vhost(), Handler()
    serve(make(url), handler)
    client = make(url)
    held = client.submit(client.home(), a_call("wait", body=b"held", timeout_ms=60_000))
    handler.wait()
    with bare(url) as channel:  # a quorum queue cannot be declared over this one
        channel.queue_declare("fan.push.other", durable=True)
    queues = client.queues(client.home())
    for _ in range(5):  # each closes a channel: 404
        error = failure(lambda: queues.purge(QueueName("nobody"), deadline=_soon()))
        assert error.reason == "no_such_queue"
    other = a_push(service="other", body=b"kept")
    assert client.send(client.home(), other).code == "ok"  # 406: it is taken as it is
    assert [q.ready for q in queues.list([QueueName("other")], deadline=_soon())] == [1]
    handler.release.set()
    assert held.result(HANG).body == b"held"


@pytest.mark.timeout(400)
def test_a_thousand_calls_leave_the_broker_as_it_was(
    new_rabbitmq: Callable[..., RabbitMQ], make: Make, serve: Serve
) -> None:
    broker = new_rabbitmq()
    serve(make(broker.url), Handler())
    client = make(broker.url)

    def kept() -> str:
        return broker.ctl(
            "eval",
            "{length(rabbit_networking:connections()), length(rabbit_channel:list()),"
            " length(rabbit_amqqueue:list())}.",
        )

    ask(client)
    client.send(client.home(), a_push())
    before = kept()
    for n in range(1000):
        ask(client, as_json(n))
    until(lambda: kept() == before)  # a queue that nothing comes from changes its channel meanwhile


def test_a_handler_that_raises_is_answered_and_its_thread_goes_on(
    new_vhost: Callable[[], str], make: Make, serve: Serve
) -> None:
    url = new_vhost()
    serve(make(url, workers=1), Handler())
    client = make(url)
    for _ in range(3):
        assert client.call(client.home(), a_call("raise")).code == "internal"
    ask(client)


def test_a_call_to_a_version_that_nobody_serves_is_unroutable_at_once(
    new_vhost: Callable[[], str], make: Make, serve: Serve
) -> None:
    url = new_vhost()
    serve(make(url), Handler())
    client = make(url)
    for wrong in (a_call(want="2.0.0"), a_call(service="nobody"), a_call(instance="gone")):
        error = failure(lambda wrong=wrong: client.call(client.home(), wrong))  # type: ignore[misc]
        assert (error.code, error.reason, error.executed) == ("unavailable", "unroutable", "no")


def test_a_principal_counts_for_the_user_that_the_broker_checked(
    new_vhost: Callable[[], str], make: Make, serve: Serve
) -> None:
    url, handler = new_vhost(), Handler()
    serve(make(url), handler)
    client = make(url)
    client.call(client.home(), a_call(principal="ada"))
    client.call(client.home(), a_call())
    assert handler.peers == ["user:guest", ""]


@pytest.mark.parametrize(
    "fields",
    [
        {"headers": {"x-big": "x" * 200_000}},
        {"caller": "x" * 300},
        {"service": "x" * 300},
        {"caller": "\ud800"},
    ],
)
def test_what_amqp_has_no_form_for_is_refused_and_the_connection_lives(
    new_vhost: Callable[[], str], make: Make, serve: Serve, fields: dict[str, Any]
) -> None:
    url, handler = new_vhost(), Handler()
    serve(make(url), handler)
    client = make(url)
    held = client.submit(client.home(), a_call("wait", timeout_ms=60_000))
    handler.wait()
    error = failure(lambda: client.call(client.home(), a_call(**fields)))
    assert (error.code, error.executed) == ("invalid_argument", "no")
    handler.release.set()
    assert held.result(HANG).code == "ok"


def test_a_future_that_is_cancelled_stops_nothing(
    new_vhost: Callable[[], str], make: Make, serve: Serve
) -> None:
    url, handler = new_vhost(), Handler()
    serve(make(url), handler)
    client = make(url)
    for _ in range(10):
        pending = client.submit(client.home(), a_call("wait"))
        handler.wait()
        assert pending.cancel()
    handler.release.set()
    ask(client)


def _accepts(client: AmqpTransport, body: bytes) -> bool:
    try:
        return client.send(client.home(), a_push(body=body)).code == "ok"
    except FanError:
        return False


def _waiting(client: AmqpTransport) -> int:
    found = client.queues(client.home()).list([QueueName("shop")], deadline=_soon())
    return found[0].ready


def _soon() -> float:
    import time

    return time.monotonic() + HANG
