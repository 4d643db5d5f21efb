"""How a listener ends where the broker says nothing, or where others had what it gives back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import msgspec
import pytest

from fan.errors import FanError
from fan.model import QueueName
from fan.transports.amqp import AmqpTransport
from fan.transports.amqp_link import Link
from fan.transports.base import Subscription
from tests.transports.test_amqp.between import CANCEL, CONFIRM, CONSUME_OK, NACK, Between
from tests.transports.test_amqp.conftest import (
    HANG,
    SHOP,
    Handler,
    Make,
    Serve,
    a_call,
    a_push,
    ask,
    failure,
    until,
)
from tests.transports.test_amqp.test_deliveries import take_and_die

pytestmark = pytest.mark.rabbitmq
OTHER = msgspec.structs.replace(SHOP, instance="shop-2")


@pytest.fixture
def stand_between() -> Iterator[Callable[[str], Between]]:
    """Puts somebody before a broker, until the end of the test."""
    with ExitStack() as stack:
        yield lambda url: stack.enter_context(Between(url))


def link_of(transport: AmqpTransport) -> Link:
    """Its link to its only broker."""
    (broker,) = transport._brokers.values()
    return broker.link


def test_subscriptions_that_drain_together_wait_for_a_silent_broker_together(
    new_vhost: Callable[[], str], stand_between: Callable[[str], Between], make: Make
) -> None:
    between = stand_between(new_vhost())
    transport = make(between.url)
    topics = [Subscription(f"topic{n}", "desk", "shop", "echo") for n in range(6)]
    *others, last = [transport.subscribe(transport.home(), one, Handler()) for one in topics]
    between.is_silent = True
    for listener in (*others, last):
        listener.drain()
    last.close(0.0)
    taps, seen = [listener._tap for listener in others], threading.Event()  # type: ignore[attr-defined]
    left: list[bool] = []

    def look() -> None:
        left.extend(tap.left.done() for tap in taps)
        seen.set()

    def leave() -> None:  # in one turn of the link: there is no time for anything
        for tap in taps:
            tap.close()
        look()

    link_of(transport).do(leave)
    assert seen.wait(HANG)
    assert left == [True] * 5
    for listener in others:
        listener.close(0.0)


def test_a_call_that_somebody_had_before_may_have_run_also_where_its_next_worker_leaves(
    new_vhost: Callable[[], str], make: Make, serve: Serve
) -> None:
    url, leaving, staying = new_vhost(), Handler(), Handler()
    listener = serve(make(url, workers=1), leaving)
    client = make(url)
    held = client.submit(client.home(), a_call("wait", timeout_ms=60_000))
    leaving.wait()
    pending = take_and_die(url, lambda: client.submit(client.home(), a_call(timeout_ms=60_000)))
    behind = client.submit(client.home(), a_call(timeout_ms=60_000))
    until(lambda: waiting(listener) == 1)
    serve(make(url), staying, OTHER)
    listener.drain()
    answer = pending.result(HANG)
    assert (answer.code, answer.reason, answer.executed) == (
        "unavailable", "connection_lost", "maybe",
    )  # fmt: skip
    assert behind.result(HANG).code == "ok"  # it was in the queue
    leaving.release.set()
    assert held.result(HANG).code == "ok"


def waiting(listener: object) -> int:
    """How many calls wait for a thread."""
    return len(listener._broker.callers._backlog)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("method", "answered_before"), [("echo", True), ("again", True), ("echo", False)]
)
def test_a_call_on_its_way_to_others_when_a_transport_closes_is_with_them_once(
    new_vhost: Callable[[], str],
    stand_between: Callable[[str], Between],
    make: Make,
    serve: Serve,
    method: str,
    answered_before: bool,
) -> None:
    url, leaving, staying = new_vhost(), Handler(), Handler()
    between = stand_between(url)
    transport = make(between.url, workers=1)
    listener = serve(transport, leaving)
    client = make(url)
    if answered_before:  # else there is nothing yet by which an answer could go
        ask(client)
        leaving.wait()
    first = client.submit(client.home(), a_call("wait", timeout_ms=60_000))
    assert leaving.wait().method == "wait"
    moved = client.submit(client.home(), a_call(method, body=b"7", timeout_ms=60_000))
    until(lambda: waiting(listener) == 1)
    staying.hold = {method}
    serve(make(url), staying, OTHER)
    between.withheld.add(CONFIRM)
    listener.drain()
    assert staying.wait().body == b"7"  # they have it, and its sender does not know
    between.waits_for(CONFIRM)
    transport.close()
    answer = moved.result(HANG)
    assert (answer.code, answer.reason, answer.executed) == (
        "unavailable", "connection_lost", "maybe",
    )  # fmt: skip
    staying.hold = set()
    staying.release.set()
    ask(client)
    assert [staying.wait().body] == [b"1"]  # and not once more what was given back
    leaving.release.set()
    with suppress(FanError):
        first.result(HANG)


def test_what_was_handled_when_a_transport_closes_does_not_come_again(
    new_vhost: Callable[[], str], make: Make, serve: Serve
) -> None:
    url, leaving, staying = new_vhost(), Handler(), Handler()
    transport = make(url)
    serve(transport, leaving)
    client = make(url)
    client.send(client.home(), a_push("wait", body=b"1"))
    leaving.wait()
    link, gate = link_of(transport), threading.Event()
    link.do(gate.wait, HANG)
    until(lambda: not link._inbox)  # it waits at the gate
    leaving.release.set()
    until(lambda: len(link._inbox) == 2)  # what came of it, and that its thread is free
    closing = threading.Thread(target=transport.close)
    closing.start()
    until(lambda: len(link._inbox) == 3)
    gate.set()
    closing.join(HANG)
    serve(make(url), staying)
    client.send(client.home(), a_push(body=b"2"))
    assert staying.wait().body == b"2"


def test_what_waits_to_be_tried_again_goes_back_once_nothing_more_comes(
    new_vhost: Callable[[], str], stand_between: Callable[[str], Between], make: Make
) -> None:
    url, leaving, staying = new_vhost(), Handler(), Handler()
    between = stand_between(url)
    transport = make(between.url, deliveries=30)
    client = make(url)
    news = Subscription("news", "desk", "shop", "raise")
    listener = transport.subscribe(transport.home(), news, leaving)
    event = a_call("", topic="news", kind="event", service="", want="", body=b"1")
    assert client.publish(client.home(), event).code == "ok"
    tray = listener._tap._tray  # type: ignore[attr-defined]
    for attempt in range(4):  # until the next delay is long
        assert leaving.wait().attempt == attempt
    until(lambda: tray.delayed)
    between.said.clear()
    listener.close(HANG)
    ended = [method for method in between.said if method in (CANCEL, NACK)]
    assert ended == [CANCEL, NACK]
    again = transport.subscribe(transport.home(), news, staying)
    assert staying.wait().attempt == 4
    again.close()


def test_a_listener_that_ends_takes_nothing_from_queues_that_it_is_about_to_leave(
    new_vhost: Callable[[], str],
    stand_between: Callable[[str], Between],
    make: Make,
    serve: Serve,
) -> None:
    url, handler = new_vhost(), Handler()
    between = stand_between(url)
    transport, client = make(between.url), make(url)
    listener = serve(transport, handler)
    between.withheld.add(CONSUME_OK)
    newer = msgspec.structs.replace(SHOP, version="2.0.0", instance="shop-2")

    def update() -> None:
        with suppress(FanError):
            listener.update([newer])

    updating = threading.Thread(target=update)
    updating.start()
    between.waits_for(CONSUME_OK)  # so the old ones stay until the new ones are there
    ask(client)
    listener.drain()

    def is_left() -> bool:
        soon, queues = time.monotonic() + HANG, client.queues(client.home())
        found = queues.list([QueueName("shop", "1.0.0")], deadline=soon)
        return not found or not found[0].consumers

    until(is_left)
    assert updating.is_alive()
    transport.close()  # else it waits a while
    updating.join(HANG)
    assert failure(lambda: client.call(client.home(), a_call())).executed == "no"
