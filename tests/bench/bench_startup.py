"""Whole processes, from fork to exit: what one command costs against `python -c 'import click'`.

The commands take turns, so that whatever else the machine does falls on all of them alike.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from processes import demo, fan_program

ROUNDS = 31
#: What is typed before a TAB on a method: the registry has to be read for it.
TYPED = "fan call greeter.he"


class Case(NamedTuple):
    """A command, its variables, how often the base line it may cost, and what it has to print."""

    command: list[str]
    env: Mapping[str, str]
    most: float
    says: bytes = b""


def wall_ms(command: list[str], env: Mapping[str, str], says: bytes) -> float:
    """Milliseconds of one run. Raises CalledProcessError: a quick failure is no result."""
    began = time.perf_counter()
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    took = (time.perf_counter() - began) * 1000
    if done.returncode or says not in done.stdout:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return took


def run() -> list[dict[str, Any]]:
    fan = fan_program()
    with demo() as env:
        tab = {
            **env,
            "_FAN_COMPLETE": "bash_complete",
            "COMP_LINE": TYPED,
            "COMP_POINT": str(len(TYPED)),
        }
        call = [fan, "call", "greeter.hello", "-t"]
        cases = {
            "import click": Case([sys.executable, "-c", "import click"], env, 1.0),
            "fan --help": Case([fan, "--help"], env, 1.5, b"Commands:"),
            "a TAB": Case([fan], tab, 1.5, b"greeter.hello"),
            "fan call greeter.hello -t ipc": Case([*call, "ipc"], env, 2.0, b"Hello World"),
            "fan call greeter.hello -t http": Case([*call, "http"], env, 2.5, b"Hello World"),
        }
        times: dict[str, list[float]] = {name: [] for name in cases}
        for round_ in range(ROUNDS + 2):  # the first two warm the page cache
            for name, case in cases.items():
                took = wall_ms(case.command, case.env, case.says)
                if round_ >= 2:
                    times[name].append(took)
    base = statistics.median(times["import click"])
    rows = []
    for name, case in cases.items():
        ours = statistics.median(times[name])
        if name != "import click":
            ratio = ours / base
            rows.append(
                dict(
                    name=f"{name} : python -c 'import click'",
                    ours=ours, base=base, unit="ms", ratio=ratio, target=case.most,
                    ok=ratio <= case.most,
                )
            )
    return rows
