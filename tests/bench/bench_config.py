"""Configs: one read among 100,000 against one among ten, in the library and as a whole command."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from processes import fan_program

from fan import Configs
from fan.stores.sqlite import SqliteStore

FEW, MANY = 10, 100_000
ROUNDS = 31
READS = 200


def run() -> list[dict[str, Any]]:
    folder = Path(tempfile.mkdtemp(prefix="fan-bench-"))
    try:
        for count in (FEW, MANY):
            fill(folder / f"{count}.db", count)
        return [
            row("config.entry, 100,000 configs : 10", "us", *interleaved(folder, read_us), 1.5),
            row("fan config get, 100,000 configs : 10", "ms", *interleaved(folder, get_ms), 1.2),
        ]
    finally:
        shutil.rmtree(folder)


def fill(path: Path, count: int) -> None:
    with SqliteStore(str(path)) as store:
        config = Configs(lambda: store, live=False, timeout=60.0)
        for start in range(0, count, 5000):
            end = min(start + 5000, count)
            config.apply({f"bench/{number}": {"n": number} for number in range(start, end)})


def interleaved(folder: Path, measure: Any) -> tuple[float, float]:
    """Medians of the many and of the few."""
    times: dict[int, list[float]] = {FEW: [], MANY: []}
    for round_ in range(ROUNDS + 2):  # the first two warm the page cache
        for count, kept in times.items():
            took = measure(folder / f"{count}.db")
            if round_ >= 2:
                kept.append(took)
    return statistics.median(times[MANY]), statistics.median(times[FEW])


def read_us(path: Path) -> float:
    with SqliteStore(str(path)) as store:
        config = Configs(lambda: store, live=False)
        config.entry("bench/0")
        began = time.perf_counter()
        for number in range(READS):
            config.entry(f"bench/{number % FEW}")
        return (time.perf_counter() - began) / READS * 1e6


def get_ms(path: Path) -> float:
    began = time.perf_counter()
    subprocess.run(
        [fan_program(), "config", "get", "bench/5"],
        env={**os.environ, "FAN_REGISTRY": f"sqlite:{path}"},
        stdin=subprocess.DEVNULL, capture_output=True, check=True,
    )  # fmt: skip
    return (time.perf_counter() - began) * 1000


def row(name: str, unit: str, ours: float, base: float, target: float) -> dict[str, Any]:
    ratio = ours / base
    return dict(
        name=name, unit=unit, ours=ours, base=base, ratio=ratio, target=target, ok=ratio <= target
    )
