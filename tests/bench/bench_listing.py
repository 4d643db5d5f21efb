"""Listing 10,000 instances, as a whole command: the base line is the second that it may take."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
from processes import fan_program

from fan import Address, Instance, Interface
from fan.stores.sqlite import SqliteStore

INSTANCES, SERVICES = 10_000, 100
ROUNDS = 7
#: Seconds that the command may take.
TARGET = 1.0


def run() -> list[dict[str, Any]]:
    folder = Path(tempfile.mkdtemp(prefix="fan-bench-"))
    path = folder / "registry.db"
    try:
        with SqliteStore(str(path)) as store:
            fill(store)
            took = statistics.median(list_s(path) for _ in range(ROUNDS))
        return [
            dict(
                name="fan discover list, 10,000 instances : 1 s", unit="s", ours=took, base=TARGET,
                ratio=took / TARGET, target=1.0, ok=took <= TARGET,
            )
        ]  # fmt: skip
    finally:
        shutil.rmtree(folder)


def fill(store: SqliteStore) -> None:
    deadline = time.monotonic() + 600
    session = store.open_session(deadline=deadline)
    for number in range(INSTANCES):
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
    for number in range(SERVICES):
        body = msgspec.json.encode(Interface(service=f"service{number:03}", version="1.0.0"))
        store.put("iface", f"service{number:03}/1.0.0", body, deadline=deadline)


def list_s(path: Path) -> float:
    env = {**os.environ, "FAN_REGISTRY": f"sqlite:{path}"}
    began = time.perf_counter()
    done = subprocess.run([fan_program(), "discover", "list"], env=env, capture_output=True,
                          check=True)  # fmt: skip
    took = time.perf_counter() - began
    assert done.stdout.count(b"\n") == SERVICES
    return took
