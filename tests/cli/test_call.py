"""`fan call` and `fan push` against the demo: results, and each exit status that can happen now."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import HANG, envelope

if TYPE_CHECKING:
    from tests.cli.conftest import Demo, Fan


@pytest.mark.parametrize(
    ("args", "result"),
    [
        (("greeter.hello", "name=Ada"), '"Hello Ada"'),
        (("greeter::hello", '{"name":"Ada"}'), '"Hello Ada"'),
        (("greeter/hello", "-d", '{"name":"Ada"}'), '"Hello Ada"'),
        (("greeter.hello", "=Ada"), '"Hello Ada"'),
        (("greeter.hello", "[", "--name", "Ada", "]"), '"Hello Ada"'),
        (("greeter.hello", "--", "name=Ada"), '"Hello Ada"'),
        (("--timeout", "9", "greeter.hello", "name=Ada", "-r"), "Hello Ada"),
        (("greeter.hello@2", "name=Ada"), '"Hi Ada"'),
        (("greeter.hello@~=2.0",), '"Hi World"'),
        (("greeter.hello", "-t", "http"), '"Hello World"'),
        (("greeter.add", "a=1", "b:=2"), "3"),
        (("greeter.echo", "=x", "a=1"), '{"args":["x"],"kwargs":{"a":"1"}}'),
        (("greeter.count", "n=3"), "0\n1\n2"),
    ],
)
def test_a_call_prints_its_result(fan: Fan, demo: Demo, args: tuple[str, ...], result: str) -> None:
    ran = fan("call", *args)
    assert ran == (0, f"{result}\n", "")


def test_a_payload_comes_from_stdin_when_asked_for(fan: Fan, demo: Demo) -> None:
    ran = fan("call", "greeter.hello", "-d", "-", stdin=b'{"name":"Ada"}')
    assert ran.stdout == '"Hello Ada"\n'


def test_headers_baggage_and_caller_arrive(fan: Fan, demo: Demo, private: Path) -> None:
    (private / "h").write_text("X-One: 1\n\nX-Two: 2\n")
    ran = fan(
        "call", "greeter.whoami", "-H", f"@{private}/h", "-H", "X-Team: blue", "-B", "user=7",
        "--caller", "tests",
    )  # fmt: skip
    found = json.loads(ran.stdout)
    assert found["headers"] == {"x-one": "1", "x-two": "2", "x-team": "blue"}
    assert found["baggage"] == {"user": "7"}
    assert found["caller"] == "tests"


def test_an_address_needs_no_registry(fan: Fan, demo: Demo, private: Path) -> None:
    broken = f"sqlite:{private}/no/such/folder/x.db"
    for peer in (demo.url, "local:fan.demo.v1"):
        ran = fan("call", "greeter.hello", "name=Ada", "-p", peer, FAN_REGISTRY=broken)
        assert ran.stdout == '"Hello Ada"\n', ran
        ran = fan("call", "greeter.count", "n:=2", "-p", peer, FAN_REGISTRY=broken)
        assert ran.stdout == "0\n1\n", ran


def test_an_address_is_taken_only_over_the_transport_that_is_asked_for(
    fan: Fan, demo: Demo
) -> None:
    ipc = fan("discover", "resolve", "greeter").stdout.strip()
    ran = fan("call", "greeter.hello", "-p", ipc, "-t", "http")
    assert (ran.exit, ran.stdout) == (6, "")
    assert "no peer answers over http" in ran.stderr
    both = ("-p", "http://127.0.0.1:1", "-p", ipc)
    assert fan("call", "greeter.hello", *both, "-t", "ipc").stdout == '"Hello World"\n'


def test_a_call_in_this_process_that_ends_late_is_told_on_return(fan: Fan) -> None:
    slow = ("call", "greeter.slow", "s=1.5", "-p", "local:fan.demo.v1")
    assert fan(*slow).stdout == "1.5\n"
    ran = fan(*slow, "--timeout", "1s", "--json")
    error = envelope(ran)["error"]
    assert (ran.exit, error["code"], error["reason"], error["executed"]) == (
        7, "deadline_exceeded", "server_timer", "yes"
    )  # fmt: skip


def test_a_key_of_shon_is_no_option(fan: Fan, demo: Demo) -> None:
    ran = fan("call", "greeter.echo", "[", "--json", "1", "--t", "[", "]", "]")
    assert ran.stdout == '{"args":[],"kwargs":{"json":1,"t":[]}}\n'
    assert envelope(fan("call", "greeter.echo", "[", "--a", "1", "]", "--json"))["ok"] is True


def test_json_of_a_success_is_the_envelope(fan: Fan, demo: Demo) -> None:
    found = envelope(fan("--json", "call", "greeter.hello", "name=Ada"))
    assert list(found) == [
        "v", "ok", "target", "version", "transport", "instance", "gen", "result", "headers",
        "trace_id", "attempts", "timing_ms",
    ]  # fmt: skip
    assert found["v"] == 1
    assert found["ok"] is True
    assert (found["target"], found["version"], found["transport"], found["result"]) == (
        "greeter.hello", "1.0.0", "ipc", "Hello Ada",
    )  # fmt: skip
    assert set(found["timing_ms"]) == {"resolve", "connect", "send", "wait", "decode", "total"}


def test_json_of_a_failure_is_the_envelope(fan: Fan, demo: Demo) -> None:
    ran = fan("call", "greeter.boom", "--json")
    found = envelope(ran)
    assert ran.exit == found["error"]["exit"] == 5
    assert ran.stderr == ""
    assert list(found) == ["v", "ok", "target", "error", "timing_ms"]
    assert found["error"] | {"message": ""} == {
        "code": "unknown", "reason": "", "exit": 5, "message": "", "type": "ValueError",
        "details": None, "executed": "yes", "retryable": False,
    }  # fmt: skip


def test_json_of_a_stream_is_an_object_per_item_and_an_end(fan: Fan, demo: Demo) -> None:
    for transport in ("ipc", "http"):
        ran = fan("call", "greeter.count", "n=2", "--json", "-t", transport)
        lines = [json.loads(line) for line in ran.stdout.splitlines()]
        assert [line["kind"] for line in lines] == ["item", "item", "end"]
        end = lines[-1]
        assert (end["items"], end["version"]) == (2, "1.0.0")
        assert end["instance"].startswith("greeter-"), end
        assert end["gen"] > 0


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (("greeter.boom",), 5, "fan: unknown: greeter.boom: ValueError: boom (executed: yes)\n"),
        (("gretter.hello",), 3, "did you mean greeter?"),
        (("greeter.helo",), 3, "did you mean hello"),
        (("greeter.hello@9",), 3, "1.0.0, 2.0.0"),
        (("greeter.__init__",), 3, "no method __init__"),
        (("greeter.service_stop",), 3, "no method service_stop"),
        (("greeter.add", "a=x", "b=1"), 4, "greeter.add: a: 'x' is not an integer"),
        (("greeter.add", 'a:="x"', "b=1"), 4, "a: expected int, got str"),
        (("greeter.hello", "nme=x"), 4, "nme"),
        (("greeter.hello", "--instance", "nobody"), 6, "nobody"),
        (("greeter.hello", "-p", "http://127.0.0.1:1"), 6, "refused"),
        (("greeter.hello", "-p", "unix:///does/not/exist.sock"), 6, "exist.sock"),
        (("greeter.slow", "s=30", "--timeout", "2s"), 7, "(executed: maybe)"),
    ],
)
def test_a_failure_is_one_line_and_a_status(
    fan: Fan, demo: Demo, args: tuple[str, ...], status: int, said: str
) -> None:
    ran = fan("call", *args, "-q")
    assert (ran.exit, ran.stdout) == (status, "")
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_an_address_where_nobody_listens_is_not_looked_up_in_the_registry(fan: Fan) -> None:
    ran = fan("call", "greeter.hello", "-p", "unix:///nowhere")
    assert (ran.exit, ran.stdout) == (6, "")
    assert ran.stderr.endswith("\nhint: is it running? -p says where it should be\n")


def test_a_known_service_without_an_instance_is_unavailable(
    fan: Fan, start: Callable[..., subprocess.Popen[bytes]], registry_url: str
) -> None:
    process = start("serve", "fan.demo.v1")
    assert process.stderr is not None
    while process.stderr.readline() != b"ready\n":
        pass
    process.terminate()
    process.communicate(timeout=HANG)
    ran = fan("call", "greeter.hello", "--json")
    assert ran.exit == 6
    error = envelope(ran)["error"]
    assert (error["reason"], error["executed"], error["retryable"]) == ("no_instance", "no", True)


def test_a_service_that_dies_in_mid_call_leaves_the_outcome_unknown(
    fan: Fan, start: Callable[..., subprocess.Popen[bytes]], registry_url: str
) -> None:
    server = start("serve", "fan.demo.v1")
    assert server.stderr is not None
    while server.stderr.readline() != b"ready\n":
        pass
    caller = start("call", "greeter.slow", "s=40", "--timeout", "45s", "--json")
    while json.loads(fan("call", "greeter.stats").stdout)["in_flight"] < 2:
        pass  # itself, and the slow one
    server.kill()
    stdout, _ = caller.communicate(timeout=HANG)
    error = json.loads(stdout)["error"]
    assert (caller.returncode, error["code"], error["executed"]) == (7, "unavailable", "maybe")


def test_a_damaged_registry_is_said_in_one_line(fan: Fan, private: Path) -> None:
    (private / "broken.db").write_bytes(b"not a database" * 1000)
    ran = fan("call", "greeter.hello", FAN_REGISTRY=f"sqlite:{private}/broken.db")
    assert (ran.exit, ran.stdout) == (5, "")
    assert ran.stderr.startswith("fan: data_loss: ")
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "vars", [{"FAN_TIMEOUT": "soon"}, {"FAN_REGISTRY": "nonsense"}, {"FAN_PROFILE": "nobody"}]
)
def test_a_setting_that_cannot_be_understood_is_a_usage_error(
    fan: Fan, vars: dict[str, str]
) -> None:
    ran = fan("call", "greeter.hello", **vars)
    assert (ran.exit, ran.stdout) == (2, "")
    assert "Traceback" not in ran.stderr


@contextmanager
def answering(reply: bytes) -> Iterator[str]:
    """An http server that knows one answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def test_a_reply_that_is_not_json_is_malformed(fan: Fan) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5\r\n"
    with answering(head + b"fan-code: ok\r\nconnection: close\r\n\r\n{oops") as url:
        ran = fan("call", "greeter.hello", "-p", url)
    assert (ran.exit, ran.stdout) == (8, "")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("greeter.hello", "--timeot", "3"), "did you mean --timeout?"),
        (("greeter",), "a method"),
        (("",), "TARGET"),
        (("gre eter.hello",), "no name"),
        (("a" * 300 + ".b",), "255"),
        (("greeter.hello", '{"name":}'), "column 9"),
        (("greeter.hello", "-d", "{}", "a=1"), "two payloads"),
        (("greeter.hello", "-d", "@/does/not/exist"), "cannot read"),
        (("greeter.hello", "Ada"), "NAME=Ada"),
        (("greeter.hello", "-t", "htp"), "did you mean http"),
        (("greeter.hello", "-p", "carrier://pigeon"), "unknown scheme"),
        (("greeter.hello", "-p", "http://127.0.0.1:1?x=y"), "no address"),
        (("greeter.hello", "-p", "http://127.0.0.1:99999"), "no address"),
        (("greeter.hello", "--caller", "no body"), "--caller"),
        (("greeter.hello", "-p", "local:no.such.module"), "no module"),
        (("greeter.hello", "--registry", "etcd://x"), "unknown scheme"),
        (("greeter.hello", "--timeout", "soon"), "--timeout"),
        (("greeter.hello", "-H", "nothing"), "-H"),
        (("greeter.hello", "-o", "/does/not/exist/f"), "-o"),
        ((), "TARGET"),
    ],
)
def test_a_mistake_on_the_command_line_sends_nothing_and_exits_with_2(
    fan: Fan, registry_url: str, args: tuple[str, ...], said: str
) -> None:
    ran = fan("call", *args)
    assert (ran.exit, ran.stdout) == (2, ""), ran
    assert said in ran.stderr
    assert ran.stderr.startswith(("fan: usage: ", "fan: invalid_argument: "))
    assert len(ran.stderr.splitlines()) <= 2


