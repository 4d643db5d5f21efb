"""Whole processes, from fork to exit: what one command costs against `python -c 'import click'`.

The commands take turns, so that whatever else the machine does falls on all of them alike.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from processes import demo, fan_program

ROUNDS = 31


def wall_ms(command: list[str], env: Mapping[str, str]) -> float:
    """Milliseconds of one run. Raises CalledProcessError: a quick failure is no result."""
    began = time.perf_counter()
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    took = (time.perf_counter() - began) * 1000
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return took


def run() -> list[dict[str, Any]]:
    fan = fan_program()
    with demo() as env:
        tab = {
            **env,
            "_FAN_COMPLETE": "bash_complete",
            "COMP_WORDS": "fan call greeter.he",
            "COMP_CWORD": "2",
        }
        call = [fan, "call", "greeter.hello", "-t"]
        cases: dict[str, tuple[list[str], Mapping[str, str], float]] = {
            "import click": ([sys.executable, "-c", "import click"], env, 1.0),
            "fan --help": ([fan, "--help"], env, 1.5),
            "a TAB": ([fan], tab, 1.5),
            "fan call greeter.hello -t ipc": ([*call, "ipc"], env, 2.0),
            "fan call greeter.hello -t http": ([*call, "http"], env, 2.5),
        }
        times: dict[str, list[float]] = {name: [] for name in cases}
        for round_ in range(ROUNDS + 2):  # the first two warm the page cache
            for name, (command, its_env, _) in cases.items():
                took = wall_ms(command, its_env)
                if round_ >= 2:
                    times[name].append(took)
    base = statistics.median(times["import click"])
    rows = []
    for name, (_, _, target) in cases.items():
        ours = statistics.median(times[name])
        if name != "import click":
            ratio = ours / base
            rows.append(
                dict(
                    name=f"{name} : python -c 'import click'",
                    ours=ours, base=base, unit="ms", ratio=ratio, target=target,
                    ok=ratio <= target,
                )
            )
    return rows
