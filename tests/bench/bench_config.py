"""Configs: one read among 100,000 against one among ten, in the library and as a whole command, on
SQLite and on ZooKeeper."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable
from typing import Any

from processes import fan_program

from fan import Configs
from fan.plugins import open_store
from fan.stores.zookeeper_layout import bucket_of
from fan.tools.servers_zookeeper import ZooKeeper

FEW, MANY = 10, 100_000
ROUNDS = 31
READS = 200


def run() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="fan-bench-") as folder:
        rows = rows_of("sqlite", {n: f"sqlite:{folder}/{n}.db" for n in (FEW, MANY)})
    if problem := ZooKeeper.missing():
        print(f"   zookeeper is left out: {problem}")
        return rows
    with ZooKeeper() as server:
        url = server.start().url
        return [*rows, *rows_of("zookeeper", {n: f"{url}/{n}" for n in (FEW, MANY)})]


def rows_of(kind: str, registries: dict[int, str]) -> list[dict[str, Any]]:
    for count, url in registries.items():
        fill(url, count)
    read, get = interleaved(registries, read_us), interleaved(registries, get_ms)
    return [
        row(f"{kind}, config.entry, 100,000 configs : 10", "us", *read, 1.5),
        row(f"{kind}, fan config get, 100,000 configs : 10", "ms", *get, 1.2),
    ]


def fill(url: str, count: int) -> None:
    with open_store(url, "default") as store:
        config = Configs(lambda: store, live=False, timeout=60.0)
        for together in groups(count):
            config.apply({f"bench/{number}": {"n": number} for number in together})


def groups(count: int) -> Iterable[list[int]]:
    """Numbers whose pins are kept in one page: ZooKeeper writes a page anew for each change, and
    takes no more than a megabyte at once."""
    found: dict[int, list[int]] = {}
    for number in range(count):
        found.setdefault(bucket_of(f"config/bench/{number}"), []).append(number)
    return found.values()


def interleaved(registries: dict[int, str], measure: Any) -> tuple[float, float]:
    """Medians of the many and of the few."""
    times: dict[int, list[float]] = {FEW: [], MANY: []}
    for round_ in range(ROUNDS + 2):  # the first two warm the page cache
        for count, kept in times.items():
            took = measure(registries[count])
            if round_ >= 2:
                kept.append(took)
    return statistics.median(times[MANY]), statistics.median(times[FEW])


def read_us(url: str) -> float:
    with open_store(url, "default") as store:
        config = Configs(lambda: store, live=False)
        config.entry("bench/0")
        began = time.perf_counter()
        for number in range(READS):
            config.entry(f"bench/{number % FEW}")
        return (time.perf_counter() - began) / READS * 1e6


def get_ms(url: str) -> float:
    began = time.perf_counter()
    subprocess.run(
        [fan_program(), "config", "get", "bench/5"],
        env={**os.environ, "FAN_REGISTRY": url},
        stdin=subprocess.DEVNULL, capture_output=True, check=True,
    )  # fmt: skip
    return (time.perf_counter() - began) * 1000


def row(name: str, unit: str, ours: float, base: float, target: float) -> dict[str, Any]:
    ratio = ours / base
    return dict(
        name=name, unit=unit, ours=ours, base=base, ratio=ratio, target=target, ok=ratio <= target
    )
