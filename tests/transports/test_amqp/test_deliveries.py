"""Calls that come a second time, or never: what becomes of them on a real broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.transports.test_amqp.conftest import (
    HANG,
    SHOP,
    Handler,
    Make,
    Serve,
    a_call,
    ask,
    bare,
    until,
)

pytestmark = pytest.mark.rabbitmq


def take_and_die(url: str, sent: Callable[[], Any]) -> Any:
    """Be a worker that takes the call that `sent` sends, and is gone before it acknowledges it.
    Gives what `sent` gave."""
    taken: list[Any] = []
    with bare(url) as channel:
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume(
            "fan.call.shop@1.0.0",
            lambda *message: taken.append(message),
            arguments={"x-priority": 10},  # before the worker that is there
        )
        pending = sent()

        def is_taken() -> bool:
            channel.connection.process_data_events(0.05)
            return bool(taken)

        until(is_taken)
    return pending


def test_a_call_that_somebody_had_who_is_gone_is_not_run(
    new_vhost: Callable[[], str], make: Make, serve: Serve
) -> None:
    url, handler = new_vhost(), Handler()
    serve(make(url), handler)
    client = make(url)
    pending = take_and_die(url, lambda: client.submit(client.home(), a_call(timeout_ms=60_000)))
    response = pending.result(HANG)
    assert (response.code, response.reason, response.executed) == (
        "unavailable", "connection_lost", "maybe",
    )  # fmt: skip
    assert "took this call before" in response.message  # its next worker says so
    assert handler.requests.empty()
    ask(client)


def test_a_call_that_may_run_twice_is_run_by_the_next_and_tells_so(
    new_vhost: Callable[[], str], make: Make, serve: Serve
) -> None:
    url, handler = new_vhost(), Handler()
    serve(make(url), handler)
    client = make(url)
    again = a_call("again", body=b"7", timeout_ms=60_000)
    pending = take_and_die(url, lambda: client.submit(client.home(), again))
    response = pending.result(HANG)
    assert (response.code, response.body) == ("ok", b"7")
    assert handler.wait().attempt == 1


def test_a_call_that_may_run_twice_stays_in_its_queue_until_it_is_answered(
    new_vhost: Callable[[], str], make: Make, serve: Serve
) -> None:
    url, first, second = new_vhost(), Handler(), Handler()
    transport = make(url)
    serve(transport, first)
    client = make(url)
    first.hold = {"again", "echo"}
    kept = client.submit(client.home(), a_call("again", body=b"1", timeout_ms=60_000))
    given_up = client.submit(client.home(), a_call("echo", body=b"2", timeout_ms=60_000))
    assert {first.wait().method, first.wait().method} == {"again", "echo"}
    serve(make(url), second, msgspec.structs.replace(SHOP, instance="shop-2"))
    transport.close()  # with both in hand: the connection is gone, and no answer was sent
    assert kept.result(HANG).body == b"1"
    assert second.wait().method == "again"
    lost = until(lambda: given_up.done() and given_up.exception())
    assert (lost.reason, lost.executed) == ("connection_lost", "maybe")
    assert second.requests.empty()


def test_the_caller_of_a_call_that_is_thrown_out_of_its_queue_is_told(
    new_vhost: Callable[[], str], make: Make, serve: Serve
) -> None:
    url = new_vhost()
    serve(make(url), Handler())
    client = make(url)
    with bare(url) as channel:
        channel.exchange_declare("fan.rpc", "direct", durable=True)
        channel.queue_declare(
            "foreign",
            exclusive=True,
            arguments={
                "x-dead-letter-exchange": "fan.dead",
                "x-dead-letter-routing-key": "fan.dead.calls",
            },
        )
        channel.queue_bind("foreign", "fan.rpc", "shop@9.0.0")

        def reject(channel: Any, method: Any, properties: Any, body: bytes) -> None:
            channel.basic_reject(method.delivery_tag, requeue=False)

        channel.basic_consume("foreign", reject)
        pending = client.submit(client.home(), a_call(want="9.0.0", timeout_ms=60_000))

        def is_done() -> bool:
            channel.connection.process_data_events(0.05)
            return pending.done()

        until(is_done)
    response = pending.result(0)
    assert (response.code, response.reason, response.executed) == (
        "unavailable", "connection_lost", "maybe",
    )  # fmt: skip
