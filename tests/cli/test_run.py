"""`fan run`: a program with its configs in the environment, which lives and ends with us."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fan import Configs
from fan.stores.sqlite import SqliteStore
from tests.cli.test_config_watch import is_running, lines
from tests.configs import PATIENCE

if TYPE_CHECKING:
    from tests.cli.conftest import Fan
    from tests.conftest import FanProcess

Start = Callable[..., "FanProcess"]


@pytest.fixture
def config(registry_url: str) -> Iterator[Configs]:
    with SqliteStore(registry_url.partition(":")[2]) as store:
        yield Configs(lambda: store, live=False, timeout=PATIENCE)


def gone(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while is_running(pid):
        assert time.monotonic() < deadline, f"{pid} still runs"
        time.sleep(0.005)


def test_configs_are_variables(fan: Fan, config: Configs) -> None:
    config.apply(
        {"a/theme": "dark blue", "a/db/host-name": "h", "a/list": [1], "a": {"deep": {"x": True}},
         "b/theme": "light"}
    )  # fmt: skip
    script = 'echo "$THEME|$DB_HOST_NAME|$LIST|$DEEP_X|$KEPT"'
    ran = fan("run", "--env", "a/", "--", "sh", "-c", script, KEPT="kept")
    assert ran[:2] == (0, "dark blue|h|[1]|true|kept\n")
    both = fan("run", "--env", "a", "--env", "b", "--", "sh", "-c", "echo $THEME")
    assert both.stdout == "light\n"


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_its_exit_status_is_ours(fan: Fan, config: Configs, script: str, status: int) -> None:
    assert fan("run", "--env", "a/", "--", "sh", "-c", script).exit == status


def test_its_streams_are_ours(fan: Fan, config: Configs) -> None:
    ran = fan("run", "--env", "a/", "--", "sh", "-c", "cat; echo bad >&2", stdin=b"in\n")
    assert ran == (0, "in\n", "bad\n")


def test_a_program_that_is_not_there_is_127(fan: Fan, config: Configs, private: Path) -> None:
    ran = fan("run", "--env", "a/", "--", "/does/not/exist")
    assert (ran.exit, ran.stdout) == (127, "")
    assert "/does/not/exist: No such file" in ran.stderr
    (private / "data").write_text("x")
    assert fan("run", "--env", "a/", "--", str(private / "data")).exit == 126
    assert fan("run", "--env", "a/").exit == 2
    assert fan("run", "--", "true").exit == 2


def test_it_is_started_again_when_its_configs_change(
    config: Configs, start_fan: Start, private: Path
) -> None:
    config.set("a/theme", "one")
    out = private / "out"
    script = (
        f"trap 'echo stopped >> {out}; exit 0' TERM; echo $THEME $$ >> {out};"
        " while :; do sleep 0.05; done"
    )
    process = start_fan("run", "--env", "a/", "--", "sh", "-c", script)
    first = lines(out, 1)[0].split()
    assert first[0] == "one"
    config.set("other", 1)
    config.set("a/theme", "one")
    config.set("a/theme", "two")
    found = lines(out, 3)
    assert found[1] == "stopped"
    assert found[2].split()[0] == "two"
    assert not is_running(int(first[1]))
    process.wait_for("restarting: configs changed")
    process.send(signal.SIGTERM)
    assert process.wait() == 143
    assert lines(out, 4)[3:] == ["stopped"]


def test_one_that_does_not_end_is_killed(
    config: Configs, start_fan: Start, private: Path
) -> None:
    out = private / "out"
    script = f"trap '' TERM; echo $$ $X >> {out}; while :; do sleep 0.05; done"
    process = start_fan("run", "--env", "a/", "--grace", "300ms", "--", "sh", "-c", script)
    pid = int(lines(out, 1)[0])
    config.set("a/x", 1)
    assert lines(out, 2)[1].endswith(" 1")
    assert not is_running(pid)
    last = int(lines(out, 2)[1].split()[0])
    process.send(signal.SIGTERM)
    assert process.wait() == 143
    gone(last)


def test_a_signal_is_passed_on(config: Configs, start_fan: Start, private: Path) -> None:
    out = private / "out"
    script = f"trap 'echo int >> {out}; exit 3' INT; echo up >> {out}; while :; do sleep 0.05; done"
    process = start_fan("run", "--env", "a/", "--", "sh", "-c", script)
    lines(out, 1)
    process.send(signal.SIGINT)
    assert process.wait() == 130
    assert lines(out, 2) == ["up", "int"]


def test_it_never_outlives_us_however_we_die(
    config: Configs, start_fan: Start, private: Path
) -> None:
    out = private / "out"
    script = f"sleep 1000 & echo $! $$ >> {out}; wait"
    process = start_fan("run", "--env", "a/", "--", "sh", "-c", script)
    pids = [int(text) for text in lines(out, 1)[0].split()]
    assert all(map(is_running, pids))
    os.kill(process.pid, signal.SIGKILL)
    for pid in pids:
        gone(pid)


def test_what_it_leaves_behind_holds_nobody_up(fan: Fan, config: Configs, private: Path) -> None:
    script = f"sleep 1000 >/dev/null 2>&1 & echo $! > {private}/pid; exit 4"
    assert fan("run", "--env", "a/", "--", "sh", "-c", script).exit == 4
    os.kill(int((private / "pid").read_text()), signal.SIGKILL)
