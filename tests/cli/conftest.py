"""The program as a user meets it: a subprocess, its exit status and its two streams; and a demo."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ
from typing import Any, NamedTuple, Protocol

import pytest

from tests.cli.brokers import NOWHERE, Shop

#: The program, found from any folder.
PROGRAM = (sys.executable, "-P", "-m", "fancli")
#: Seconds after which a program that hangs is given up: far more than any takes.
HANG = 50


class Ran(NamedTuple):
    """How a run ended."""

    exit: int
    stdout: str
    stderr: str


class Fan(Protocol):
    """`fan("call", "greeter.hello")`."""

    def __call__(
        self, *args: str, stdin: bytes | None = None, cwd: Path | None = None, **vars: str
    ) -> Ran: ...


def variables(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's variables, so that the program is found from any folder."""
    found = {**os.environ, **(extra or {})}
    if path := found.get("PYTHONPATH"):
        found["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, path.split(os.pathsep)))
    return found


@pytest.fixture
def fan() -> Fan:
    """Run the program to its end; stdin is empty unless given."""

    def run(*args: str, stdin: bytes | None = None, cwd: Path | None = None, **vars: str) -> Ran:
        done = subprocess.run(
            [*PROGRAM, *args], input=stdin or b"", cwd=cwd, env=variables(vars),
            capture_output=True, timeout=HANG, check=False,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture
def shell() -> Callable[..., Ran]:
    """Run the program from a shell line, in which "$@" is the program."""

    def run(line: str, **vars: str) -> Ran:
        done = subprocess.run(
            ["bash", "-c", line, "bash", *PROGRAM], stdin=subprocess.DEVNULL,
            env=variables(vars), capture_output=True, timeout=HANG, check=False,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture
def on_terminal() -> Callable[..., Ran]:
    """Run the program with stdout on a terminal of `columns`; stderr stays apart."""

    def run(*args: str, columns: int = 80, **vars: str) -> Ran:
        ours, theirs = pty.openpty()
        ioctl(theirs, TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        with tempfile.TemporaryFile() as talk:
            process = subprocess.Popen(
                [*PROGRAM, *args], stdin=subprocess.DEVNULL, stdout=theirs, stderr=talk,
                env=variables({"TERM": "xterm", **vars}),
            )  # fmt: skip
            os.close(theirs)
            try:
                shown = _drain(ours)
                status = process.wait(HANG)
            finally:
                process.kill()
                process.wait()
                os.close(ours)
            talk.seek(0)
            return Ran(status, shown.decode().replace("\r\n", "\n"), talk.read().decode())

    return run


@pytest.fixture
def screen() -> Callable[..., Ran]:
    """Run the program with stdin, stdout and stderr on one terminal; what it shows is stdout."""

    def run(*args: str, columns: int = 80, keys: bytes = b"", **vars: str) -> Ran:
        ours, theirs = pty.openpty()
        ioctl(theirs, TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = subprocess.Popen(
            [*PROGRAM, *args], stdin=theirs, stdout=theirs, stderr=theirs,
            env=variables({"TERM": "xterm", **vars}), start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        try:
            os.write(ours, keys)
            shown = _drain(ours)
            return Ran(process.wait(HANG), shown.decode().replace("\r\n", "\n"), "")
        finally:
            process.kill()
            process.wait()
            os.close(ours)

    return run


def _drain(fd: int) -> bytes:
    """Everything until the other side closes."""
    data = b""
    while select.select([fd], [], [], HANG)[0]:
        try:
            chunk = os.read(fd, 65536)
        except OSError:  # Linux: the last user of the other side is gone
            break
        if not chunk:
            break
        data += chunk
    return data


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start the program and leave it running; what still runs at the end is killed."""
    running: list[subprocess.Popen[bytes]] = []

    def run(*args: str, **vars: str) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [*PROGRAM, *args], stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe,
            env=variables(vars),
        )  # fmt: skip
        running.append(process)
        return process

    yield run
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


class Demo(NamedTuple):
    """A running `fan demo`: the registry's URL and where version 1.0.0 answers over http."""

    registry: str
    url: str


@pytest.fixture(scope="module")
def running_demo() -> Iterator[Demo]:
    """`fan demo` on a registry of its own, for all tests of a module."""
    folder = Path(tempfile.mkdtemp(prefix="fan-"))
    registry = f"sqlite:{folder / 'registry.db'}"
    run = {"FAN_REGISTRY": registry, "FAN_RUNTIME_DIR": str(folder / "run")}
    process = subprocess.Popen(
        [*PROGRAM, "demo"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, env=variables(run),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        found = subprocess.run(
            [*PROGRAM, "discover", "resolve", "greeter", "-t", "http"], env=variables(run),
            capture_output=True, timeout=HANG, check=True,
        )  # fmt: skip
        yield Demo(registry, found.stdout.decode().strip())
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=HANG)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def demo(running_demo: Demo, monkeypatch: pytest.MonkeyPatch) -> Demo:
    """The module's demo, as the registry in force."""
    monkeypatch.setenv("FAN_REGISTRY", running_demo.registry)
    return running_demo


@pytest.fixture
def broker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The transport of the settings' queue: the test's parameter, by default `database`; the other
    brokers are nowhere."""
    name: str = getattr(request, "param", "database")
    for variable, url in NOWHERE.items():
        monkeypatch.setenv(variable, url)
    if name == "redis":
        monkeypatch.setenv("FAN_REDIS_URL", request.getfixturevalue("redis_server").url)
    if name == "amqp":
        monkeypatch.setenv("FAN_AMQP_URL", request.getfixturevalue("rabbitmq_server").url)
    monkeypatch.setenv("FAN_QUEUE", name)
    return name


@pytest.fixture
def shop(
    start_fan: Callable[..., Any], fan: Fan, private: Path, registry_url: str, broker: str
) -> Shop:
    """A service with pushes and events over the broker, on a registry of its own."""
    folder = private / "project"
    folder.mkdir()
    return Shop(start_fan, fan, folder, broker)


def envelope(ran: Ran) -> dict[str, Any]:
    """The one JSON object on stdout."""
    import json

    assert ran.stdout.count("\n") == 1, ran
    found: dict[str, Any] = json.loads(ran.stdout)
    return found
