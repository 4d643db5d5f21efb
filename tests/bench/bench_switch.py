"""A switch that a hundred consumers confirm, in a registry with ten other services and with a
thousand. The consumers are Apps of four processes on one SQLite registry; the clock runs from the
call of `switch` until it returns confirmed by all."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

import fan
from fan.model import Instance, Interface, MethodInfo, Route
from fan.stores.base import Change, Plan
from fan.stores.sqlite import SqliteStore

CONSUMERS = 100
PROCESSES = 4
ROUNDS = 30
#: Milliseconds that half of the switches may take.
LIMIT = 250.0
#: How much a thousand services may add to what ten cost.
GROWTH = 1.5
#: A bound on hangs, in seconds.
PATIENCE = 60.0

CONSUMER = """
import sys
import fan

apps = [fan.App(settings=fan.Settings(registry=sys.argv[1])) for _ in range(int(sys.argv[2]))]
for app in apps:
    app.discovery.service("shop")
print("ready", flush=True)
sys.stdin.read()
for app in apps:
    app.close()
"""


def run() -> list[dict[str, Any]]:
    few, many = measure(10), measure(1_000)
    return [
        dict(
            name=f"a switch confirmed by {CONSUMERS} consumers, p50 : limit", unit="ms",
            ours=few, base=LIMIT, ratio=few / LIMIT, target=f"<= {LIMIT:g} ms", ok=few <= LIMIT,
        ),
        dict(
            name="the same among 1,000 services : among 10", unit="ms",
            ours=many, base=few, ratio=many / few, target=GROWTH, ok=many <= GROWTH * few,
        ),
    ]  # fmt: skip


def measure(others: int) -> float:
    """Median milliseconds of a confirmed switch."""
    with tempfile.TemporaryDirectory(prefix="fan-") as folder:
        path = f"{folder}/registry.db"
        with SqliteStore(path) as store:
            fill(store, others)
            with consumers(f"sqlite:{path}"):
                versions = fan.Versions(lambda: store, timeout=PATIENCE)
                return statistics.median(switches(versions)) * 1e3


def switches(versions: fan.Versions) -> Iterator[float]:
    for number in range(ROUNDS):
        version = ("2.0.0", "1.0.0")[number % 2]
        began = time.perf_counter()
        done = versions.switch({"shop": version}, confirm=fan.Confirm(timeout=PATIENCE))
        yield time.perf_counter() - began
        assert done.failure is None
        assert len(done.confirmed.applied) == CONSUMERS


def fill(store: SqliteStore, others: int) -> None:
    """`shop` in two versions, and that many other services with a route each."""
    deadline = time.monotonic() + PATIENCE
    session = store.open_session(deadline=deadline)
    method = MethodInfo("hello", doc="Greet somebody.", returns={"type": "string"})

    def put(kind: str, name: str, body: Any, **how: Any) -> None:
        store.put(kind, name, msgspec.json.encode(body), deadline=deadline, **how)

    names = ["shop", *(f"other{number}" for number in range(others))]
    for name in names:
        for version in ("1.0.0", "2.0.0"):
            interface = Interface(service=name, version=version, methods=(method,) * 8)
            put("iface", f"{name}/{version}", interface)
        for version in ("1.0.0", "2.0.0") if name == "shop" else ("1.0.0",):
            instance = Instance(id=f"{name}-{version}", service=name, version=version)
            put("inst", f"{name}/{instance.id}", instance, session=session)
    body = msgspec.json.encode(Route(versions={"1.0.0": 10_000}))
    routes = tuple(Change(object=f"route/{name}", body=body) for name in names)
    store.commit(Plan(changes=routes, verb="adopt"), deadline=deadline)


@contextmanager
def consumers(registry: str) -> Iterator[None]:
    """A hundred Apps that use `shop`, until the block ends."""
    each = str(CONSUMERS // PROCESSES)
    running = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", CONSUMER, registry, each], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )
        for _ in range(PROCESSES)
    ]  # fmt: skip
    try:
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield
    finally:
        for process in running:
            process.communicate(timeout=PATIENCE)
