"""A call inside one process, against calling the method directly."""

from __future__ import annotations

import statistics
import timeit
from collections.abc import Callable
from typing import Any

import fan

ROUNDS = 75
CALLS = 10_000


class Greeter(fan.Service):
    """What is called."""

    name = "greeter"
    version = "1.0.0"

    @fan.rpc
    def hello(self, name: str = "World") -> str:
        return name


def run() -> list[dict[str, Any]]:
    greeter = Greeter()
    with fan.App(greeter, settings=fan.Settings(registry="memory:")) as app:
        app.start(())
        bound = app.bind("greeter.hello")
        cases: dict[str, Callable[[], Any]] = {
            "direct": lambda: greeter.hello(name="Ada"),
            "path": lambda: app.rpc.greeter.hello(name="Ada"),
            "bound": lambda: bound(name="Ada"),
        }
        times: dict[str, list[float]] = {name: [] for name in cases}
        for case in cases.values():
            assert case() == "Ada"
        for _ in range(ROUNDS):
            for name, case in cases.items():
                times[name].append(timeit.timeit(case, number=CALLS) / CALLS * 1e6)
    us = {name: statistics.median(each) for name, each in times.items()}
    return [
        row("app.rpc.greeter.hello(name=...) : greeter.hello(...)", us["path"], us["direct"], 2.0),
        row("app.bind('greeter.hello')(...) : greeter.hello(...)", us["bound"], us["direct"], 0.5),
    ]


def row(name: str, ours: float, base: float, most: float) -> dict[str, Any]:
    return dict(
        name=name, ours=ours, base=base, unit="us", ratio=ours / base,
        target=f"<= base + {most:g} us", ok=ours - base <= most,
    )  # fmt: skip
