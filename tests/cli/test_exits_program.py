"""Each row of the table of exit codes, by the real program."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fan.errors import CLASSES
from fancli.exits import MEANINGS
from tests.cli.conftest import HANG, envelope

if TYPE_CHECKING:
    from tests.cli.conftest import Demo, Fan, Ran
    from tests.conftest import FanProcess

Start = Callable[..., "FanProcess"]
Shell = Callable[..., "Ran"]

#: Exit status -> command lines that end with it, beside the demo.
ENDS: dict[int, list[str]] = {
    0: [
        "call greeter.hello",
        "config list",
        "discover list -n nobody",
        "plugins",
        "profile list",
        "settings show",
        "bench greeter.hello -N 3",
        "bench greeter.hello -N 3 --slo p99<1h",
    ],
    2: [
        "call greeter",
        "call greeter.hello --nonsense",
        "call greeter.hello a=1 {}",
        "call greeter.hello {",
        "call greeter.hello -d @/nowhere",
        "call greeter.hello -t pigeon",
        "call greeter.hello -p pigeon://x",
        "call greeter.hello --timeout soon",
        "call greeter.hello --profile nobody",
        "bench greeter.hello --slo nonsense",
        "mock greeter.hello",
        "profile use nobody",
        "completion tcsh",
        "nonsense",
        "help nonsense",
    ],
    3: [
        "call gretter.hello",
        "call greeter.helo",
        "call greeter.hello@9",
        "config get no/such",
        "bench greeter.helo",
        "mock nobody.x --from-schema",
        "discover show nobody",
    ],
    4: ["call greeter.add a=x b=1", "call greeter.add a=1", "bench greeter.add a=1"],
    5: ["call greeter.boom"],
    6: ["call greeter.hello --instance nobody", "call greeter.hello -p http://127.0.0.1:1"],
    7: ["call greeter.slow s=30 --timeout 2s"],
    9: ["bench greeter.boom -N 3", "bench greeter.slow s=0.02 -N 2 --slo p50<1ms"],
}


@pytest.mark.parametrize(
    ("line", "status"), [(line, status) for status, lines in ENDS.items() for line in lines]
)
def test_a_command_line_ends_as_the_table_says(
    fan: Fan, demo: Demo, line: str, status: int
) -> None:
    ran = fan(*line.split())
    assert ran.exit == status, ran
    if status not in (0, 9):
        assert ran.stdout == ""
        assert ran.stderr.startswith("fan: ")


@pytest.mark.parametrize(
    ("line", "status"), [(lines[0], status) for status, lines in ENDS.items() if status]
)
def test_json_holds_the_status_of_a_failure(fan: Fan, demo: Demo, line: str, status: int) -> None:
    ran = fan(*line.split(), "--json")
    found = envelope(ran)
    assert (ran.exit, found["v"], found["ok"], found["error"]["exit"]) == (status, 1, False, status)
    assert {"code", "reason", "message", "executed", "retryable"} <= found["error"].keys()


#: What a service may say -> the exit status of whoever called it.
SAID: dict[tuple[str, str], int] = {
    ("not_found", ""): 4,
    ("invalid_argument", ""): 4,
    ("permission_denied", ""): 4,
    ("unauthenticated", ""): 4,
    ("out_of_range", ""): 4,
    ("already_exists", ""): 4,
    ("aborted", ""): 4,
    ("failed_precondition", "paused"): 4,
    ("resource_exhausted", "payload_too_large"): 4,
    ("unknown", ""): 5,
    ("internal", ""): 5,
    ("data_loss", ""): 5,
    ("resource_exhausted", "quota"): 6,
    ("cancelled", ""): 7,
    ("out_of_range", "compacted"): 11,
    ("aborted", "nack"): 12,
    ("aborted", "auto_rollback"): 12,
}


def test_what_a_service_says_becomes_the_status_of_the_table(
    fan: Fan, start_fan: Start, registry_url: str, private: Path
) -> None:
    recording = private / "calls.ndjson"
    with recording.open("w") as file:
        for index, (code, reason) in enumerate(SAID):
            error = {"code": code, "reason": reason, "message": "no"}
            reply = {"ok": False, "error": error}
            call: dict[str, Any] = {"v": 1, "target": "judge.say", "body": {"n": index}}
            file.write(json.dumps({**call, "reply": reply}) + "\n")
    start_fan("mock", "judge", "--record", str(recording)).wait_for("ready")
    ends = {
        said: fan("call", "judge.say", f"n:={index}", "--retry", "0").exit
        for index, said in enumerate(SAID)
    }
    assert ends == SAID
    assert {code for code, _ in SAID} | {
        "deadline_exceeded",
        "unavailable",
        "unimplemented",
    } == set(CLASSES)


def test_an_unhealthy_service_is_5(fan: Fan, start_fan: Start, registry_url: str) -> None:
    start_fan("mock", "ill.health", "--reply", '"broken"').wait_for("ready")
    assert fan("call", "ill", "--health").exit == 5


def test_a_stopped_service_and_an_unreachable_registry_are_6(
    fan: Fan, start_fan: Start, registry_url: str
) -> None:
    served = start_fan("serve", "fan.demo.v1")
    served.wait_for("ready")
    served.send(signal.SIGTERM)
    served.wait()
    ran = fan("call", "greeter.hello", "--json")
    assert (ran.exit, envelope(ran)["error"]["executed"]) == (6, "no")
    ran = fan("call", "greeter.hello", "--registry", "zk://127.0.0.1:1", "--timeout", "1s")
    assert (ran.exit, ran.stdout) == (6, "")


def test_a_service_that_dies_under_a_call_is_7(
    start: Callable[..., subprocess.Popen[bytes]], start_fan: Start, fan: Fan, registry_url: str
) -> None:
    served = start_fan("serve", "fan.demo.v1")
    served.wait_for("ready")
    call = start("call", "greeter.slow", "s=40", "--timeout", "45s", "--retry", "0", "--json")
    while json.loads(fan("call", "greeter.stats").stdout)["in_flight"] < 2:  # this one, and it
        assert call.poll() is None
    served.kill()
    stdout, _ = call.communicate(timeout=HANG)
    assert call.returncode == 7
    assert json.loads(stdout)["error"]["executed"] == "maybe"


@pytest.fixture
def nonsense_server() -> Iterator[str]:
    """An HTTP server whose answers are no JSON."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                body = b"{oops"
                head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nfan-v: 1\r\n"
                connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(HANG)


def test_a_reply_that_cannot_be_decoded_is_8(fan: Fan, nonsense_server: str) -> None:
    ran = fan("call", "a.b", "-p", nonsense_server, "--json", "--retry", "0")
    assert (ran.exit, envelope(ran)["error"]["reason"]) == (8, "malformed_reply")


def test_what_changed_since_it_was_read_is_10(fan: Fan, registry_url: str) -> None:
    assert fan("config", "set", "a/b", "1").exit == 0
    assert fan("config", "set", "a/b", "1").exit == 0, "already so"
    assert fan("config", "set", "a/b", "2", "--if-rev", "7").exit == 10
    assert fan("config", "set", "a/b", "2", "--create").exit == 10


def test_a_full_disk_is_1(shell: Shell, demo: Demo) -> None:
    for line in ("call greeter.hello", "help", "bench greeter.hello -N 2", "profile list --json"):
        wanted = 0 if line.startswith("profile") else 1  # nothing to write
        assert shell(f'"$@" {line} >/dev/full').exit == wanted


def test_a_reader_that_goes_away_is_141(shell: Shell, demo: Demo) -> None:
    ran = shell('"$@" call greeter.count n=1000000 | head -1; echo ${PIPESTATUS[0]}')
    assert ran == (0, "0\n141\n", "")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("line", ["mock a.b --reply 1", "discover watch", "config watch a/"])
def test_a_signal_is_130_or_143(
    start_fan: Start, registry_url: str, fan: Fan, line: str, number: int, status: int
) -> None:
    assert fan("config", "set", "a/b", "1").exit == 0
    if line == "discover watch":
        start_fan("mock", "c.d", "--reply", "1").wait_for("ready")
    process = start_fan(*line.split())
    if line.startswith("mock"):
        process.wait_for("ready")
    else:
        process.wait_for("", stream="stdout")
    process.send(number)
    assert process.wait() == status


def test_every_row_is_tried_here() -> None:
    tried = {*ENDS, *SAID.values(), 1, 8, 10, 130, 141, 143}
    assert tried == {int(code) for code in MEANINGS}
