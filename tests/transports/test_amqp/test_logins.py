"""Brokers that cannot be reached, or do not let us in: code, sentence, within the deadline."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
import trustme

from fan.errors import FanError
from fan.model import Address, QueueName
from fan.testing.servers import require
from fan.tools.servers_rabbitmq import RabbitMQ
from fan.transports.amqp import AmqpTransport
from fan.transports.base import Subscription
from tests.transports.test_amqp.conftest import (
    HANG,
    Handler,
    Make,
    Serve,
    a_call,
    a_push,
    as_json,
    ask,
    failure,
)

pytestmark = pytest.mark.rabbitmq

Act = Callable[[AmqpTransport, Address], Any]
NEWS = Subscription("news", "readers", "shop", "echo")

#: Milliseconds of a call that says nothing of them.
USUAL = 5000

#: Whatever a transport does first, it finds the broker as it is.
ACTS: dict[str, Act] = {
    "call": lambda transport, at: transport.call(at, a_call(timeout_ms=USUAL)),
    "submit": lambda transport, at: transport.submit(at, a_call(timeout_ms=USUAL)).result(HANG),
    "push": lambda transport, at: transport.send(at, a_push(timeout_ms=USUAL)),
    "publish": lambda transport, at: transport.publish(
        at, a_call(kind="event", topic="news", timeout_ms=USUAL)
    ),
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
    assert error.message.endswith("it does not speak TLS: without it, it is amqp://")


@pytest.fixture(scope="module")
def secured(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Secured]:
    """A RabbitMQ over TLS, whose authority is a file."""
    require(request.config, "rabbitmq")
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    identity, own = authority.issue_cert("127.0.0.1"), authority.issue_cert("client@example.org")
    for name, blob in {
        "ca.pem": authority.cert_pem, "key.pem": identity.private_key_pem,
        "cert.pem": identity.cert_chain_pems[0], "own.pem": own.cert_chain_pems[0],
        "own.key": own.private_key_pem,
    }.items():  # fmt: skip
        blob.write_to_path(str(folder / name))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    conf = {
        "listeners.ssl.1": f"127.0.0.1:{port}",
        "ssl_options.cacertfile": f"{folder}/ca.pem",
        "ssl_options.certfile": f"{folder}/cert.pem",
        "ssl_options.keyfile": f"{folder}/key.pem",
        "ssl_options.verify": "verify_peer",
        "ssl_options.fail_if_no_peer_cert": "true",
    }
    with RabbitMQ(conf=conf) as server:
        server.start()
        yield Secured(server, port, folder)


class Secured(NamedTuple):
    """A broker, its port for TLS, and the folder of the certificates."""

    server: RabbitMQ
    port: int
    folder: Path

    def url(self, host: str = "127.0.0.1", **query: str) -> str:
        """Its URL; by default we trust it, and show who we are."""
        usual = {
            "cacertfile": f"{self.folder}/ca.pem", "certfile": f"{self.folder}/own.pem",
            "keyfile": f"{self.folder}/own.key",
        }  # fmt: skip
        return f"amqps://guest:guest@{host}:{self.port}/?{urlencode({**usual, **query})}"


def test_calls_and_pushes_go_over_tls(secured: Secured, make: Make, serve: Serve) -> None:
    handler = Handler()
    serve(make(secured.url()), handler)
    client = make(secured.url())
    for n in range(20):
        ask(client, as_json(n))
    big = as_json("x" * 1_000_000)
    assert client.call(client.home(), a_call(body=big, timeout_ms=20_000)).body == big
    client.send(client.home(), a_push(body=b'"pushed"'))
    assert b'"pushed"' in {handler.wait().body for _ in range(22)}
    assert client.home().url == f"amqps://127.0.0.1:{secured.port}/"


@pytest.mark.parametrize(
    ("host", "query", "said"),
    [
        ("localhost", {}, "its certificate is not trusted: Hostname mismatch"),
        ("127.0.0.1", {"cacertfile": ""}, "its certificate is not trusted: "),
        ("127.0.0.1", {"certfile": "/nowhere.pem"}, "No such file or directory"),
    ],
)
def test_a_certificate_that_does_not_fit_is_connect_failed(
    secured: Secured, make: Make, host: str, query: dict[str, str], said: str
) -> None:
    error = refusal(make, secured.url(host, **query), ACTS["call"])
    assert (error.code, error.reason) == ("unavailable", "connect_failed")
    assert said in error.message


def test_a_certificate_is_not_looked_at_where_the_url_says_so(
    secured: Secured, make: Make, serve: Serve
) -> None:
    url = secured.url("localhost", cacertfile="", verify="verify_none")
    serve(make(url), Handler())
    ask(make(url))


def test_who_shows_no_certificate_where_one_is_wanted_is_connect_failed(
    secured: Secured, make: Make
) -> None:
    error = refusal(make, secured.url(certfile="", keyfile=""), ACTS["call"])
    assert (error.code, error.reason) == ("unavailable", "connect_failed")


def test_no_tls_to_a_tls_port_is_connect_failed(secured: Secured, make: Make) -> None:
    error = refusal(make, f"amqp://ada:secret@127.0.0.1:{secured.port}/", ACTS["call"])
    assert (error.code, error.reason) == ("unavailable", "connect_failed")
    assert error.message.endswith("it does not speak AMQP 0-9-1: over TLS, it is amqps://")


def test_a_certificate_that_is_missing_is_connect_failed(make: Make) -> None:
    error = refusal(make, "amqps://127.0.0.1:9/?cacertfile=%2Fnowhere.pem", ACTS["call"])
    assert (error.code, error.reason) == ("unavailable", "connect_failed")


@EACH
@pytest.mark.parametrize("url", ["amqp://ada:secret@{}/", "amqps://ada:secret@{}/"])
def test_a_listener_that_says_nothing_is_told_before_the_usual_deadline(
    make: Make, act: Act, url: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = refusal(make, url.format(f"127.0.0.1:{silent.getsockname()[1]}"), act)
    assert (error.code, error.reason) == ("unavailable", "connect_failed")
    assert error.message.endswith("it accepts connections and says nothing")


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
