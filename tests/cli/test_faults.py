"""Faults around the program: noise on its sockets, a registry that is not as it should be."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import HANG, PROGRAM, Ran, envelope, variables

if TYPE_CHECKING:
    from tests.cli.conftest import Demo, Fan

Start = Callable[..., subprocess.Popen[bytes]]

NOISE = {
    "garbage": b"\xff\x00garbage" * 100,
    "half a frame": b"fanipc\x01\x00\x00\x00\x01",
    "half a request": b"POST /rpc/greeter/hello HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b'Content-Length: 100\r\n\r\n{"na',
}


def until_ready(process: subprocess.Popen[bytes]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if line == b"ready\n":
            return
    raise AssertionError("it ended before it was ready")


def is_one_line(ran: Ran, status: int, code: str) -> bool:
    """Whether it failed as promised: a status, a sentence, nothing on stdout."""
    assert (ran.exit, ran.stdout) == (status, ""), ran
    assert ran.stderr.startswith(f"fan: {code}: "), ran
    assert "Traceback" not in ran.stderr
    return len([line for line in ran.stderr.splitlines() if not line.startswith("hint: ")]) == 1


@pytest.mark.parametrize("transport", ["ipc", "http"])
@pytest.mark.parametrize("noise", NOISE)
def test_noise_on_a_socket_does_not_reach_the_next_call(
    fan: Fan, demo: Demo, transport: str, noise: str
) -> None:
    url = fan("discover", "resolve", "greeter", "-t", transport).stdout.strip()
    where = url.removeprefix("unix://").removeprefix("http://")
    if transport == "ipc":
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(where)
    else:
        host, _, port = where.rpartition(":")
        peer = socket.create_connection((host, int(port)))
    with peer:
        peer.settimeout(HANG)
        peer.sendall(NOISE[noise])
        # While the other side still waits for the rest, and after it was told that none comes.
        assert fan("call", "greeter.hello", "-t", transport).stdout == '"Hello World"\n'
        peer.shutdown(socket.SHUT_WR)
        try:
            while peer.recv(65536):
                pass
        except ConnectionResetError:
            pass
    assert fan("call", "greeter.hello", "-t", transport).stdout == '"Hello World"\n'


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Somebody who began to write and stays there."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        yield
        db.execute("ROLLBACK")


@pytest.fixture
def used(fan: Fan, start: Start, private: Path, registry_url: str) -> Path:
    """A registry file in which greeter was registered, by a process that is gone."""
    server = start("serve", "fan.demo.v1")
    until_ready(server)
    server.terminate()
    server.communicate(timeout=HANG)
    return private / "registry.db"


def test_a_registry_that_a_stuck_process_locked_ends_a_write_in_time(fan: Fan, used: Path) -> None:
    with locked(used):
        ran = fan("serve", "fan.demo.v1", "--timeout", "200ms")
        assert is_one_line(ran, 6, "deadline_exceeded")
        assert str(used) in ran.stderr
        assert fan("discover", "list").stdout.startswith("greeter\t1.0.0")


def test_a_registry_of_a_newer_schema_is_refused(fan: Fan, used: Path) -> None:
    with closing(sqlite3.connect(used)) as db:
        db.execute("PRAGMA user_version = 99")
    for args in (("call", "greeter.hello"), ("discover", "list"), ("serve", "fan.demo.v1")):
        assert is_one_line(fan(*args), 4, "failed_precondition")


def test_a_registry_that_does_not_exist_reads_as_empty_and_is_not_made(
    fan: Fan, private: Path
) -> None:
    lost = private / "no" / "where"
    vars = {"FAN_REGISTRY": f"sqlite:{lost}/registry.db"}
    assert fan("discover", "list", "-q", **vars) == (0, "", "")
    assert fan("discover", "watch", "--once", **vars).exit == 0
    assert is_one_line(fan("call", "greeter.hello", **vars), 3, "not_found")
    ran = fan("serve", "fan.demo.v1", **vars)
    assert is_one_line(ran, 4, "failed_precondition")
    assert f"there is no folder {lost}" in ran.stderr
    assert not lost.parent.exists()


def test_the_default_registrys_folder_is_made_by_whoever_serves(
    fan: Fan, start: Start, private: Path
) -> None:
    assert fan("discover", "list", "-q") == (0, "", "")
    assert not (private / "data_home" / "fan").exists()
    until_ready(start("serve", "fan.demo.v1"))
    assert fan("call", "greeter.hello").stdout == '"Hello World"\n'


#: Runs the program as somebody whom permissions bind. Everything is imported before the change,
#: since the interpreter may lie where that user cannot look.
AS_NOBODY = """
import os, pkgutil, sys
import fan, fancli
for package in fan, fancli:
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if "testing" not in module.name and "__main__" not in module.name:
            __import__(module.name)
