"""Listing 10,000 instances, as a whole command: the base line are the seconds that it may take, on
SQLite and on ZooKeeper."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from processes import fan_program

from fan import Address, Instance, Interface
from fan.plugins import open_store
from fan.stores.base import Store
from fan.tools.servers_zookeeper import ZooKeeper

INSTANCES, SERVICES = 10_000, 100
ROUNDS = 7
#: Seconds that the command may take.
LIMITS = {"sqlite": 1.0, "zookeeper": 3.0}
#: A bound on hangs, in seconds.
PATIENCE = 600.0


def run() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="fan-bench-") as folder:
        rows = [row("sqlite", f"sqlite:{folder}/registry.db")]
    if problem := ZooKeeper.missing():
        print(f"   zookeeper is left out: {problem}")
        return rows
    with ZooKeeper() as server:
        return [*rows, row("zookeeper", server.start().url)]


def row(kind: str, url: str) -> dict[str, Any]:
    with open_store(url, "default") as store:
        fill(store)
        took = statistics.median(list_s(url) for _ in range(ROUNDS))
    limit = LIMITS[kind]
    return dict(
        name=f"{kind}, fan discover list, 10,000 instances : {limit:g} s", unit="s", ours=took,
        base=limit, ratio=took / limit, target=1.0, ok=took <= limit,
    )  # fmt: skip


def fill(store: Store) -> None:
    deadline = time.monotonic() + PATIENCE
    session = store.open_session(deadline=deadline)

    def write(number: int) -> None:
        name = f"service{number % SERVICES:03}"
        instance = Instance(
            id=f"{name}-{number:012}",
            service=name,
            version="1.0.0",
            addresses=(Address("unix:///run/fan/x.sock"), Address("http://10.0.0.1:8080")),
            nonce="0" * 32,
            host="host",
            started_at="2026-01-01T00:00:00.000Z",
        )
        body = msgspec.json.encode(instance)
        store.put("inst", f"{name}/{instance.id}", body, session=session, deadline=deadline)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(INSTANCES)))
    for number in range(SERVICES):
        body = msgspec.json.encode(Interface(service=f"service{number:03}", version="1.0.0"))
        store.put("iface", f"service{number:03}/1.0.0", body, deadline=deadline)


def list_s(url: str) -> float:
    env = {**os.environ, "FAN_REGISTRY": url}
    began = time.perf_counter()
    done = subprocess.run([fan_program(), "discover", "list"], env=env, capture_output=True,
                          check=True)  # fmt: skip
    took = time.perf_counter() - began
    assert done.stdout.count(b"\n") == SERVICES
    return took
