"""Brokers that cannot be reached, or do not let us in: code, sentence, within the deadline."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from fan.errors import FanError
from fan.model import Address, QueueName
from fan.transports.amqp import AmqpTransport
from fan.transports.base import Subscription
from tests.transports.test_amqp.conftest import (
    HANG,
    Handler,
    Make,
    a_call,
    a_push,
    failure,
)

pytestmark = pytest.mark.rabbitmq

Act = Callable[[AmqpTransport, Address], Any]
NEWS = Subscription("news", "readers", "shop", "echo")

#: Whatever a transport does first, it finds the broker as it is.
ACTS: dict[str, Act] = {
    "call": lambda transport, at: transport.call(at, a_call()),
    "submit": lambda transport, at: transport.submit(at, a_call()).result(HANG),
    "push": lambda transport, at: transport.send(at, a_push()),
    "publish": lambda transport, at: transport.publish(at, a_call(kind="event", topic="news")),
    "serve": lambda transport, at: transport.serve(at.url, Handler()),
    "subscribe": lambda transport, at: transport.subscribe(at, NEWS, Handler()),
    "queues": lambda transport, at: transport.queues(at).list(
        [QueueName("shop")], deadline=time.monotonic() + HANG
    ),
}
EACH = pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)


def refusal(make: Make, url: str, act: Act) -> FanError:
    """What comes of it. It is told long before the deadline, and shows no password."""
    transport = make("amqp://127.0.0.1:9/")
    error = failure(lambda: act(transport, Address(url)))
    assert error.executed == "no"
    assert "secret" not in f"{error} {error!r} {error.details}"
    return error


@EACH
def test_a_wrong_password_is_unauthenticated(make: Make, rabbitmq_server: Any, act: Act) -> None:
    url = rabbitmq_server.url.replace("guest:guest@", "guest:secret@")
    error = refusal(make, url, act)
    assert (error.code, error.reason) == ("unauthenticated", "bad_login")
    assert "guest" in error.message


@EACH
def test_an_unknown_virtual_host_is_not_found(make: Make, rabbitmq_server: Any, act: Act) -> None:
    error = refusal(make, f"{rabbitmq_server.url}nowhere", act)
    assert (error.code, error.reason) == ("not_found", "no_such_vhost")
    assert "/nowhere" in error.message


@EACH
def test_a_port_where_nobody_listens_is_connect_failed(make: Make, act: Act) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    error = refusal(make, f"amqp://ada:secret@127.0.0.1:{port}/", act)
    assert (error.code, error.reason) == ("unavailable", "connect_failed")
    assert error.message.endswith("nobody listens there")


@EACH
def test_tls_to_a_plain_port_is_connect_failed(make: Make, rabbitmq_server: Any, act: Act) -> None:
    error = refusal(make, rabbitmq_server.url.replace("amqp:", "amqps:"), act)
    assert (error.code, error.reason) == ("unavailable", "connect_failed")


def test_a_certificate_that_is_missing_is_connect_failed(make: Make) -> None:
    error = refusal(make, "amqps://127.0.0.1:9/?cacertfile=%2Fnowhere.pem", ACTS["call"])
    assert (error.code, error.reason) == ("unavailable", "connect_failed")


def test_a_listener_that_says_nothing_costs_no_more_than_the_deadline(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        transport = make(f"amqp://127.0.0.1:{silent.getsockname()[1]}/")
        error = failure(lambda: transport.call(transport.home(), a_call(timeout_ms=200)))
        assert (error.code, error.reason, error.executed) == (
            "deadline_exceeded", "client_timer", "no",
        )  # fmt: skip
        transport.close()


def test_a_closed_transport_refuses_and_fails_what_waits(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        transport = make(f"amqp://127.0.0.1:{silent.getsockname()[1]}/")
        waiting: Future[Any] = transport.submit(transport.home(), a_call(timeout_ms=60_000))
        transport.close()
        assert failure(lambda: waiting.result(HANG)).reason == "connect_failed"
        error = failure(lambda: transport.call(transport.home(), a_call()))
        assert (error.code, error.executed) == ("unavailable", "no")


def test_a_login_that_is_given_up_is_no_error_in_the_log(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(HANG)
        transport = make(f"amqp://127.0.0.1:{silent.getsockname()[1]}/")
        waiting: Future[Any] = transport.submit(transport.home(), a_call(timeout_ms=60_000))
        there, _ = silent.accept()
        with there:
            assert there.recv(4) == b"AMQP"
            transport.close()
    assert failure(lambda: waiting.result(HANG)).reason == "connect_failed"
    assert [record.getMessage() for record in caplog.records if record.name == "fan"] == []
