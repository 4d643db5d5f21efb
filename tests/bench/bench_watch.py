"""How soon another process knows of a change: from the return of the commit until a watch of the
store has called back and read which generation it is, alone and as the last of 16 watchers on
SQLite, and beside kazoo's own DataWatch on ZooKeeper. And the processor time of a watcher of whom
nothing is wanted. What settings take that are read anew, swapped and acknowledged is noted."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from processes import cpu_seconds, wait_ready

import fan
from fan.plugins import open_store
from fan.stores.base import HEAD
from fan.tools.servers_zookeeper import ZooKeeper

CROWD = 16
ROUNDS = 60
#: Changes before the first that counts.
WARM_UP = 10
#: Milliseconds that half of the changes may take: of one watcher, and of the last of the crowd.
LIMIT, CROWD_LIMIT = 2.0, 5.0
#: How many times what a bare DataWatch takes.
RATIO = 1.5
#: Seconds that an idle watcher is looked at, and its milliseconds of processor time per second.
IDLE, IDLE_LIMIT = 20.0, 1.0
#: Seconds between two changes: watchers are at rest when one comes.
REST = 0.05
#: A bound on hangs, in seconds.
PATIENCE = 60.0

KEY, NODE = "bench/number", "/bare"


@dataclass
class Numbers:
    """What is followed."""

    number: int


class Watcher:
    """A process that says when it was told of which number."""

    def __init__(self, kind: str, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, kind, url],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self) -> None:
        wait_ready(self._process)

    def told(self, number: int) -> float:
        """When it was told, on the clock of all processes."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            seen, at = line.split()
            if int(seen) == number:
                return float(at)
        raise RuntimeError("a watcher ended")

    def close(self) -> None:
        self._process.communicate(timeout=PATIENCE)


@contextmanager
def watchers(kind: str, url: str, count: int) -> Iterator[list[Watcher]]:
    """So many of them, ready."""
    with ExitStack() as stack:
        started = []
        for _ in range(count):
            started.append(Watcher(kind, url))
            stack.callback(started[-1].close)
        for each in started:
            each.wait_ready()
        yield started


def run() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="fan-") as folder:
        rows = on_sqlite(f"sqlite:{folder}/registry.db")
    if problem := ZooKeeper.missing():
        print(f"   zookeeper is left out: {problem}")
        return rows
    with ZooKeeper() as server:
        return [*rows, *on_zookeeper(server.start().url)]


def on_sqlite(url: str) -> list[dict[str, Any]]:
    with writer(url) as write:
        with watchers("store", url, 1) as one:
            alone = statistics.median(delays(write, one))
            time.sleep(1.0)  # what the changes began is over
            before = cpu_seconds(one[0].pid)
            time.sleep(IDLE)
            idle = (cpu_seconds(one[0].pid) - before) / IDLE * 1e3
        with watchers("store", url, CROWD) as crowd:
            last = statistics.median(delays(write, crowd))
        with watchers("settings", url, 1) as one:
            settings = statistics.median(delays(write, one))
    return [
        {
            **most("sqlite, commit to callback elsewhere, p50", alone, LIMIT, "ms"),
            "note": f"settings that follow it: {settings:.3g} ms",
        },
        most(f"sqlite, the same, the last of {CROWD} watchers", last, CROWD_LIMIT, "ms"),
        most("sqlite, processor time of an idle watcher", idle, IDLE_LIMIT, "ms/s"),
    ]


def on_zookeeper(url: str) -> list[dict[str, Any]]:
    """Both in turns, so that the machine is the same for both."""
    with writer(url) as write, bare_writer(url) as bare:
        bare(0)
        with watchers("store", url, 1) as ours, watchers("kazoo", url, 1) as theirs:
            pairs = list(zip(delays(write, ours), delays(bare, theirs), strict=True))
        with watchers("settings", url, 1) as one:
            settings = statistics.median(delays(write, one))
    took, base = (statistics.median(each) for each in zip(*pairs, strict=True))
    return [
        dict(
            name="zookeeper, commit to callback : kazoo's DataWatch", unit="ms",
            ours=took, base=base, ratio=took / base, target=RATIO, ok=took <= RATIO * base,
            note=f"settings that follow it: {settings:.3g} ms",
        )
    ]  # fmt: skip


def most(name: str, ours: float, limit: float, unit: str) -> dict[str, Any]:
    return dict(
        name=f"{name} : limit", unit=unit, ours=ours, base=limit, ratio=ours / limit,
        target=f"<= {limit:g} {unit}", ok=ours <= limit,
    )  # fmt: skip


def delays(write: Callable[[int], int], watching: list[Watcher]) -> Iterator[float]:
    """Milliseconds from the end of each write until the last of them was told."""
    for number in range(WARM_UP + ROUNDS):
        time.sleep(REST)
        written = write(number)
        done = time.monotonic()
        took = max(each.told(written) for each in watching) - done
        if number >= WARM_UP:
            yield took * 1e3


@contextmanager
def writer(url: str) -> Iterator[Callable[[int], int]]:
    """Makes a generation of a number, and says which."""
    with open_store(url, "default") as store:
        configs = fan.Configs(lambda: store, live=False, timeout=PATIENCE)
        configs.set(KEY, -1)
        yield lambda number: configs.set(KEY, number).gen


@contextmanager
def bare_writer(url: str) -> Iterator[Callable[[int], int]]:
    """Writes a number into a node, and says which version of it that is."""
    with bare_client(url) as client:
        client.ensure_path(NODE)
        yield lambda number: int(client.set(NODE, b"%d" % number).version)


@contextmanager
def bare_client(url: str) -> Iterator[Any]:
    from kazoo.client import KazooClient

    client = KazooClient(url.removeprefix("zk://"))
    client.start(timeout=PATIENCE)
    try:
        yield client
    finally:
        client.stop()
        client.close()


def say(number: int) -> None:
    # One write: another thread says that we are ready.
    os.write(1, f"{number} {time.monotonic()}\n".encode())


def follow(url: str) -> None:
    """Follow the generations until standard input ends."""
    with open_store(url, "default") as store:
        store.watch(HEAD, lambda hint: say(store.head(deadline=time.monotonic() + PATIENCE).gen))
        os.write(1, b"ready\n")
        sys.stdin.read()


def follow_settings(url: str) -> None:
    """Follow settings until standard input ends; each value is written with one generation."""
    with fan.App(settings=fan.Settings(registry=url)) as app:
        app.config.bind("bench", Numbers, lambda new: say(app.config.entry(KEY).rev))
        os.write(1, b"ready\n")
        sys.stdin.read()


def follow_bare(url: str) -> None:
    """Follow the node until standard input ends."""
    with bare_client(url) as client:
        client.DataWatch(NODE, lambda data, stat: say(stat.version))
        os.write(1, b"ready\n")
        sys.stdin.read()


if __name__ == "__main__":
    kinds = {"store": follow, "settings": follow_settings, "kazoo": follow_bare}
    kinds[sys.argv[1]](sys.argv[2])
