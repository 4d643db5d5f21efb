"""What serving costs in memory, and that calls leave nothing behind, on either side."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from processes import children_of, demo, descriptors, rss_mb, threads

import fan

WARM_UP = 300
CALLS = 1000
LIMIT_MB = 60.0
#: What allocators and page sizes move by themselves, in megabytes.
NOISE_MB = 1.5


def run() -> list[dict[str, Any]]:
    with demo() as env:
        pids = [pid for pid in children_of(int(env["DEMO_PID"])) if is_server(pid)]
        rows = [most("RSS of a demo service process", max(map(rss_mb, pids)), LIMIT_MB, "MB")]
        settings = fan.load_settings({}, env=env, cwd=Path.cwd()).settings
        with fan.App(settings=settings) as app:
            for transport in ("ipc", "http"):
                call = app.client.using(transport=transport).bind("greeter.hello")
                rows += leftovers(transport, call, [os.getpid(), *pids])
    return rows


def is_server(pid: int) -> bool:
    return any("sock" in target for target in links(pid))


def links(pid: int) -> list[str]:
    return [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]


def leftovers(transport: str, call: Callable[..., Any], pids: list[int]) -> list[dict[str, Any]]:
    """Threads, descriptors and memory of caller and servers, before and after many calls."""
    for _ in range(WARM_UP):
        call(name="Ada")
    before = taken(pids)
    for _ in range(CALLS):
        call(name="Ada")
    time.sleep(0.2)  # what is being closed is closed
    after = taken(pids)
    rows = []
    # A pool may start a worker more when a call comes before the last one has returned.
    allowed = (("threads", "", 2.0), ("descriptors", "", 0.0), ("RSS", "MB", NOISE_MB))
    for what, unit, noise in allowed:
        base, ours = before[what], after[what]
        rows.append(
            dict(
                name=f"{what} after {CALLS} calls over {transport} : before", unit=unit,
                ours=ours, base=base, ratio=ours / base,
                target=f"<= base + {noise:g} {unit}".strip(), ok=ours - base <= noise,
            )
        )
    return rows


def taken(pids: list[int]) -> dict[str, float]:
    return {
        "threads": float(sum(map(threads, pids))),
        "descriptors": float(sum(map(descriptors, pids))),
        "RSS": sum(map(rss_mb, pids)),
    }


def most(name: str, ours: float, limit: float, unit: str) -> dict[str, Any]:
    return dict(
        name=f"{name} : limit", ours=ours, base=limit, unit=unit, ratio=ours / limit,
        target=f"<= {limit:g} {unit}", ok=ours <= limit,
    )  # fmt: skip
