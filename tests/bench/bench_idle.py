"""What a service costs that nobody calls, over each transport, and what 1,000 calls in flight add.

An idle service is watched for some seconds by the processor time that the system has counted for
it. The calls are begun at once by one event loop, over one connection, and each takes a moment.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from bench_memory import most
from processes import cpu_seconds, descriptors, threads, wait_ready

import fan
from fan.tools.servers_rabbitmq import RabbitMQ
from fan.tools.servers_redis import Redis

SECONDS = 10.0
LIMIT_PERCENT = 0.5
FLIGHT = 1000
#: Seconds of one call.
MOMENT = 0.05


class Idle(fan.Service):
    """It waits, to be called or not."""

    name = "idle"
    version = "1.0.0"

    @fan.rpc
    async def wait(self) -> None:
        """Take a moment."""
        await asyncio.sleep(MOMENT)

    @fan.push
    def take(self) -> None:
        """So that there is a queue of pushes to watch."""


def settings_of(scheme: str, url: str, folder: str) -> fan.Settings:
    """Settings of one service's registry, and of its broker where it has one."""
    broker = {"queue": scheme, f"{scheme}_url": url} if url else {}
    return fan.Settings(
        registry=f"sqlite:{folder}/registry.db", runtime_dir=f"{folder}/run",
        bulkhead_requests=0, **broker,
    )  # fmt: skip


def serve(scheme: str, url: str, folder: str) -> None:
    """Serve until standard input ends."""
    with fan.App(Idle(), settings=settings_of(scheme, url, folder)) as app:
        app.start((scheme,))
        print("ready", flush=True)
        sys.stdin.read()
        app.stop()


@contextmanager
def server(scheme: str, url: str, folder: str) -> Iterator[int]:
    """A service in its own process; its process id."""
    with subprocess.Popen(
        [sys.executable, __file__, scheme, url, folder],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        try:
            wait_ready(process)
            yield process.pid
        finally:
            process.stdin.close()


def in_flight(app: Any) -> list[dict[str, Any]]:
    """The caller's threads and descriptors while so many calls wait, beside one call."""
    pid = os.getpid()
    seen: dict[str, float] = {}

    async def main() -> None:
        await app.acall("idle.wait")
        seen.update(base_threads=threads(pid), base_descriptors=descriptors(pid))
        calls = [asyncio.ensure_future(app.acall("idle.wait")) for _ in range(FLIGHT)]
        done = asyncio.gather(*calls)
        while not done.done():
            seen["threads"] = max(seen.get("threads", 0.0), threads(pid))
            seen["descriptors"] = max(seen.get("descriptors", 0.0), descriptors(pid))
            await asyncio.wait([done], timeout=0.01)
        done.result()

    asyncio.run(main())
    return [
        dict(
            name=f"{what} with {FLIGHT} calls in flight : one", unit="",
            ours=seen[what], base=seen[f"base_{what}"], ratio=seen[what] / seen[f"base_{what}"],
            target="<= base + 0", ok=seen[what] <= seen[f"base_{what}"],
        )
        for what in ("threads", "descriptors")
    ]  # fmt: skip


def run() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="fan-") as top, ExitStack() as stack:
        urls = {"ipc": "", "http": "", "database": ""}
        for scheme, product in (("redis", Redis), ("amqp", RabbitMQ)):
            if problem := product.missing():
                print(f"   {scheme} is left out: {problem}")
            else:
                urls[scheme] = stack.enter_context(product()).start().url
        pids: dict[str, int] = {}
        for scheme, url in urls.items():
            folder = os.path.join(top, scheme)
            os.mkdir(folder, 0o700)
            pids[scheme] = stack.enter_context(server(scheme, url, folder))
        for scheme in [scheme for scheme in ("ipc", "redis", "amqp") if scheme in urls]:
            settings = settings_of(scheme, urls[scheme], os.path.join(top, scheme))
            with fan.App(settings=settings) as app:
                found = in_flight(app.using(timeout=60.0))
            rows += [{**row, "name": f"{scheme}, {row['name']}"} for row in found]
        time.sleep(1.0)  # what the calls began is over
        before = {scheme: cpu_seconds(pid) for scheme, pid in pids.items()}
        time.sleep(SECONDS)
        for scheme, pid in pids.items():
            share = 100 * (cpu_seconds(pid) - before[scheme]) / SECONDS
            name = f"{scheme}, share of a core of an idle service"
            rows.append(most(name, share, LIMIT_PERCENT, "%"))
    return rows


if __name__ == "__main__":
    serve(*sys.argv[1:])