def test_a_mistake_with_json_is_an_object_too(fan: Fan) -> None:
    ran = fan("call", "greeter", "--json")
    error = envelope(ran)["error"]
    assert (ran.exit, error["code"], error["reason"]) == (2, "invalid_argument", "usage")


def test_ten_megabytes_arrive_and_twenty_are_refused(fan: Fan, demo: Demo, private: Path) -> None:
    for megabytes, status in ((10, 0), (20, 4)):
        (private / "big").write_text(json.dumps({"text": "x" * megabytes * 1_000_000}))
        ran = fan("call", "greeter.echo", "-d", f"@{private}/big", "-o", f"{private}/out")
        assert ran.exit == status, ran.stderr[:300]
    assert (private / "out").stat().st_size > 10_000_000


def test_a_dry_run_sends_nothing_and_masks_secrets(fan: Fan, demo: Demo) -> None:
    ran = fan("call", "greeter.boom", "--dry-run", "-H", "Authorization: x", "-H", "a: b")
    found = envelope(ran)
    assert (ran.exit, found["version"], found["transport"]) == (0, "1.0.0", "ipc")
    assert found["request"]["headers"] == {"authorization": "****", "a": "b"}


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (("greeter.hello", "nme=x"), 4, "did you mean name?"),
        (("greeter.add", "a=1"), 4, "missing: b"),
        (("greeter.add", '{"a":"x","b":1}'), 4, 'a: "x" is not an integer'),
        (("greeter.add", "[1,null]"), 4, "b: null is not an integer"),
        (("greeter.add", "[1,2.0]"), 4, "b: 2.0 is not an integer"),
        (("greeter.helo",), 3, "did you mean hello"),
        (("greeter.hello@9",), 3, "1.0.0, 2.0.0"),
    ],
)
def test_a_dry_run_refuses_what_the_callee_would(
    fan: Fan, demo: Demo, args: tuple[str, ...], status: int, said: str
) -> None:
    ran = fan("call", *args, "--dry-run")
    assert (ran.exit, ran.stdout) == (status, "")
    assert said in ran.stderr


