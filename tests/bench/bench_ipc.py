"""The ipc transport alone, with a handler that only answers, against a bare echo (`echo.py`).

Client and server are separate processes. One caller, 16 threads, 64 asyncio callers; the base of
the last two is the bare echo's throughput with 16 threads. `bench_app` measures the whole stack.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import echo
import msgspec

from fan.message import Request, Response
from fan.model import Address
from fan.transports.ipc import IpcTransport

ROUNDS = 7
CALLS = 3000
THREADS = 16
TASKS = 64

_BODY = msgspec.json.encode(echo.PAYLOAD)


def request() -> Request:
    """A request as an App sends it."""
    return Request(
        id="0123456789abcdef0123456789abcdef",
        key="0123456789abcdef0123456789abcdef",
        service="greeter",
        method="hello",
        timeout_ms=5000,
        caller="bench",
        gen=12,
        instance="greeter-0123456789ab",
        body=_BODY,
    )


def serve(path: str) -> None:
    def answer(request: Request, **_: object) -> Response:
        return Response(id=request.id, served="1.0.0/greeter-0123456789ab", body=request.body)

    settings = SimpleNamespace(max_body=1 << 24, runtime_dir="")
    listener = IpcTransport(settings).serve(path, answer)
    print("ready", flush=True)
    sys.stdin.read()
    listener.close(0)


@contextlib.contextmanager
def server() -> Iterator[Address]:
    with tempfile.TemporaryDirectory(prefix="fan-") as folder:
        path = f"{folder}/x.sock"
        with subprocess.Popen(
            [sys.executable, __file__, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            process.stdout.readline()
            try:
                yield Address(f"unix://{path}")
            finally:
                process.stdin.close()


def latency(call: Callable[[], object], calls: int = CALLS) -> float:
    """The median of single calls, in microseconds."""
    clock, times = time.perf_counter, []
    for _ in range(calls):
        began = clock()
        call()
        times.append(clock() - began)
    return statistics.median(times) * 1e6


def throughput(make: Callable[[], Callable[[], object]], calls: int = CALLS) -> float:
    """Calls per second of THREADS threads; each makes its `call` first."""
    each = calls * 2 // THREADS
    start = threading.Barrier(THREADS + 1)

    def work() -> None:
        call = make()
        call()
        start.wait()
        for _ in range(each):
            call()

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return each * THREADS / (time.perf_counter() - began)


def tasks_throughput(call: Callable[[], Any], calls: int = CALLS) -> float:
    """Calls per second of TASKS asyncio tasks of one loop."""
    each = calls * 2 // TASKS

    async def work() -> None:
        for _ in range(each):
            await call()

    async def main() -> float:
        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(TASKS)))
        return each * TASKS / (time.perf_counter() - began)

    return asyncio.run(main())


def run() -> list[dict[str, Any]]:
    settings = SimpleNamespace(max_body=1 << 24, runtime_dir="")
    transport = IpcTransport(settings)
    got: dict[str, list[float]] = {
        name: [] for name in ("echo 1", "ours 1", "echo 16", "ours 16", "ours 64")
    }
    message = request()
    with echo.server() as path, server() as address:
        one = echo.Client(path)
        clients: list[echo.Client] = []

        def new_client() -> Callable[[], object]:
            clients.append(echo.Client(path))
            client = clients[-1]
            return lambda: client.call(echo.PAYLOAD)

        for _ in range(ROUNDS):
            got["echo 1"].append(latency(lambda: one.call(echo.PAYLOAD)))
            got["ours 1"].append(latency(lambda: transport.call(address, message)))
            got["echo 16"].append(throughput(new_client))
            got["ours 16"].append(throughput(lambda: lambda: transport.call(address, message)))
            got["ours 64"].append(tasks_throughput(lambda: transport.acall(address, message)))
            while clients:
                clients.pop().close()
        one.close()
        transport.close()
    median = {name: statistics.median(values) for name, values in got.items()}
    base = median["echo 16"]
    return [
        row("ipc transport, one caller", median["ours 1"], median["echo 1"], "us", "<= 1.7"),
        row("ipc transport, 16 threads", median["ours 16"], base, "calls/s", ">= 0.333"),
        row("ipc transport, 64 asyncio callers", median["ours 64"], base, "calls/s", ">= 0.333"),
    ]


def row(name: str, ours: float, base: float, unit: str, target: str) -> dict[str, Any]:
    ratio = ours / base
    limit = float(target.split()[1])
    is_ok = ratio <= limit if target.startswith("<=") else ratio >= limit
    return {
        "name": name, "ours": ours, "base": base, "unit": unit, "ratio": ratio,
        "target": target, "ok": is_ok,
    }  # fmt: skip


if __name__ == "__main__":
    serve(sys.argv[1])
