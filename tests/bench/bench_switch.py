"""A switch that a hundred consumers confirm, in a registry with ten other services and with a
thousand, in turns, on SQLite and on ZooKeeper. The consumers are Apps of four processes; the clock
runs from the call of `switch` until it returns confirmed by all."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec

import fan
from fan.model import Instance, Interface, MethodInfo, Route
from fan.plugins import open_store
from fan.registration import put_interface
from fan.stores.base import Change, Plan, Store
from fan.tools.servers_zookeeper import ZooKeeper

CONSUMERS = 100
PROCESSES = 4
ROUNDS = 30
#: Milliseconds that half of the switches may take.
LIMITS = {"sqlite": 250.0, "zookeeper": 500.0}
#: How much a thousand services may add to what ten cost.
GROWTH = 1.5
#: A bound on hangs, in seconds.
PATIENCE = 300.0

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
    with tempfile.TemporaryDirectory(prefix="fan-") as folder:
        rows = rows_of("sqlite", [f"sqlite:{folder}/{name}.db" for name in ("few", "many")])
    if problem := ZooKeeper.missing():
        print(f"   zookeeper is left out: {problem}")
        return rows
    with ZooKeeper() as server:
        url = server.start().url
        return [*rows, *rows_of("zookeeper", [f"{url}/few", f"{url}/many"])]


def rows_of(kind: str, registries: list[str]) -> list[dict[str, Any]]:
    few, many = measure(dict(zip((10, 1_000), registries, strict=True)))
    limit = LIMITS[kind]
    return [
        dict(
            name=f"{kind}, a switch confirmed by {CONSUMERS} consumers : limit", unit="ms",
            ours=few, base=limit, ratio=few / limit, target=f"<= {limit:g} ms", ok=few <= limit,
        ),
        dict(
            name=f"{kind}, the same among 1,000 services : among 10", unit="ms",
            ours=many, base=few, ratio=many / few, target=GROWTH, ok=many <= GROWTH * few,
        ),
    ]  # fmt: skip


def measure(registries: dict[int, str]) -> list[float]:
    """Median milliseconds of a confirmed switch, for each number of other services."""
    with ExitStack() as stack:
        each = []
        for others, registry in registries.items():
            store = stack.enter_context(open_store(registry, "default"))
            fill(store, others)
            stack.enter_context(consumers(registry))
            each.append(switches(fan.Versions(lambda store=store: store, timeout=PATIENCE)))
        taken = list(zip(*each, strict=True))
    return [statistics.median(times) * 1e3 for times in zip(*taken, strict=True)]


def switches(versions: fan.Versions) -> Iterator[float]:
    for number in range(ROUNDS):
        version = ("2.0.0", "1.0.0")[number % 2]
        began = time.perf_counter()
        done = versions.switch({"shop": version}, confirm=fan.Confirm(timeout=PATIENCE))
        yield time.perf_counter() - began
        assert done.failure is None
        assert len(done.confirmed.applied) == CONSUMERS


def fill(store: Store, others: int) -> None:
    """`shop` in two versions, and that many other services with a route each."""
    deadline = time.monotonic() + PATIENCE
    session = store.open_session(deadline=deadline)
    method = MethodInfo("hello", doc="Greet somebody.", returns={"type": "string"})

    def register(name: str) -> None:
        for version in ("1.0.0", "2.0.0"):
            interface = Interface(service=name, version=version, methods=(method,) * 8)
            put_interface(store, interface, deadline)
        for version in ("1.0.0", "2.0.0") if name == "shop" else ("1.0.0",):
            instance = Instance(id=f"{name}-{version}", service=name, version=version)
            body = msgspec.json.encode(instance)
            at = f"{name}/{instance.id}"
            store.put("inst", at, body, session=session, deadline=deadline)

    names = ["shop", *(f"other{number}" for number in range(others))]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(register, names))
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