def test_verbose_talks_on_stderr_and_masks_secrets(fan: Fan, demo: Demo) -> None:
    for option in ("-v", "-vv", "-vvv"):
        ran = fan("call", "greeter.echo", "password=hush", option, "-H", "Authorization: hush")
        assert ran.stdout == '{"args":[],"kwargs":{"password":"hush"}}\n'
        assert "greeter" in ran.stderr
        assert "hush" not in "".join(
            line for line in ran.stderr.splitlines() if not line.startswith("<")
        )
    shown = fan("call", "greeter.hello", "-vvv", "-H", "Authorization: hush", "--show-secrets")
    assert "hush" in shown.stderr


def test_meta_of_a_result_and_of_a_stream_is_on_stderr(fan: Fan, demo: Demo) -> None:
    ran = fan("call", "greeter.hello", "--meta")
    assert ran.stdout == '"Hello World"\n'
    assert ran.stderr.startswith("* 1.0.0 greeter-")
    ran = fan("call", "greeter.count", "n=3", "--meta")
    assert ran.stdout == "0\n1\n2\n"
    assert ran.stderr.startswith("* 1.0.0 greeter-")
    assert ran.stderr.endswith(", items=3\n")


@pytest.mark.parametrize("transport", ["ipc", "http"])
def test_more_baggage_than_can_travel_is_refused(fan: Fan, demo: Demo, transport: str) -> None:
    for pairs in (64, 65):
        baggage = [arg for n in range(pairs) for arg in ("-B", f"k{n}=v")]
        ran = fan("call", "greeter.hello", "-t", transport, *baggage)
        assert ran.exit == (0 if pairs == 64 else 4), ran.stderr


