"""`fan config watch`: events that survive a kill, files that are whole, commands that are run."""

from __future__ import annotations

import itertools
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fan import App, Configs
from fan.stores.base import RETENTION, Change, Plan, Store
from tests.configs import BOTH, PATIENCE, open_store, wipe

if TYPE_CHECKING:
    from tests.cli.conftest import Fan
    from tests.conftest import FanProcess

Start = Callable[..., "FanProcess"]


@pytest.fixture
def store(registry_url: str) -> Iterator[Store]:
    with open_store(registry_url) as store:
        yield store


@pytest.fixture
def config(store: Store) -> Configs:
    """The registry of the program, from here."""
    return Configs(lambda: store, live=False, timeout=PATIENCE)


def events(process: FanProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.stdout]


def lines(path: Path, count: int) -> list[str]:
    """The lines of a file, once there are so many."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists() or len(path.read_text().splitlines()) < count:
        assert time.monotonic() < deadline, path.exists() and path.read_text()
        time.sleep(0.005)
    return path.read_text().splitlines()


@BOTH
def test_the_present_value_and_then_every_change(config: Configs, start_fan: Start) -> None:
    config.set("a/k", "one")
    process = start_fan("config", "watch", "a/k", "b/")
    process.wait_for('"b/"', "stdout")
    config.set("a/k", {"x": 1})
    config.set("other", 1)
    config.set("b/k", "two")
    config.delete("a/k")
    process.wait_for('"delete"', "stdout")
    process.send(signal.SIGINT)
    assert process.wait() == 130
    found = events(process)
    for event in found[1:]:
        epoch, gen, _ = event.pop("cursor").split(":")
        assert epoch
        assert int(gen) == event["gen"]
    assert found == [
        {"event": "snapshot", "key": "a/k", "value": "one", "rev": 1, "gen": 1},
        {"event": "snapshot", "key": "b/", "value": {}, "rev": 0, "gen": 1},
        {"event": "set", "key": "a/k", "value": {"x": 1}, "rev": 2, "gen": 2},
        {"event": "set", "key": "b/k", "value": "two", "rev": 4, "gen": 4},
        {"event": "delete", "key": "a/k", "rev": 5, "gen": 5},
    ]


def test_once_ends_with_what_is_there(fan: Fan, config: Configs) -> None:
    config.set("k", 1)
    ran = fan("config", "watch", "k", "--once", "--json")
    assert ran.exit == 0
    cursor = json.loads(ran.stdout)["cursor"]
    config.set("k", 2)
    config.set("k", 3)
    after = fan("config", "watch", "k", "--once", "--since", cursor)
    assert [json.loads(line)["value"] for line in after.stdout.splitlines()] == [2, 3]
    newest = fan("config", "watch", "k", "--once", "--since", cursor, "--latest")
    assert [json.loads(line)["value"] for line in newest.stdout.splitlines()] == [3]


@BOTH
def test_a_watch_that_is_killed_and_resumed_during_500_writes_misses_none(
    fan: Fan, config: Configs, start_fan: Start, private: Path
) -> None:
    watch = ("config", "watch", "k", "--cursor-file", str(private / "cursor"))
    assert fan(*watch, "--once").exit == 0

    def write() -> None:
        for number in range(500):
            config.set("k", number)
            time.sleep(0.004)  # so that the writes go on while the program is started again

    writer = threading.Thread(target=write)
    writer.start()
    runs: list[list[int]] = []
    for is_last in (False, False, False, False, True):
        process = start_fan(*watch)
        process.wait_for('"value"', "stdout", PATIENCE)
        if is_last:
            while events(process)[-1]["value"] < 499:
                process.wait_for('"value"', "stdout", PATIENCE)
        process.kill()
        process.wait()
        runs.append([event["value"] for event in events(process)])
    writer.join(PATIENCE)
    assert runs[0][0] == 0
    for before, after in itertools.pairwise(runs):
        # At least once over a restart: what was being handled at the kill may come again.
        assert after[0] <= before[-1] + 1
    assert all(run == list(range(run[0], run[-1] + 1)) for run in runs)
    assert runs[-1][-1] == 499


@BOTH
def test_a_compacted_history_says_so_and_is_11_with_strict(
    fan: Fan, config: Configs, store: Store
) -> None:
    config.set("k", 0)
    cursor = json.loads(fan("config", "watch", "k", "--once").stdout)["cursor"]
    for number in range(RETENTION + 2):
        plan = Plan(changes=(Change(object="config/k", body=str(number).encode()),), verb="set")
        store.commit(plan, deadline=time.monotonic() + PATIENCE)
    ran = fan("config", "watch", "k", "--once", "--since", cursor)
    assert ran.exit == 0
    assert [json.loads(line)["event"] for line in ran.stdout.splitlines()] == [
        "compacted",
        "snapshot",
    ]
    strict = fan("config", "watch", "k", "--once", "--since", cursor, "--strict")
    assert strict.exit == 11
    assert [json.loads(line)["event"] for line in strict.stdout.splitlines()] == ["compacted"]
    assert "history compacted" in strict.stderr
    assert fan("config", "get", "k", "--gen", "1").exit == 3


def test_a_cursor_of_another_registry_is_a_reset(fan: Fan, config: Configs) -> None:
    config.set("k", 1)
    ran = fan("config", "watch", "k", "--once", "--since", "0123:7:abc")
    assert [json.loads(line)["event"] for line in ran.stdout.splitlines()] == ["reset", "snapshot"]


def test_a_command_is_run_for_each_change(
    config: Configs, start_fan: Start, private: Path
) -> None:
    config.set("k", "one")
    out = private / "out"
    command = f'cat >> {out}; echo "$FAN_EVENT $FAN_KEY=$FAN_VALUE $FAN_REV $FAN_GEN" >> {out}'
    process = start_fan("config", "watch", "k", "--exec", f"{command}; echo talk")
    assert lines(out, 2)[1] == "snapshot k=one 1 1"
    config.set("k", {"a": "b"})
    first, second = lines(out, 4)[2:]
    assert json.loads(first)["value"] == {"a": "b"}
    assert second == 'set k={"a":"b"} 2 2'
    process.wait_for("talk", "stderr")
    process.send(signal.SIGTERM)
    assert process.wait() == 143
    assert all(line.startswith('{"event"') for line in process.stdout)


def test_a_command_that_fails_is_run_again_and_the_cursor_waits(
    config: Configs, start_fan: Start, private: Path
) -> None:
    config.set("k", 1)
    out, cursor = private / "out", private / "cursor"
    command = f"echo tried >> {out}; test -e {private}/go"
    watch = ("config", "watch", "k", "--cursor-file", str(cursor), "--exec", command)
    process = start_fan(*watch)
    lines(out, 2)
    assert not cursor.exists()
    process.kill()
    (private / "go").touch()
    tried = len(lines(out, 2))
    start_fan(*watch)
    lines(out, tried + 1)
    lines(cursor, 1)


def test_once_with_a_command_that_fails_is_5(fan: Fan, config: Configs) -> None:
    config.set("k", 1)
    ran = fan("config", "watch", "k", "--once", "--exec", "exit 3")
    assert ran.exit == 5
    assert "`exit 3` ended with 3" in ran.stderr


def test_a_command_that_hangs_is_killed(fan: Fan, config: Configs, private: Path) -> None:
    config.set("k", 1)
    command = f"sleep 1000 & echo $! > {private}/pid; wait"
    ran = fan("config", "watch", "k", "--once", "--exec", command, "--exec-timeout", "3s")
    assert ran.exit == 5
    (pid,) = lines(private / "pid", 1)
    deadline = time.monotonic() + PATIENCE
    while is_running(int(pid)):  # one that was killed may be a while about it
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_a_template_is_written_as_a_whole_and_the_command_run_after_it(
    config: Configs, start_fan: Start, private: Path
) -> None:
    config.apply({"web/port": 80, "web/names": ["a", "b"], "tls": {"cert": {"path": "/x"}}})
    template, out, ran = private / "web.tpl", private / "web.conf", private / "ran"
    template.write_text(
        "listen ${port} ${web/names} ${cert/path};\n$host $${x} ${none:-default}\n"
    )
    out.write_text("old\n")
    out.chmod(0o640)
    before = out.stat().st_ino
    process = start_fan(
        "config", "watch", "web/", "tls", "--render", str(template), "--out", str(out),
        "--exec", f"cat {out} >> {ran}",
    )  # fmt: skip
    expected = 'listen 80 ["a","b"] /x;\n$host ${x} default\n'
    assert lines(ran, 2) == expected.splitlines()
    assert out.read_text() == expected
    assert out.stat().st_mode & 0o777 == 0o640
    assert out.stat().st_ino != before
    config.apply({"web/port": 81, "web/names": []})
    assert lines(ran, 4)[2] == "listen 81 [] /x;"
    process.send(signal.SIGTERM)
    process.wait()
    assert len(ran.read_text().splitlines()) == 4
    assert sorted(p.name for p in private.iterdir() if p.name.startswith(".")) == []


def test_the_file_follows_what_changed_while_nobody_watched(
    fan: Fan, config: Configs, private: Path
) -> None:
    out, cursor = private / "out", str(private / "cursor")
    watch = ("config", "watch", "k", "--once", "--out", str(out), "--cursor-file", cursor)
    config.set("k", "one")
    assert fan(*watch).exit == 0
    assert out.read_text() == "one"
    config.set("k", "two")
    fan(*watch)
    assert out.read_text() == "two"
    out.unlink()
    fan(*watch)
    assert out.read_text() == "two"


def test_a_template_with_a_config_that_is_missing_leaves_the_file_alone(
    fan: Fan, config: Configs, start_fan: Start, private: Path
) -> None:
    template, out = private / "t", private / "out"
    template.write_text("\n${a/b}\n")
    out.write_text("old")
    watch = ("config", "watch", "a/", "--render", str(template), "--out", str(out))
    ran = fan(*watch, "--once")
    assert ran.exit == 3
    assert "line 2 of the template: no config for ${a/b}" in ran.stderr
    process = start_fan(*watch)
    process.wait_for("it is written when there is one")
    assert out.read_text() == "old"
    config.set("a/b", "new")
    deadline = time.monotonic() + PATIENCE
    while out.read_text() == "old" and time.monotonic() < deadline:
        time.sleep(0.005)
    assert out.read_text() == "\nnew\n"


@BOTH
def test_a_registry_that_is_wiped_under_a_watch_is_a_reset(
    start_fan: Start, registry_url: str
) -> None:
    with open_store(registry_url) as store:
        Configs(lambda: store, live=False).set("k", 1)
    process = start_fan("config", "watch", "k")
    process.wait_for("snapshot", "stdout")
    wipe(registry_url)
    with open_store(registry_url) as store:
        Configs(lambda: store, live=False).set("k", "new")
    process.wait_for('"reset"', "stdout")
    process.wait_for('"new"', "stdout")


def test_an_app_hears_of_what_the_program_sets(fan: Fan, registry_url: str) -> None:
    heard = threading.Event()

    with open_store(registry_url) as store, App(store=store) as app:
        app.config.bind("orders", dict, lambda _: heard.set())
        fan("config", "set", "orders/theme", "dark")
        assert heard.wait(PATIENCE)
        assert app.config["orders/theme"] == "dark"
