"""`fan call --each` from one process against the library's own loop: calls in a second, one after
the other, over ipc and http.

Both are processes of their own that call the same demo, in turns; each is measured from its first
answer to its last, so that start-up, which `bench_startup` has, falls out.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from processes import demo, fan_program

ROUNDS = 7
CALLS = 4000

LOOP = f"""
import time
from fan import App, load_settings
with App(settings=load_settings().settings) as app:
    hello = app.client.using(transport="TRANSPORT").bind("greeter.hello")
    hello(name="Ada")
    began = time.perf_counter()
    for _ in range({CALLS}):
        hello(name="Ada")
    print({CALLS} / (time.perf_counter() - began))
"""


def loop(env: Mapping[str, str], transport: str) -> float:
    """Calls per second of the library."""
    code = LOOP.replace("TRANSPORT", transport)
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=env, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def each(env: Mapping[str, str], transport: str, lines: Path) -> float:
    """Calls per second of the program."""
    with (
        lines.open("rb") as stdin,
        subprocess.Popen(
            [fan_program(), "call", "greeter.hello", "--each", "-t", transport],
            env=env, stdin=stdin, stdout=subprocess.PIPE,
        ) as process,
    ):  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        began = time.perf_counter()
        count = sum(1 for _ in process.stdout)
        took = time.perf_counter() - began
    if process.returncode or count != CALLS:
        sys.exit(f"fan call --each ended with {process.returncode} after {count} lines")
    return CALLS / took


def run() -> list[dict[str, Any]]:
    rows = []
    with demo() as env:
        lines = Path(env["HOME"], "lines.ndjson")
        lines.write_bytes(b'{"name":"Ada"}\n' * (CALLS + 1))
        for transport in ("ipc", "http"):
            loops, eaches = [], []
            for _ in range(ROUNDS):
                loops.append(loop(env, transport))
                eaches.append(each(env, transport, lines))
            ours, base = statistics.median(eaches), statistics.median(loops)
            rows.append(
                {
                    "name": f"fan call --each over {transport} against a loop",
                    "ours": ours,
                    "base": base,
                    "unit": "calls/s",
                    "ratio": ours / base,
                    "target": ">= 0.5",
                    "ok": ours >= 0.5 * base,
                }
            )
    return rows
