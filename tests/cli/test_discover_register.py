"""`fan discover register` and `import`: services that know nothing of fan, or of this fan."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kazoo.client import KazooClient

from fan.tools.servers_ports import free_ports
from tests.cli.conftest import envelope
from tests.configs import ZOOKEEPER

if TYPE_CHECKING:
    from tests.cli.conftest import Fan
    from tests.conftest import FanProcess

#: A program that answers GET with "pong" once it has a line on stdin, or a file is there.
SERVER = """
import os, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "4")
        self.end_headers()
        self.wfile.write(b"pong")
    def log_message(self, *args):
        pass

while len(sys.argv) > 2 and not os.path.exists(sys.argv[2]):
    time.sleep(0.01)
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""

FILE = """
services:
  - name: web
    version: "1.0.0"
    addr: http://127.0.0.1:%{PORT}
    methods: [{name: ping, url: /ping/}]
"""

pytestmark = pytest.mark.usefixtures("registry_url")


@pytest.fixture
def port() -> int:
    (found,) = free_ports(1)
    return found


@pytest.fixture
def program(private: Path, port: int) -> tuple[str, ...]:
    path = private / "server.py"
    path.write_text(SERVER)
    return (sys.executable, str(path), str(port))


@pytest.fixture
def described(private: Path) -> str:
    path = private / "services.yaml"
    path.write_text(FILE)
    return str(path)


def instances(fan: Fan) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = envelope(fan("discover", "show", "web", "--json"))["instances"]
    return found


def test_a_described_service_is_called_while_its_program_runs_and_gone_with_it(
    fan: Fan,
    start_fan: Callable[..., FanProcess],
    program: tuple[str, ...],
    described: str,
    port: int,
) -> None:
    held = start_fan("discover", "register", "-f", described, "--", *program, PORT=str(port))
    held.wait_for("up: web/")
    assert fan("call", "web.ping", "-r").stdout == "pong\n"
    assert "ping() -> any" in fan("discover", "describe", "web").stdout
    assert fan("call", "web.health").exit == 3
    held.send(signal.SIGTERM)
    assert held.wait() == 143
    assert instances(fan) == []
    assert fan("call", "web.ping").exit == 6


def test_it_is_starting_until_its_address_can_be_reached(
    fan: Fan,
    start_fan: Callable[..., FanProcess],
    program: tuple[str, ...],
    private: Path,
    port: int,
) -> None:
    flag = private / "go"
    url = f"http://127.0.0.1:{port}"
    held = start_fan("discover", "register", "web", "--version", "1.0.0", "--addr", url, "--",
                     *program, str(flag))  # fmt: skip
    held.wait_for("registered web")
    assert [each["state"] for each in instances(fan)] == ["starting"]
    flag.touch()
    held.wait_for("up: web/")
    assert [each["state"] for each in instances(fan)] == ["up"]
    held.kill()
    assert instances(fan) == []


