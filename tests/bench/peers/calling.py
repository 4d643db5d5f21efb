"""How every program beside this one is driven, in whatever environment it has: only the standard
library is here.

    PROGRAM serve URL     serves until standard input ends; says `ready`
    PROGRAM call URL      says `ready`, then answers each line `CALLERS SECONDS` of standard input
                          with the calls a second that so many callers made in that time

A call carries `TEXT` and is answered with it.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

#: 100 bytes.
TEXT = "x" * 100


def say(line: object) -> None:
    """Write a line to who drives this."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def wait_for_end() -> None:
    """Say `ready`, and come back when standard input ends."""
    say("ready")
    sys.stdin.read()


def answer_with_threads(make: Callable[[], Callable[[str], Any]]) -> None:
    """Measure threads, each of which makes its own call."""
    _check(make()(TEXT))
    say("ready")
    for line in sys.stdin:
        callers, seconds = line.split()
        say(_threads(make, int(callers), float(seconds)))


async def answer_with_tasks(call: Callable[[str], Awaitable[Any]]) -> None:
    """Measure tasks of one event loop."""
    _check(await call(TEXT))
    say("ready")
    while line := await asyncio.to_thread(sys.stdin.readline):
        callers, seconds = line.split()
        say(await _tasks(call, int(callers), float(seconds)))


def _threads(make: Callable[[], Callable[[str], Any]], callers: int, seconds: float) -> float:
    counts = [0] * callers
    gate = threading.Barrier(callers + 1)

    def work(index: int) -> None:
        call = make()
        call(TEXT)
        gate.wait()
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            call(TEXT)
            counts[index] += 1

    threads = [threading.Thread(target=work, args=(index,)) for index in range(callers)]
    for thread in threads:
        thread.start()
    gate.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


async def _tasks(call: Callable[[str], Awaitable[Any]], callers: int, seconds: float) -> float:
    began = time.perf_counter()
    until = began + seconds

    async def work() -> int:
        count = 0
        while time.perf_counter() < until:
            await call(TEXT)
            count += 1
        return count

    done = sum(await asyncio.gather(*(work() for _ in range(callers))))
    return done / (time.perf_counter() - began)


def _check(answer: Any) -> None:
    if answer != TEXT:
        raise SystemExit(f"the answer is {answer!r}")
