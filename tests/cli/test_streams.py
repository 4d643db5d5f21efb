"""stdin, stdout and signals: closed, full, cut off, and interrupted in the middle of a call."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import HANG, envelope

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Demo, Fan, Ran

Shell = Callable[..., "Ran"]
Start = Callable[..., "subprocess.Popen[bytes]"]


def test_a_closed_stdin_is_no_failure(shell: Shell, demo: Demo) -> None:
    assert shell('"$@" call greeter.hello <&-').stdout == '"Hello World"\n'
    ran = shell('"$@" call greeter.hello -d - <&-')
    assert ran.exit == 2
    assert "stdin is closed" in ran.stderr


def test_stdin_is_not_read_unasked(shell: Shell, demo: Demo) -> None:
    ran = shell('printf "1\\n2\\n" | while read -r n; do "$@" call greeter.add a=$n b=1; done')
    assert ran.stdout == "2\n3\n"


@pytest.mark.parametrize("line", ['"$@" call greeter.hello', '"$@" --help', '"$@" --version'])
def test_a_full_disk_is_exit_1(shell: Shell, demo: Demo, line: str) -> None:
    ran = shell(f"{line} >/dev/full")
    assert ran.exit == 1
    assert ran.stderr == "fan: cannot write to stdout: No space left on device\n"


def test_a_failure_that_cannot_be_printed_is_exit_1(shell: Shell, demo: Demo) -> None:
    said = "fan: cannot write to stdout: No space left on device\n"
    for args in ("call greeter.boom", "call greeter", "nonsense"):
        assert shell(f'"$@" --json {args} >/dev/full') == (1, "", said)


def test_a_file_that_cannot_be_written_is_named(fan: Fan, demo: Demo) -> None:
    ran = fan("call", "greeter.hello", "-o", "/dev/full")
    assert ran == (1, "", "fan: cannot write to /dev/full: No space left on device\n")


def test_a_place_that_takes_no_file_is_said_before_anything_is_sent(
    fan: Fan, private: Path
) -> None:
    places = {private: "it is a folder", private / "a" / "b": "there is no such folder"}
    for place, why in places.items():
        ran = fan("call", "greeter.hello", "-o", str(place))
        assert (ran.exit, ran.stdout) == (2, "")
        assert ran.stderr.startswith(f"fan: usage: -o {place}: cannot be written: {why}\n")


def test_a_closed_stdout_is_exit_1(shell: Shell, demo: Demo) -> None:
    assert shell('"$@" call greeter.hello >&-').exit == 1
    assert shell('"$@" push greeter.hello >&-').exit == 0


def test_a_closed_stderr_changes_nothing(shell: Shell, demo: Demo) -> None:
    assert shell('"$@" call greeter.hello -v 2>&-') == (0, '"Hello World"\n', "")
    assert shell('"$@" call greeter.boom 2>&-').exit == 5


def test_head_ends_a_stream_with_141(shell: Shell, demo: Demo) -> None:
    ran = shell('"$@" call greeter.count n=100000000 | head -1; exit "${PIPESTATUS[0]}"')
    assert ran == (141, "0\n", "")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_slow_call(
    start: Start, demo: Demo, number: signal.Signals, status: int
) -> None:
    process = start("call", "greeter.slow", "s=40", "--timeout", "45s", "-v")
    assert process.stderr is not None
    while b"address" not in process.stderr.readline():
        pass  # the last line before it is sent
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=HANG)
    assert (process.returncode, stdout, stderr) == (status, b"", b"")


HELD = """
import sys, time
from fan import Service, rpc

class Held(Service):
    name = "held"
    version = "1.0.0"

    @rpc
    def wait(self) -> None:
        sys.stderr.write("here\\n")
        sys.stderr.flush()
        time.sleep(40)

    @rpc
    async def later(self) -> None:
        import asyncio
        sys.stderr.write("here\\n")
        sys.stderr.flush()
        await asyncio.sleep(40)
"""


@pytest.mark.parametrize("method", ["wait", "later"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_call_that_runs_in_this_process(
    start: Start, private: Path, number: signal.Signals, status: int, method: str
) -> None:
    (private / "held.py").write_text(HELD)
    peer = f"local:{private}/held.py"
    process = start("call", f"held.{method}", "-p", peer, "--timeout", "45s")
    assert process.stderr is not None
    assert process.stderr.readline() == b"here\n"
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=HANG)
    assert (process.returncode, stdout, stderr) == (status, b"", b"")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_stream(
    start: Start, demo: Demo, number: signal.Signals, status: int
) -> None:
    process = start("call", "greeter.count", "n=100000000")
    assert process.stdout is not None
    assert process.stdout.readline() == b"0\n"
    process.send_signal(number)
    _, stderr = process.communicate(timeout=HANG)
    assert (process.returncode, stderr) == (status, b"")


def test_an_interrupted_call_with_json_still_prints_its_object(start: Start, demo: Demo) -> None:
    process = start("call", "greeter.slow", "s=40", "--timeout", "45s", "-v", "--json")
    assert process.stderr is not None
    while b"address" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGTERM)
    stdout, _ = process.communicate(timeout=HANG)
    assert b'"code":"cancelled"' in stdout
    assert process.returncode == 143


def test_bare_fan_prints_help_on_stderr(fan: Fan) -> None:
    for args in ((), ("--json",), ("discover",)):
        ran = fan(*args)
        assert ran.exit == 2
        assert ("Commands:" in ran.stderr) is ("--json" not in args)
        assert ran.stdout == "" or envelope(ran)["ok"] is False


def test_an_unknown_command_is_a_usage_error(fan: Fan) -> None:
    ran = fan("cal", "x.y")
    assert (ran.exit, ran.stdout) == (2, "")
    assert ran.stderr == "fan: usage: no such command: cal\nhint: did you mean call?\n"


def test_a_bug_is_one_line_and_a_traceback_only_when_asked_for(
    fan: Fan, private: pytest.TempPathFactory
) -> None:
    # A package that breaks what the command imports stands for a bug.
    broken = str(private)
    with open(f"{broken}/sitecustomize.py", "w") as file:
        file.write("import fancli.params\ndel fancli.params.check_peers\n")
    from tests.cli.conftest import variables

    path = f"{broken}:{variables().get('PYTHONPATH', '')}".rstrip(":")
    ran = fan("call", "a.b", PYTHONPATH=path)
    assert ran.exit == 1
    assert ran.stderr.startswith("fan: bug: ImportError")
    assert "Traceback" not in ran.stderr
    assert "Traceback" in fan("call", "a.b", PYTHONPATH=path, FAN_DEBUG="1").stderr
