"""Switches and rollbacks of two services at once, with drains, under load: no call fails, and no
call tree sees a mix."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from fan import Confirm, FanError
from tests.soak.fleet import BOUND, Fleet, Worker, until

pytestmark = pytest.mark.soak

ZOOKEEPER = pytest.param("zookeeper", marks=pytest.mark.zookeeper)
PATIENT = Confirm(timeout=BOUND)


class Trees:
    """Callers of one service, which calls the other: the versions that each call came through."""

    def __init__(self, client: Any, front: str, back: str, callers: int = 6) -> None:
        self.seen: list[tuple[str, ...]] = []
        self.failures: list[FanError] = []
        self._call = lambda: client.call(f"{front}.versions", [back])
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(callers)]
        for thread in self._threads:
            thread.start()

    def wait_for_more(self, n: int) -> list[tuple[str, ...]]:
        """The next `n` calls that are answered, at least."""
        now = len(self.seen)
        until(lambda: len(self.seen) >= now + n or bool(self.failures), f"{n} more calls")
        return self.seen[now:]

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(BOUND)

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                self.seen.append(tuple(self._call()))
            except FanError as exc:
                self.failures.append(exc)


@pytest.mark.parametrize("store", ["sqlite", ZOOKEEPER])
def test_no_call_fails_or_sees_a_mix_during_switches_and_rollbacks_with_drains(
    store: str,
    scale: Callable[[int, int], int],
    request: pytest.FixtureRequest,
    new_fleet: Callable[..., Fleet],
) -> None:
    registry = {} if store == "sqlite" else {
        "registry": request.getfixturevalue("zookeeper_server").url,
        "namespace": f"soak-{uuid.uuid4().hex[:8]}",
    }  # fmt: skip
    fleet = new_fleet("ipc", **registry)
    front, back = f"{fleet.service}-front", f"{fleet.service}-back"
    versions = fleet.client.versions

    def pair(version: str) -> tuple[Worker, Worker]:
        """One worker of each service, ready."""
        started = (fleet.one(front, version), fleet.one(back, version))
        for worker in started:
            worker.wait_ready()
        return started

    old, new = pair("1.0.0"), pair("2.0.0")
    trees = Trees(fleet.client.using(timeout=BOUND), front, back)
    try:
        for _ in range(scale(2, 50)):
            assert set(trees.wait_for_more(50)) == {("1.0.0", "1.0.0")}
            switched = versions.switch({front: "2.0.0", back: "2.0.0"}, confirm=PATIENT)
            assert switched.failure is None
            fleet.stop(*old)  # the one that calls first: it may still need the other
            old = pair("1.0.0")
            trees.wait_for_more(20)
            assert set(trees.wait_for_more(20)) == {("2.0.0", "2.0.0")}
            assert versions.rollback(confirm=PATIENT).failure is None
            fleet.stop(*new)
            new = pair("2.0.0")
            trees.wait_for_more(20)
    finally:
        trees.stop()
    assert [str(failure) for failure in trees.failures] == []
    assert {a == b for a, b in trees.seen} == {True}
    fleet.stop()
