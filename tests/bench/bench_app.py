"""A whole call over ipc, from `app.client` to the method in another process and back, against a
bare echo over the same kind of socket. Ours has a registry, a route, middleware, a deadline and
types."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import echo
from processes import demo

import fan

ROUNDS = 9
SECONDS = 0.5
THREADS = 16
TASKS = 64


def run() -> list[dict[str, Any]]:
    with echo.server() as path, demo() as env:
        settings = fan.load_settings({}, env=env, cwd=Path.cwd()).settings
        with fan.App(settings=settings) as app:
            return [*measure(app.client.using(transport="ipc"), path)]


def measure(client: Any, path: str) -> list[dict[str, Any]]:
    clients: list[echo.Client] = []

    def ours() -> Callable[[], Any]:
        call = client.bind("greeter.echo")
        return lambda: call(**echo.PAYLOAD)

    def base() -> Callable[[], Any]:
        bare = echo.Client(path)
        clients.append(bare)
        return lambda: bare.call(echo.PAYLOAD)

    assert ours()() == {"args": [], "kwargs": echo.PAYLOAD}
    one: dict[str, list[float]] = {"ours": [], "base": []}
    many: dict[str, list[float]] = {"ours": [], "base": [], "tasks": []}
    for _ in range(ROUNDS):
        one["ours"].append(latency_us(ours()))
        one["base"].append(latency_us(base()))
        many["ours"].append(threads_per_second(ours))
        many["base"].append(threads_per_second(base))
        many["tasks"].append(asyncio.run(tasks_per_second(client)))
    for bare in clients:
        bare.close()
    us = {name: statistics.median(each) for name, each in one.items()}
    rate = {name: statistics.median(each) for name, each in many.items()}
    return [
        dict(
            name="greeter.echo over ipc, one caller : bare echo", unit="us",
            ours=us["ours"], base=us["base"], ratio=us["ours"] / us["base"],
            target=3.0, ok=us["ours"] <= 3 * us["base"],
        ),
        faster(f"the same, {THREADS} threads : bare echo", rate["ours"], rate["base"]),
        faster(f"the same, {TASKS} asyncio callers : bare echo", rate["tasks"], rate["base"]),
    ]  # fmt: skip


def faster(name: str, ours: float, base: float) -> dict[str, Any]:
    return dict(
        name=name, ours=ours, base=base, unit="calls/s", ratio=ours / base,
        target=">= 0.333", ok=ours >= base / 3,
    )  # fmt: skip


def latency_us(call: Callable[[], Any]) -> float:
    """Median microseconds of one call."""
    times = []
    until = time.perf_counter() + SECONDS
    while (began := time.perf_counter()) < until:
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


def threads_per_second(make: Callable[[], Callable[[], Any]]) -> float:
    """Calls a second of all threads together."""
    counts = [0] * THREADS
    gate = threading.Barrier(THREADS + 1)

    def work(index: int) -> None:
        call = make()
        call()
        gate.wait()
        until = time.perf_counter() + SECONDS
        while time.perf_counter() < until:
            call()
            counts[index] += 1

    workers = [threading.Thread(target=work, args=(index,)) for index in range(THREADS)]
    for worker in workers:
        worker.start()
    gate.wait()
    for worker in workers:
        worker.join()
    return sum(counts) / SECONDS


async def tasks_per_second(client: Any) -> float:
    """Calls a second of all tasks of one event loop together."""
    await client.acall("greeter.echo", **echo.PAYLOAD)
    until = time.perf_counter() + SECONDS

    async def work() -> int:
        count = 0
        while time.perf_counter() < until:
            await client.acall("greeter.echo", **echo.PAYLOAD)
            count += 1
        return count

    began = time.perf_counter()
    done = sum(await asyncio.gather(*(work() for _ in range(TASKS))))
    return done / (time.perf_counter() - began)
