"""What becomes of messages that are in hand, or on their way, when a listener ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from fan.errors import Unavailable
from fan.message import Request
from fan.model import QueueName
from fan.transports.amqp import AmqpTransport
from fan.transports.base import Listener, Subscription
from tests.transports.test_amqp.conftest import (
    HANG,
    SHOP,
    Handler,
    Make,
    Serve,
    a_call,
    a_push,
    until,
)

pytestmark = pytest.mark.rabbitmq


def an_event(topic: str, body: bytes) -> Request:
    """An event."""
    return a_call("", topic=topic, kind="event", service="", want="", body=body)


def publish(transport: AmqpTransport, topic: str, body: bytes) -> None:
    """Tell one, which a group has heard of."""
    answer = transport.publish(transport.home(), an_event(topic, body))
    assert answer.code == "ok"


def hears(topic: str, method: str = "echo", group: str = "desk") -> Subscription:
    """The subscription of a method of `shop`."""
    return Subscription(topic, group, "shop", method)


def consumers(transport: AmqpTransport) -> int | None:
    """How many take the pushes of `shop`."""
    queues = transport.queues(transport.home())
    (found,) = queues.list([QueueName("shop")], deadline=time.monotonic() + HANG)
    return found.consumers


def test_a_listener_that_drains_as_it_begins_to_take_takes_nothing(
    new_vhost: Callable[[], str], make: Make
) -> None:
    url, handler = new_vhost(), Handler()
    client, transport = make(url), make(url)
    client.send(client.home(), a_push(body=b"0"))
    for turn in range(40):
        listener = transport.serve("", handler)
        beginning = threading.Thread(target=listener.update, args=([SHOP],))
        beginning.start()
        beginning.join(turn % 20 * 0.002)  # the moment itself
        listener.drain()
        beginning.join(HANG)
        until(lambda: consumers(client) == 0)
        listener.close()


def test_what_waits_behind_another_when_a_listener_ends_comes_once(
    new_vhost: Callable[[], str], make: Make
) -> None:
    url, leaving, staying = new_vhost(), Handler(), Handler()
    client, transport, other = make(url), make(url, workers=1), make(url)
    home = client.home()
    busy = transport.subscribe(home, hears("first", "wait"), leaving)
    waiting = transport.subscribe(home, hears("second"), leaving)
    publish(client, "first", b"1")
    assert leaving.wait().body == b"1"
    for n in range(20):
        publish(client, "second", b"%d" % n)  # one of them comes, and finds no place
        waiting.close(0.0)
        again = other.subscribe(home, hears("second"), staying)
        publish(client, "second", b'"end"')
        assert [staying.wait().body, staying.wait().body] == [b"%d" % n, b'"end"']
        waiting = transport.subscribe(home, hears("second"), leaving)
        again.close()
    leaving.release.set()
    for listener in (busy, waiting):
        listener.close()
    assert leaving.requests.empty()


def test_calls_that_wait_when_their_listener_ends_are_refused_and_may_go_elsewhere(
    new_vhost: Callable[[], str], make: Make, serve: Serve
) -> None:
    url, handler = new_vhost(), Handler()
    listener = serve(make(url, workers=1), handler)
    client = make(url)
    first = client.submit(client.home(), a_call("wait", body=b"1"))
    assert handler.wait().body == b"1"
    waiting = [client.submit(client.home(), a_call(body=b"2")) for _ in range(4)]
    client.send(client.home(), a_push(body=b"3"))
    assert handler.wait().body == b"3"  # so the calls, which were sent before, are there
    listener.close(0.0)
    for each in waiting:  # one was in hand, the others in the queue, which is gone
        refused = each.exception(HANG) or each.result()
        assert (refused.code, refused.executed) == ("unavailable", "no")
    handler.release.set()
    assert first.result(HANG).body == b"1"
    assert handler.requests.empty()


def test_an_event_for_each_that_failed_is_not_tried_again_by_who_leaves(
    new_vhost: Callable[[], str], make: Make
) -> None:
    url, handler = new_vhost(), Handler()
    handler.hold = {"raise"}
    client, transport = make(url), make(url)
    listener = transport.subscribe(client.home(), hears("news", "raise", group=""), handler)
    publish(client, "news", b"1")
    assert handler.wait().attempt == 0
    listener.drain()
    handler.release.set()
    listener.close(HANG)
    assert handler.requests.empty()


def test_who_waits_for_a_beginning_is_told_that_the_transport_is_closed(
    new_vhost: Callable[[], str], make: Make
) -> None:
    url, told = new_vhost(), []
    for turn in range(20):
        transport = make(url)
        listener = transport.serve("", Handler())

        def begin(listener: Listener = listener, turn: int = turn) -> None:
            with suppress(Unavailable):
                listener.update([SHOP])
            told.append(turn)

        beginning = threading.Thread(target=begin)
        beginning.start()
        beginning.join(turn * 0.001)  # the moment itself
        transport.close()
        beginning.join(HANG)
    assert told == list(range(20))  # any other error, and the thread would have told it
