"""The demo over everything there is: the program shows the same whichever way a call goes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.conftest import HANG, PROGRAM, envelope, variables

if TYPE_CHECKING:
    from tests.cli.conftest import Fan

pytestmark = [pytest.mark.redis, pytest.mark.rabbitmq]

TRANSPORTS = ("ipc", "http", "amqp", "redis")


@pytest.fixture(scope="module")
def everywhere(redis_server: Any, rabbitmq_server: Any) -> Iterator[dict[str, str]]:
    """`fan demo` over every transport that carries calls: the variables that find it."""
    with TemporaryDirectory(prefix="fan-") as folder:
        vars = {
            "FAN_REGISTRY": f"sqlite:{folder}/registry.db",
            "FAN_RUNTIME_DIR": f"{folder}/run",
            "FAN_NAMESPACE": f"demo-{os.getpid()}",
            "FAN_REDIS_URL": redis_server.url,
            "FAN_AMQP_URL": rabbitmq_server.url,
        }
        process = subprocess.Popen(
            [*PROGRAM, "demo", "--transport", ",".join(TRANSPORTS)], env=variables(vars),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield vars
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=HANG)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_every_transport_shows_the_same_code_and_reason(
    fan: Fan, everywhere: dict[str, str], transport: str
) -> None:
    done = envelope(fan("call", "greeter.hello@2", "-t", transport, "--json", **everywhere))
    assert (done["result"], done["version"], done["transport"]) == ("Hi World", "2.0.0", transport)
    calls = (
        ("greeter.boom",),
        ("greeter.helo",),
        ("greeter.add", "a:=true", "b=1"),
        ("greeter.slow", "s=30", "--timeout", "3s"),
        ("greeter.hello@3",),
        ("greeter.hello", "--instance", "nobody"),
        ("gretter.hello",),
    )
    errors = []
    for call in calls:
        ran = fan("call", *call, "-t", transport, "--json", **everywhere)
        error = envelope(ran)["error"]
        errors.append((ran.exit, error["code"], error["reason"], error["executed"]))
    assert errors == [
        (5, "unknown", "", "yes"),
        (3, "unimplemented", "unknown_method", "no"),
        (4, "invalid_argument", "bad_signature", "no"),
        (7, "deadline_exceeded", "client_timer", "maybe"),
        (3, "failed_precondition", "version_missing", "no"),
        (6, "unavailable", "no_instance", "no"),
        (3, "not_found", "no_such_service", "no"),
    ]


@pytest.mark.parametrize("transport", ["amqp", "redis"])
def test_a_broker_carries_no_streams(
    fan: Fan, everywhere: dict[str, str], transport: str
) -> None:
    ran = fan("call", "greeter.count", "n=3", "-t", transport, "--json", **everywhere)
    error = envelope(ran)["error"]
    assert (ran.exit, error["code"], error["reason"]) == (
        4, "unimplemented", "streaming_unsupported",
    )  # fmt: skip


def test_the_demo_is_found_with_all_its_transports(fan: Fan, everywhere: dict[str, str]) -> None:
    ran = fan("discover", "list", **everywhere)
    assert [line.split("\t")[4] for line in ran.stdout.splitlines()] == ["amqp,http,ipc,redis"] * 2
    queues = fan("queue", "list", "--format", "name", **everywhere).stdout.splitlines()
    assert {"greeter@1.0.0", "greeter@2.0.0"} <= set(queues)


@pytest.mark.parametrize("broker", ["amqp", "redis"])
def test_a_peer_that_is_a_broker_needs_no_registry(
    fan: Fan, everywhere: dict[str, str], broker: str
) -> None:
    vars = {**everywhere, "FAN_REGISTRY": "sqlite:/does/not/exist.db"}
    url = everywhere[f"FAN_{broker.upper()}_URL"]
    ran = fan("call", "greeter.hello", "name=Ada", "-p", url, **vars)
    assert (ran.exit, ran.stdout) == (0, '"Hello Ada"\n')
    ran = fan("call", "nobody.hello", "-p", url, "--json", **vars)
    assert (ran.exit, envelope(ran)["error"]["reason"]) == (6, "unroutable")


@pytest.mark.timeout(400)
def test_the_tour_goes_through_the_brokers_that_are_there(
    start_fan: Callable[..., Any], everywhere: dict[str, str], private: Path
) -> None:
    temp = private / "temp"
    temp.mkdir()
    tour = start_fan("demo", "--tour", TMPDIR=str(temp), **everywhere)
    assert tour.wait(timeout=150.0) == 0
    assert tour.stderr == []
    text = "\n".join(tour.stdout)
    for transport in ("amqp", "redis"):
        assert f'$ fan call greeter.hello name=Ada -t {transport}\n"Hello Ada"' in text
    assert list(temp.iterdir()) == []
