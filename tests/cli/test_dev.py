"""`fan dev servers`: servers that outlive the command that started them, and end when told to."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

from fan.testing.servers import require
from fan.tools.servers import PRODUCTS, VARIABLES
from fan.tools.servers_process import born
from tests.cli.conftest import envelope

if TYPE_CHECKING:
    from tests.cli.conftest import Fan, Ran


@pytest.fixture
def servers(fan: Fan, isolated: None) -> Iterator[Callable[..., Ran]]:
    """`servers("start", "redis")` runs `fan dev servers start redis`; all are stopped at the end.
    Each test has a data folder of its own."""

    def run(*args: str, **vars: str) -> Ran:
        return fan("dev", "servers", *args, **vars)

    yield run
    assert run("stop").exit == 0


@pytest.fixture
def redis_is_there(request: pytest.FixtureRequest) -> None:
    require(request.config, "redis")


needs_redis = [pytest.mark.redis, pytest.mark.usefixtures("redis_is_there")]


def status(servers: Callable[..., Ran], name: str) -> dict[str, Any]:
    ran = servers("status", name, "--json")
    assert ran.exit == 0
    row: dict[str, Any] = json.loads(ran.stdout)
    return row


@pytest.mark.redis
@pytest.mark.rabbitmq
@pytest.mark.zookeeper
def test_start_without_a_name_starts_all_and_stop_stops_them(
    servers: Callable[..., Ran], request: pytest.FixtureRequest
) -> None:
    for name in PRODUCTS:
        require(request.config, name)
    started = servers("start")
    assert started.exit == 0
    exports = dict(line.removeprefix("export ").split("=") for line in started.stdout.splitlines())
    assert list(exports) == [VARIABLES[name] for name in PRODUCTS]
    rows = [status(servers, name) for name in PRODUCTS]
    assert [row["state"] for row in rows] == ["up", "up", "up"]
    assert [row["url"] for row in rows] == list(exports.values())
    assert all(f":{row['port']}" in row["url"] and born(row["pid"]) for row in rows)
    stopped = servers("stop", "--json")
    assert stopped.exit == 0
    assert [row["state"] for row in envelope(stopped)["servers"]] == ["down", "down", "down"]
    assert not any(born(row["pid"]) for row in rows)


class TestRedis:
    """The rest on the one that starts at once."""

    pytestmark = needs_redis

    def test_stdout_is_what_a_shell_evaluates(self, servers: Callable[..., Ran]) -> None:
        ran = servers("start", "redis")
        assert ran.stdout.startswith("export FAN_REDIS_URL=redis://127.0.0.1:")
        assert ran.stdout.count("\n") == 1
        assert "redis started" in ran.stderr
        with redis.Redis.from_url(ran.stdout.strip().partition("=")[2]) as client:
            assert client.ping()

    def test_start_is_idempotent(self, servers: Callable[..., Ran]) -> None:
        first, second = (envelope(servers("start", "redis", "--json")) for _ in range(2))
        assert (first["ok"], first["changed"]) == (True, True)
        assert (second["ok"], second["changed"]) == (True, False)
        assert first["export"] == second["export"]
        assert first["servers"][0]["pid"] == second["servers"][0]["pid"]

    def test_starts_at_the_same_time_start_one(self, servers: Callable[..., Ran]) -> None:
        with ThreadPoolExecutor() as pool:
            runs = [pool.submit(servers, "start", "redis", "--json") for _ in range(4)]
        found = [envelope(run.result()) for run in runs]
        assert sorted(one["changed"] for one in found) == [False, False, False, True]
        assert len({one["servers"][0]["pid"] for one in found}) == 1

    def test_stop_is_idempotent(self, servers: Callable[..., Ran]) -> None:
        servers("start", "redis")
        first, second = (servers("stop", "redis", "--json") for _ in range(2))
        assert (first.exit, envelope(first)["changed"]) == (0, True)
        assert (second.exit, envelope(second)["changed"]) == (0, False)

    def test_the_port_and_the_data_are_there_after_a_stop(
        self, servers: Callable[..., Ran]
    ) -> None:
        first = envelope(servers("start", "redis", "--json"))["servers"][0]
        with redis.Redis.from_url(first["url"]) as client:
            client.set("key", "value")
        servers("stop", "redis")
        second = envelope(servers("start", "redis", "--json"))["servers"][0]
        assert second["url"] == first["url"]
        assert second["pid"] != first["pid"]
        with redis.Redis.from_url(second["url"]) as client:
            assert client.get("key") == b"value"

    def test_a_server_that_died_is_down_and_starts_again(self, servers: Callable[..., Ran]) -> None:
        pid = envelope(servers("start", "redis", "--json"))["servers"][0]["pid"]
        os.kill(pid, signal.SIGKILL)
        assert status(servers, "redis")["state"] == "down"
        again = envelope(servers("start", "redis", "--json"))
        assert again["changed"]
        assert status(servers, "redis")["state"] == "up"

    def test_a_server_that_does_not_answer_is_starting(self, servers: Callable[..., Ran]) -> None:
        pid = envelope(servers("start", "redis", "--json"))["servers"][0]["pid"]
        os.kill(pid, signal.SIGSTOP)
        assert status(servers, "redis")["state"] == "starting"
        late = servers("start", "redis", "--timeout", "100ms")
        assert (late.exit, late.stdout) == (6, "")
        assert born(pid), "a start that gives up leaves alone what ran before"
        os.kill(pid, signal.SIGCONT)
        assert servers("start", "redis").exit == 0

    def test_stop_leaves_a_stranger_with_the_servers_old_id_alone(
        self, servers: Callable[..., Ran]
    ) -> None:
        servers("start", "redis")
        servers("stop", "redis")
        record = Path(os.environ["XDG_DATA_HOME"], "fan/servers/redis/server.json")
        kept = json.loads(record.read_text())
        kept["processes"] = {"redis": [os.getpid(), "another boot/1"]}
        record.write_text(json.dumps(kept))
        assert not envelope(servers("stop", "redis", "--json"))["changed"]

    def test_a_failed_start_leaves_stdout_empty_and_no_process(
        self, servers: Callable[..., Ran]
    ) -> None:
        servers("start", "redis")
        servers("stop", "redis")
        folder = Path(os.environ["XDG_DATA_HOME"], "fan/servers/redis")
        manifest = next((folder / "appendonlydir").glob("*.manifest"))
        manifest.write_text("garbage\n")
        failed = servers("start", "redis")
        assert (failed.exit, failed.stdout) == (6, "")
        assert "redis ended while it started" in failed.stderr
        assert status(servers, "redis")["state"] == "down"


def test_status_shows_a_row_for_each_server(servers: Callable[..., Ran]) -> None:
    ran = servers("status", "--headers")
    assert ran.exit == 0
    head, *rows = (line.split("\t") for line in ran.stdout.splitlines())
    assert head == ["name", "state", "pid", "port", "url"]
    assert rows == [[name, "down", "", "", ""] for name in PRODUCTS]


def test_a_server_that_is_not_installed_is_refused_with_what_to_type(
    servers: Callable[..., Ran], private: Path
) -> None:
    ran = servers("start", PATH=str(private))
    assert (ran.exit, ran.stdout) == (4, "")
    assert "apt-get install rabbitmq-server" in ran.stderr
    assert status(servers, "redis")["state"] == "down"
    error = envelope(servers("start", "rabbitmq", "--json", PATH=str(private)))["error"]
    assert (error["code"], error["reason"]) == ("failed_precondition", "server_missing")


def test_an_unknown_name_is_a_usage_error(servers: Callable[..., Ran]) -> None:
    ran = servers("start", "kafka")
    assert (ran.exit, ran.stdout) == (2, "")
    assert "redis" in ran.stderr
