"""`fan version` with those who have to take a change: slow ones, stopped ones, and those who say
no; and the command killed in between."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fan.consumer import registered
from fan.model import Applied
from tests.cli.conftest import PROGRAM, Fan, envelope, variables
from tests.configs import BOTH, open_store
from tests.conftest import FanProcess
from tests.versions import World

pytestmark = BOTH

CALLER = """
from __future__ import annotations

import sys

import msgspec

import fan


class Limits(msgspec.Struct):
    size: int = 1


with fan.App() as app:
    app.discovery.service("shop")
    app.config.bind("shop/limits", Limits)
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def world(private: Path, registry_url: str) -> Iterator[World]:
    with open_store(registry_url) as store:
        world = World(store, private)
        world.register("shop", "1.0.0", "2.0.0")
        world.adopt("shop", "1.0.0")
        yield world
        world.close()


@pytest.fixture
def caller(private: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """A process that uses `shop` and has typed settings of it, until its stdin is closed."""
    path = private / "caller.py"
    path.write_text(CALLER)
    running: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [PROGRAM[0], "-P", str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env=variables(), text=True,
        )  # fmt: skip
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in running:
        process.send_signal(signal.SIGCONT)
        process.communicate()


def test_a_switch_is_confirmed_by_processes(
    fan: Fan, world: World, caller: Callable[[], Any]
) -> None:
    pids = {caller().pid for _ in range(2)}
    told = envelope(fan("version", "switch", "shop=2", "--json"))
    assert {each["pid"] for each in told["confirmed"]["applied"]} == pids
    assert {each["gen"] for each in told["confirmed"]["applied"]} == {told["gen"]}
    assert "confirmed 2/2" in fan("version", "rollback").stderr


def test_who_does_not_come_is_listed_and_the_exit_is_9(fan: Fan, world: World) -> None:
    session = world.consumer("shop")
    ran = fan("version", "switch", "shop=2", "--confirm-timeout", "200ms", "--json")
    told = envelope(ran)
    assert (ran.exit, told["ok"], told["changed"], told["gen"]) == (9, False, True, 2)
    (silent,) = told["confirmed"]["pending"]
    assert (silent["host"], silent["pid"], silent["gen"]) == ("there", 7, 0)
    assert (told["error"]["reason"], told["error"]["exit"]) == ("not_confirmed", 9)
    assert told["undo"] == "fan version rollback 2"
    ran = fan("version", "wait", "--gen", "2", "--confirm-timeout", "200ms")
    assert (ran.exit, ran.stdout) == (9, "")
    assert "pending: silent host there pid 7 at generation 0" in ran.stderr
    session.close()
    assert fan("version", "wait", "--gen", "2").exit == 0


def test_a_stopped_process_is_listed_and_the_others_are_brought_back(
    fan: Fan, world: World, caller: Callable[[], Any]
) -> None:
    stopped, other = caller(), caller()
    stopped.send_signal(signal.SIGSTOP)
    ran = fan(
        "version", "switch", "shop=2", "--auto-rollback", "--confirm-timeout", "1s", "--json"
    )
    told = envelope(ran)
    assert (ran.exit, told["error"]["reason"]) == (12, "auto_rollback")
    assert [each["pid"] for each in told["confirmed"]["pending"]] == [stopped.pid]
    assert [each["pid"] for each in told["confirmed"]["applied"]] == [other.pid]
    assert world.routed("shop") == {"1.0.0": 10_000}
    found = envelope(fan("version", "status", "--json"))
    states = {each["pid"]: (each["gen"], each["state"]) for each in found["subscribers"]}
    assert states[other.pid] == (told["rolled_back"], "current")
    assert states[stopped.pid][1] == "behind"
    stopped.send_signal(signal.SIGCONT)
    assert fan("version", "wait").exit == 0


def test_a_refusal_with_and_without_being_asked(
    fan: Fan, world: World, caller: Callable[[], Any]
) -> None:
    process = caller()
    args = ("version", "switch", "shop=2", "--config", "shop/limits/size=large", "--json")
    ran = fan(*args, "--prepare")
    told = envelope(ran)
    assert (ran.exit, told["error"]["code"], told["error"]["reason"]) == (12, "aborted", "nack")
    assert world.gen() == 1
    ran = fan(*args)
    told = envelope(ran)
    assert (ran.exit, told["changed"]) == (9, True)
    (refused,) = told["confirmed"]["nacked"]
    assert refused["pid"] == process.pid
    assert "size" in refused["nack"]["error"]
    assert fan("version", "rollback").exit == 0


def waits(world: World, kind: str, is_so: Callable[[], bool]) -> None:
    world.until(kind, is_so)


def test_killed_between_prepare_and_commit_it_has_changed_nothing(
    fan: Fan, world: World, start_fan: Callable[..., FanProcess]
) -> None:
    session = world.consumer("shop")
    running = start_fan("version", "switch", "shop=2", "--prepare")
    world.until("prep", lambda: bool(world.store.list("prep", deadline=world.deadline())))
    running.send(signal.SIGKILL)
    running.wait()
    world.until("prep", lambda: not world.store.list("prep", deadline=world.deadline()))
    assert (world.gen(), world.routed("shop")) == (1, {"1.0.0": 10_000})
    session.close()
    assert fan("version", "switch", "shop=2", "--prepare").exit == 0


def test_killed_between_commit_and_confirm_it_has_changed_all_and_wait_tells(
    fan: Fan, world: World, start_fan: Callable[..., FanProcess]
) -> None:
    session = world.consumer("shop")
    running = start_fan("version", "switch", "shop=2", "--config", "shop/theme=dark")
    op = running.wait_for("op ").removeprefix("op ")
    running.wait_for("generation 2")
    running.wait_for("undo: fan version rollback 2")
    running.send(signal.SIGKILL)
    running.wait()
    assert (world.gen(), world.routed("shop")) == (2, {"2.0.0": 10_000})
    assert fan("config", "get", "shop/theme").stdout == "dark\n"
    ran = fan("version", "wait", "--gen", "2", "--confirm-timeout", "100ms", "--json")
    assert (ran.exit, len(envelope(ran)["confirmed"]["pending"])) == (9, 1)
    args = ("version", "switch", "shop=2", "--config", "shop/theme=dark", "--op", op, "--json")
    session.close()
    again = envelope(fan(*args))
    assert (again["gen"], world.gen()) == (2, 2)


def test_ctrl_c_while_it_is_confirmed_leaves_it_in_force(
    world: World, start_fan: Callable[..., FanProcess]
) -> None:
    session = world.consumer("shop")
    running = start_fan("version", "switch", "shop=2")
    running.wait_for("undo:")
    running.send(signal.SIGINT)
    assert running.wait() == 130
    assert world.routed("shop") == {"2.0.0": 10_000}
    session.close()


def test_an_undone_generation_is_12(fan: Fan, world: World) -> None:
    fan("version", "switch", "shop=2")
    fan("version", "rollback")
    ran = fan("version", "wait", "--gen", "2", "--json")
    error = envelope(ran)["error"]
    assert (ran.exit, error["reason"], error["details"]["undone_by"]) == (12, "undone_by", 3)


def test_the_progress_is_told_on_a_terminal(world: World) -> None:
    session = world.consumer("shop")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, "version", "switch", "shop=2"], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=theirs, env=variables({"TERM": "xterm"}),
    )  # fmt: skip
    os.close(theirs)
    said = b""
    while b"confirmed 0/1" not in said:
        said += os.read(ours, 4096)
    head = world.store.head(deadline=world.deadline())
    quick = world.consumer("shop", applied=Applied(head.epoch, head.gen, head.op), id="quick")
    while b"confirmed 1/2" not in said:
        said += os.read(ours, 4096)
    session.close()
    assert process.wait(50) == 0
    assert process.stdout is not None
    assert process.stdout.read() == b""
    process.stdout.close()
    os.close(ours)
    quick.close()


def test_the_status_is_watched(world: World, start_fan: Callable[..., FanProcess]) -> None:
    running = start_fan("version", "status", "--watch", "--json")
    first = json.loads(running.wait_for("routes", "stdout"))
    assert first["routes"] == {"shop": {"1.0.0": 10_000}}
    world.versions.switch({"shop": "2.0.0"})
    second = json.loads(running.wait_for('"2.0.0"', "stdout"))
    assert (second["gen"], second["routes"]) == (2, {"shop": {"2.0.0": 10_000}})
    running.send(signal.SIGINT)
    assert running.wait() == 130


def test_a_consumer_is_registered_by_what_it_uses(
    world: World, caller: Callable[[], Any]
) -> None:
    process = caller()
    found = map(registered, world.store.list("subs", deadline=world.deadline()))
    assert [(c.pid, c.uses) for c in found if c is not None] == [(process.pid, ("shop",))]
