"""How every program beside this one is driven, in whatever environment it has: only the standard
library is here.

    PROGRAM serve URL     serves until standard input ends; says `ready`
    PROGRAM call URL      says `ready`, then answers each line `CALLERS SECONDS` of standard input
                          with the calls a second that so many callers made in that time

A call carries `TEXT` and is answered with it, or `RECORD` and is answered with its values.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

#: 100 bytes.
TEXT = "x" * 100
#: About 110 bytes as JSON: the keyword arguments of an ordinary call.
RECORD = {"id": 4711, "name": "Ada Lovelace", "tags": ("a", "b"), "score": 1.5, "note": "x" * 30}


def say(line: object) -> None:
    """Write a line to who drives this."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def wait_for_end() -> None:
    """Say `ready`, and come back when standard input ends."""
    say("ready")
    sys.stdin.read()


def answer_with_threads(make: Callable[[], Callable[[Any], Any]], what: Any = TEXT) -> None:
    """Measure threads, each of which makes its own call, with `TEXT` or `RECORD`."""
    check(make()(what), what)
    say("ready")
    for line in sys.stdin:
        callers, seconds = line.split()
        say(_threads(make, what, int(callers), float(seconds)))


async def answer_with_tasks(call: Callable[[Any], Awaitable[Any]], what: Any = TEXT) -> None:
    """Measure tasks of one event loop."""
    check(await call(what), what)
    say("ready")
    while line := await asyncio.to_thread(sys.stdin.readline):
        callers, seconds = line.split()
        say(await _tasks(call, what, int(callers), float(seconds)))


def check(answer: Any, sent: Any = TEXT) -> None:
    """Exit where an answer is not the one to what was sent."""
    wanted = sent if isinstance(sent, str) else list(sent.values())
    if json.dumps(answer) != json.dumps(wanted):  # a tuple is as good as a list
        raise SystemExit(f"the answer is {answer!r}")


def _threads(
    make: Callable[[], Callable[[Any], Any]], what: Any, callers: int, seconds: float
) -> float:
    counts = [0] * callers
    gate = threading.Barrier(callers + 1)

    def work(index: int) -> None:
        call = make()
        call(what)
        gate.wait()
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            call(what)
            counts[index] += 1

    threads = [threading.Thread(target=work, args=(index,)) for index in range(callers)]
    for thread in threads:
        thread.start()
    gate.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


async def _tasks(
    call: Callable[[Any], Awaitable[Any]], what: Any, callers: int, seconds: float
) -> float:
    began = time.perf_counter()
    until = began + seconds

    async def work() -> int:
        count = 0
        while time.perf_counter() < until:
            await call(what)
            count += 1
        return count

    done = sum(await asyncio.gather(*(work() for _ in range(callers))))
    return done / (time.perf_counter() - began)