def test_the_result_goes_to_a_file(fan: Fan, demo: Demo, private: Path) -> None:
    ran = fan("call", "greeter.hello", "-o", str(private / "out"), "-r")
    assert ran.stdout == ""
    assert (private / "out").read_text() == "Hello World\n"


def test_a_push_is_silent(fan: Fan, demo: Demo) -> None:
    assert fan("push", "greeter.hello", "name=Ada") == (0, "", "")
    accepted = envelope(fan("push", "greeter.hello", "--json", "--ttl", "1m"))
    assert accepted["accepted"] is True
    assert accepted["gen"] > 0
    ran = fan("push", "greeter.hello", "--ttl", "soon")
    assert (ran.exit, ran.stderr.splitlines()[0]) == (
        2, "fan: usage: --ttl: 'soon' is not a duration"
    )  # fmt: skip
    assert fan("push", "gretter.hello").exit == 3


@pytest.mark.parametrize("transport", ["ipc", "http"])
def test_every_transport_shows_the_same_code_and_reason(
    fan: Fan, demo: Demo, transport: str
) -> None:
    calls = (("greeter.boom",), ("greeter.helo",), ("greeter.add", "a:=true", "b=1"))
    found = [envelope(fan("call", *call, "-t", transport, "--json"))["error"] for call in calls]
    assert [(e["code"], e["reason"], e["executed"]) for e in found] == [
        ("unknown", "", "yes"),
        ("unimplemented", "unknown_method", "no"),
        ("invalid_argument", "bad_signature", "no"),
    ]