import sqlite3, traceback
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
from fancli.main import run
run()
"""


def as_nobody(*args: str) -> Ran:
    done = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", AS_NOBODY, *args], stdin=subprocess.DEVNULL,
        env=variables(), capture_output=True, timeout=HANG, check=False,
    )  # fmt: skip
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_a_registry_that_may_not_be_written_is_read_and_refuses_a_service(
    fan: Fan, used: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = used.parent
    runtime = folder / "run"
    runtime.mkdir()
    monkeypatch.setenv("FAN_RUNTIME_DIR", str(runtime))
    if os.geteuid() == 0:
        os.chown(runtime, 65534, 65534)
    for path in [*folder.glob("registry.db*"), folder]:
        path.chmod(0o555)
    try:
        assert as_nobody("discover", "list").stdout.startswith("greeter\t1.0.0")
        assert is_one_line(as_nobody("call", "greeter.hello"), 6, "unavailable")
        ran = as_nobody("serve", "fan.demo.v1")
        assert is_one_line(ran, 4, "permission_denied")
        assert str(folder) in ran.stderr
    finally:
        folder.chmod(0o755)


def test_a_disk_that_takes_no_more_is_said_and_can_be_retried(
    fan: Fan, used: Path, start: Start
) -> None:
    limited = f"ulimit -f {used.stat().st_size // 1024 - 8}; trap '' XFSZ; exec \"$@\""
    done = subprocess.run(
        ["bash", "-c", limited, "bash", *PROGRAM, "serve", "fan.demo.v1"], env=variables(),
        stdin=subprocess.DEVNULL, capture_output=True, timeout=HANG, check=False,
    )  # fmt: skip
    ran = Ran(done.returncode, done.stdout.decode(), done.stderr.decode())
    # 7 where the disk failed in the middle of a commit: whether it is in the log is not known.
    assert ran.exit in (6, 7), ran
    assert is_one_line(ran, ran.exit, "unavailable")
    assert fan("discover", "list").stdout.startswith("greeter\t1.0.0")
    until_ready(start("serve", "fan.demo.v1"))
    assert fan("call", "greeter.hello").exit == 0


def test_a_late_reply_is_said_of_the_budget_that_was_given(fan: Fan, demo: Demo) -> None:
    for transport in ("ipc", "http"):
        args = ("call", "greeter.slow", "s=30", "--timeout", "2s", "-t", transport)
        said = "fan: deadline_exceeded: greeter.slow: no reply within 2s (executed: maybe)\n"
        assert fan(*args, "-q") == (7, "", said)
        found = envelope(fan(*args, "--json"))
        timing = found["timing_ms"]
        assert found["error"]["message"] == "no reply within 2s"
        assert timing["wait"] > timing["decode"], "the time went by in waiting"


def test_a_version_that_is_none_is_usage(fan: Fan, demo: Demo) -> None:
    ran = fan("call", "greeter.hello@banana", "--json")
    assert (ran.exit, envelope(ran)["error"]["reason"]) == (2, "bad_version")


TYPED = """
import dataclasses
from fan import Service, rpc

@dataclasses.dataclass
class Place:
    city: str
    code: int = 0

class Post(Service):
    name = "post"
    version = "1.0.0"

    @rpc
    def send(self, to: Place, count: int = 1) -> str:
        return to.city
"""


def test_a_type_of_the_services_own_is_described_and_can_be_filled_in(
    fan: Fan, start: Start, private: Path, registry_url: str
) -> None:
    (private / "post.py").write_text(TYPED)
    until_ready(start("serve", str(private / "post.py")))
    shown = fan("discover", "describe", "post.send").stdout
    assert "  Place: {city: string, code: integer = 0}\n" in shown
    skeleton = fan("discover", "describe", "post.send", "--skeleton").stdout
    assert json.loads(skeleton) == {"to": {"city": "", "code": 0}, "count": 1}
    assert fan("call", "post.send", "-d", skeleton).exit == 0
    refused = fan("call", "post.send", "to=Rome").stderr
    assert "hint: fan discover describe post.send" in refused
