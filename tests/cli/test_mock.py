"""`fan mock`: a stand-in that callers cannot tell from the service."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import envelope

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Fan
    from tests.conftest import FanProcess

Start = Callable[..., "FanProcess"]


def test_a_service_that_nobody_has_written_answers(
    fan: Fan, start_fan: Start, registry_url: str
) -> None:
    mock = start_fan("mock", "users.get", "--reply", '{"name":"Ada"}', "-t", "ipc",
                     "--transport", "http=127.0.0.1:0", "--json")  # fmt: skip
    mock.wait_for("ready")
    served = json.loads(
        mock.wait_for("users", stream="stdout") if not mock.stdout else mock.stdout[0]
    )
    assert (served["service"], served["version"], served["ok"]) == ("users", "1.0.0", True)
    for transport in ("ipc", "http"):
        ran = fan("call", "users.get", "id:=3", "-t", transport)
        assert ran == (0, '{"name":"Ada"}\n', "")
    assert fan("call", "users.delete").exit == 3
    mock.send(signal.SIGTERM)
    assert mock.wait() == 143
    assert fan("discover", "show", "users", "--format", "name").stdout == ""


def test_a_registered_service_is_answered_for_as_it_would(
    fan: Fan, start_fan: Start, registry_url: str
) -> None:
    real = start_fan("serve", "fan.demo.v1")
    real.wait_for("ready")
    real.send(signal.SIGTERM)
    real.wait()
    described = fan("discover", "describe", "greeter", "--json").stdout
    mock = start_fan("mock", "greeter", "--from-schema", "--id", "stand-in")
    mock.wait_for("ready")
    assert fan("discover", "describe", "greeter", "--json").stdout == described
    assert fan("call", "greeter.hello", "name=Ada") == (0, '"text"\n', "")
    assert fan("call", "greeter.count", "n=5").stdout == "0\n0\n0\n"
    assert fan("call", "greeter.add", "-d", '{"a":"x"}').exit == 4
    assert envelope(fan("call", "greeter.add", "a=1", "b=2", "--json"))["instance"] == "stand-in"


def test_it_is_late_and_fails_as_it_is_told(fan: Fan, start_fan: Start, registry_url: str) -> None:
    start_fan("mock", "slow.x", "--reply", "1", "--delay", "30s").wait_for("ready")
    assert fan("call", "slow.x", "--timeout", "2s").exit == 7
    start_fan("mock", "gone.x", "--error", "not_found").wait_for("ready")
    ran = fan("call", "gone.x", "--json")
    assert (ran.exit, envelope(ran)["error"]["code"]) == (4, "not_found")
    start_fan("mock", "sick.x", "--reply", "1", "--failure-rate", "1").wait_for("ready")
    assert fan("call", "sick.x").exit == 5
    start_fan(
        "mock", "fine.x", "--reply", "1", "--error", "internal", "--failure-rate", "0"
    ).wait_for("ready")
    assert fan("call", "fine.x").exit == 0


def test_what_was_recorded_is_answered_again(
    fan: Fan, start_fan: Start, registry_url: str, private: Path
) -> None:
    calls = private / "calls.ndjson"
    real = start_fan("serve", "fan.demo.v1")
    real.wait_for("ready")
    asked = [
        ("greeter.hello", "name=Ada"), ("greeter.add", "a=1", "b=2"), ("greeter.boom",),
        ("greeter.count", "n=2"),
    ]  # fmt: skip
    before = [fan("call", *each, "--record", str(calls)) for each in asked]
    real.send(signal.SIGTERM)
    real.wait()
    start_fan("mock", "greeter", "--record", str(calls)).wait_for("ready")
    assert [fan("call", *each) for each in asked] == before
    ran = fan("call", "greeter.hello", "name=Bob", "--json")
    assert (ran.exit, envelope(ran)["error"]["reason"]) == (4, "not_recorded")


@pytest.mark.parametrize(
    "args",
    [
        ("a.b",),
        ("a.b", "--reply", "{"),
        ("a.b", "--reply", "@/nowhere"),
        ("a.b", "--reply", "1", "--from-schema"),
        ("a.b", "--record", "/nowhere"),
        ("a.b", "--record", "EMPTY"),
        ("a.b", "--reply", "1", "--error", "no_such"),
        ("a.b", "--reply", "1", "--failure-rate", "2"),
        ("a.b", "--reply", "1", "--failure-rate", "nan"),
        ("a.b", "--reply", "1", "--delay", "soon"),
        ("a.b", "--reply", "1", "--transport", "pigeon"),
        ("a.b@", "--reply", "1"),
        ("a.b@>2", "--reply", "1"),
        ("a.b@not a version", "--reply", "1"),
        ("a b", "--reply", "1"),
        ("a", "--reply", "1"),
    ],
    ids=" ".join,
)
def test_what_does_not_parse_is_exit_2(
    fan: Fan, registry_url: str, private: Path, args: tuple[str, ...]
) -> None:
    (private / "empty").write_text("")
    given = [arg.replace("EMPTY", str(private / "empty")) for arg in args]
    ran = fan("mock", *given)
    assert (ran.exit, ran.stdout) == (2, "")


def test_samples_need_something_that_is_registered(fan: Fan, registry_url: str) -> None:
    ran = fan("mock", "nobody.x", "--from-schema")
    assert (ran.exit, ran.stdout) == (3, "")