@pytest.mark.parametrize(("code", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_the_exit_status_of_the_program_is_passed_on(fan: Fan, code: str, status: int) -> None:
    ran = fan("discover", "register", "web", "--version", "1.0.0", "--addr", "http://127.0.0.1:1",
              "--", "sh", "-c", code)  # fmt: skip
    assert (ran.exit, ran.stdout) == (status, "")


def test_an_openapi_file_describes_the_methods(fan: Fan, private: Path) -> None:
    path = private / "api.json"
    path.write_text(json.dumps({
        "openapi": "3.1.0", "info": {"version": "2.0.0"}, "servers": [{"url": "http://h:1"}],
        "paths": {"/x/{id}": {"get": {"operationId": "getX"}}},
    }))  # fmt: skip
    made = envelope(fan("discover", "register", "web", "--openapi", str(path), "--json"))
    assert (made["version"], made["addresses"]) == ("2.0.0", ["http://h:1"])
    dry = envelope(fan("call", "web.getX", "id=7", "--dry-run", "--json"))
    assert dry["request"]["body"] == {"id": "7"}


@pytest.mark.parametrize(
    "args",
    [
        (), ("web",), ("web", "--version", "1"), ("web", "--addr", "http://h:1"),
        ("web", "--version", "x", "--addr", "http://h:1"),
        ("web", "--version", "1", "--addr", "h:1"), ("-f", "/nowhere"), ("web", "-f", "x"),
        ("-f", "/dev/null"),
        ("web", "--version", "1", "--addr", "http://me:hunter2@h:1"),
        ("web", "--version", "1", "--addr", "amqp://me:hunter2@h/"),
        ("web", "--openapi", "/nowhere"), ("web", "--version", "1", "--addr", "http://h:1", "--"),
    ],
)  # fmt: skip
def test_a_mistake_registers_nothing(fan: Fan, args: tuple[str, ...]) -> None:
    ran = fan("discover", "register", *args)
    assert (ran.exit, ran.stdout) == (2, "")
    assert "hunter2" not in ran.stderr
    assert fan("discover", "list").stdout == ""


# While the registry is down


@pytest.fixture(params=["sqlite", ZOOKEEPER])
def take_away(
    request: pytest.FixtureRequest, private: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], None]:
    """What takes the registry in force away."""
    if request.param == "zookeeper":
        server = request.getfixturevalue("new_zookeeper")()
        monkeypatch.setenv("FAN_REGISTRY", server.url)
        return lambda: server.kill()
    # The folder of the registry is exchanged, at once, for one where it is no file.
    for name, folder in (("link", "there"), ("broken", "away")):
        (private / folder).mkdir()
        (private / name).symlink_to(private / folder)
    (private / "away" / "registry.db").mkdir()
    monkeypatch.setenv("FAN_REGISTRY", f"sqlite:{private}/link/registry.db")
    return lambda: os.replace(private / "broken", private / "link")


@pytest.mark.timeout(400)  # many commands, each of which waits for a registry that is not there
def test_what_was_read_answers_while_the_registry_is_down(
    fan: Fan,
    start_fan: Callable[..., FanProcess],
    private: Path,
    take_away: Callable[[], None],
) -> None:
    (private / "one.py").write_text(
        "from fan import Service, rpc\nclass One(Service):\n    name = 'one'\n"
        "    @rpc\n    def ok(self) -> str:\n        return 'ok'\n"
    )
    start_fan("serve", "one", cwd=private).wait_for("ready")
    fan("config", "set", "a/b", "v")
    ways = (
        ("discover", "list"),
        ("discover", "show", "one"),
        ("discover", "describe", "one"),
        ("discover", "resolve", "one"),
        ("call", "one.ok"),
        ("config", "get", "a/b"),
    )
    before = [fan(*way) for way in ways]
    assert all(ran.exit == 0 for ran in before)
    take_away()
    for way, was in zip(ways, before, strict=True):
        ran = fan(*way)
        assert (ran.exit, ran.stdout) == (0, was.stdout), way
        assert "cannot be reached" in ran.stderr
        told = json.loads(fan(*way, "--json").stdout.splitlines()[0])
        assert told["stale"] is True
        assert 0 <= told["age_s"] < 300
        assert fan(*way, "--fresh", "--timeout", "1s").exit == 6
        assert fan(*way, "--max-stale", "1ms", "--timeout", "1s").exit == 6
    writes = (("config", "set", "a/b", "w"), ("discover", "gc"), ("discover", "drain", "one@0"))
    for write in writes:
        ran = fan(*write, "--timeout", "1s")
        assert (ran.exit, ran.stdout) == (6, ""), write


# From an older kit


LEGACY = {
    "/endpoints/web/1.2.0/config_0000000001": {
        "transport": "http", "host": "127.0.0.1", "port": 8080,
        "methods": [{"name": "ping", "method": "GET", "url": "/ping/{id}",
                     "content_type": "application/json"}],
    },
    "/endpoints/a/b/1.0.0/config_0000000007": {"transport": "http", "host": "h", "port": 1},
    "/endpoints/a/b/1.0.0/barrier": {},
    "/endpoints/old/1.0.0/config_0000000001": {"transport": "redis", "queue": "q"},
    "/endpoints/bad/1.0.0/config_0000000001": None,
}  # fmt: skip


@pytest.mark.zookeeper
def test_what_an_older_kit_registered_is_taken_over_once(fan: Fan, zookeeper_server: Any) -> None:
    hosts = zookeeper_server.url.removeprefix("zk://").partition("/")[0]
    chroot = f"/legacy-{os.getpid()}"
    client = KazooClient(hosts)
    client.start(30)
    try:
        for path, body in LEGACY.items():
            data = b"{" if body is None else json.dumps(body).encode()
            client.create(chroot + path, data, makepath=True)
    finally:
        client.stop()
        client.close()
    args = ("discover", "import", "--legacy", "--from", f"zk://{hosts}{chroot}", "--json")
    dry = fan(*args, "--dry-run")
    assert dry.exit == 9
    assert fan("discover", "list").stdout == ""
    rows = {json.loads(line)["path"].removeprefix(chroot) for line in dry.stdout.splitlines()}
    assert rows == LEGACY.keys() - {"/endpoints/a/b/1.0.0/barrier"}
    assert fan(*args).stdout == dry.stdout
    again = [json.loads(line)["outcome"] for line in fan(*args).stdout.splitlines()]
    assert [each.partition(":")[0] for each in again] == [
        "unchanged", "skipped", "skipped", "unchanged",
    ]  # fmt: skip
    shown = envelope(fan("discover", "show", "a.b", "--json"))
    assert [each["addresses"] for each in shown["instances"]] == [["http://h:1"]]
    dry_call = fan("call", "web.ping", "id=7", "--dry-run", "--json")
    assert envelope(dry_call)["address"] == "http://127.0.0.1:8080"
    assert fan("discover", "import", "--legacy").exit == 2
