"""What a switch adds to a call: the routed call over ipc before, during and after many of them. The
caller has to apply and confirm each while it calls; another process makes them, with a rest between
two."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from processes import demo, wait_ready

import fan

SERVICE = "greeter"
ROUNDS = 5
#: Seconds of calls in each part of a round, and between two switches.
SECONDS, REST = 1.0, 0.1
#: What the machine may add by itself.
NOISE = 1.5
#: A bound on hangs, in seconds.
PATIENCE = 60.0

SWITCHER = """
import itertools, os, sys, threading
import fan

ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
done = 0
with fan.App(settings=fan.load_settings({}).settings) as app:
    for version in itertools.cycle(("2.0.0", "1.0.0")):
        if ended.wait(float(sys.argv[2])):
            break
        app.versions.switch({sys.argv[1]: version}, confirm=fan.Confirm(timeout=60.0))
        done += 1
        if done == 1:
            print("ready", flush=True)
print(done)
"""


def run() -> list[dict[str, Any]]:
    with demo() as env:
        settings = fan.load_settings({}, env=env, cwd=Path.cwd()).settings
        with fan.App(settings=settings) as app:
            call = app.client.using(transport="ipc").bind(f"{SERVICE}.hello")
            call("you")
            parts: dict[str, list[float]] = {"before": [], "during": [], "after": []}
            for _ in range(ROUNDS):
                parts["before"].append(call_us(call))
                with switches(env):
                    parts["during"].append(call_us(call))
                parts["after"].append(call_us(call))
    us = {name: statistics.median(each) for name, each in parts.items()}
    return [
        dict(
            name=f"a routed call {part} switches : before them", unit="us", ours=us[part],
            base=us["before"], ratio=us[part] / us["before"], target=NOISE,
            ok=us[part] <= NOISE * us["before"],
        )
        for part in ("during", "after")
    ]  # fmt: skip


def call_us(call: Callable[[str], Any]) -> float:
    """Median microseconds of a call."""
    took = []
    end = time.perf_counter() + SECONDS
    while (began := time.perf_counter()) < end:
        call("you")
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1e6


@contextmanager
def switches(env: Any) -> Iterator[None]:
    """One switch after the other, until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", SWITCHER, SERVICE, str(REST)], env={**os.environ, **env},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait_ready(process)
        yield
    finally:
        said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert int(said) > 1
