"""`fan bench` as a load generator, against the library that calls in a loop, in one process.

Both drive the same demo over ipc, one caller and sixteen; the load generator is the program with
its report, less what its start takes: it says itself how many calls a second it made.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from processes import demo, fan_program

ROUNDS = 5
CALLS = 6000
TARGET = 0.8

#: The library in a loop: N threads that share CALLS calls.
LOOP = """
import sys, threading, time
import fan
calls, threads = int(sys.argv[1]), int(sys.argv[2])
with fan.App(settings=fan.load_settings({"breaker_failures": 0, "retries": 0}).settings) as app:
    hello = app.using(transport="ipc").bind("greeter.hello")
    hello(name="Ada")
    def work():
        for _ in range(calls // threads):
            hello(name="Ada")
    workers = [threading.Thread(target=work) for _ in range(threads)]
    began = time.perf_counter()
    for worker in workers: worker.start()
    for worker in workers: worker.join()
    print(calls // threads * threads / (time.perf_counter() - began))
"""


def loop(env: Mapping[str, str], threads: int) -> float:
    """Calls per second of the library."""
    command = [sys.executable, "-P", "-c", LOOP, str(CALLS), str(threads)]
    return float(subprocess.check_output(command, env={**env}, stdin=subprocess.DEVNULL))


def bench(env: Mapping[str, str], threads: int) -> float:
    """Calls per second of `fan bench`."""
    command = [
        fan_program(), "bench", "greeter.hello", "name=Ada", "-t", "ipc", "-N", str(CALLS),
        "-c", str(threads), "--warmup", "10", "--json",
    ]  # fmt: skip
    said = subprocess.check_output(command, env={**env}, stdin=subprocess.DEVNULL)
    return float(json.loads(said)["rps"])


def run() -> list[dict[str, Any]]:
    rows = []
    with demo() as found:
        env = {**os.environ, **found}
        for threads in (1, 16):
            got: dict[str, list[float]] = {"loop": [], "bench": []}
            for _ in range(ROUNDS):
                got["loop"].append(loop(env, threads))
                got["bench"].append(bench(env, threads))
            base, ours = (statistics.median(got[name]) for name in ("loop", "bench"))
            rows.append(
                dict(
                    name=f"fan bench -c {threads} : the library in a loop",
                    ours=ours, base=base, unit="calls/s", ratio=ours / base,
                    target=f">= {TARGET}", ok=ours / base >= TARGET,
                )
            )  # fmt: skip
    return rows
