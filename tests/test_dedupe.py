"""One execution for one idempotency key, wherever the answers are kept: in the memory of each
process, or for all of them in the SQLite file or the Redis of the queues."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fan
from fan.settings import Settings

#: Seconds within which what has to happen has happened.
BOUND = 30.0
#: Where answers are shared.
SHARED = ["database", pytest.param("redis", marks=pytest.mark.redis)]


class Shop(fan.Service):
    """Counts what it does."""

    name = "shop"
    version = "1.0.0"

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.entered = threading.Semaphore(0)
        self.go = threading.Event()

    def _run(self, what: str) -> str:
        self.ran.append(what)
        return self.instance_id

    @fan.rpc(dedupe="shared")
    def buy(self, what: str) -> str:
        return self._run(what)

    @fan.rpc(dedupe="shared")
    def spoil(self, what: str) -> None:
        self._run(what)
        raise ValueError(what)

    @fan.rpc(dedupe="shared")
    def hold(self, what: str) -> str:
        self.entered.release()
        assert self.go.wait(BOUND)
        return self._run(what)

    @fan.rpc
    def buy_here(self, what: str) -> str:
        return self._run(what)


class World:
    """Two servers, each with a `Shop`, and a caller."""

    def __init__(self, folder: Path, queue: str, more: dict[str, Any]) -> None:
        self.shops = Shop(), Shop()
        self._settings = Settings(
            registry=f"sqlite:{folder}/registry.db", database_url=f"sqlite:{folder}/queue.db",
            runtime_dir=f"{folder}/run", queue=queue, namespace=f"n{fan.new_id()[:8]}", **more,
        )  # fmt: skip
        self.servers = [fan.App(shop, settings=self._settings) for shop in self.shops]
        self.caller = fan.App(settings=self._settings)
        for server in self.servers:
            server.start(["ipc"])

    @property
    def ran(self) -> list[str]:
        """What was done, anywhere."""
        return [what for shop in self.shops for what in shop.ran]

    def at(self, index: int, **options: Any) -> Callable[..., Any]:
        """Calls of one of the servers."""
        instance = self.shops[index].instance_id
        return self.caller.using(instance=instance, retries=0, **options).call

    def close(self) -> None:
        for shop in self.shops:
            shop.go.set()
        for app in (self.caller, *self.servers):
            app.close()


@pytest.fixture
def make(private: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[str], World]]:
    made: list[World] = []

    def world(queue: str) -> World:
        is_redis = queue == "redis"
        more = {"redis_url": request.getfixturevalue("redis_server").url} if is_redis else {}
        made.append(World(private, queue, more))
        return made[-1]

    yield world
    for one in made:
        one.close()


@pytest.mark.parametrize("queue", SHARED)
def test_a_shared_key_runs_once_whichever_process_is_asked(
    make: Callable[[str], World], queue: str
) -> None:
    world = make(queue)
    first = world.at(0, key="one")("shop.buy", "a")
    assert first == world.shops[0].instance_id
    assert [world.at(n, key="one")("shop.buy", "a") for n in (1, 0, 1)] == [first] * 3
    assert world.ran == ["a"]
    assert world.at(1, key="two")("shop.buy", "b") == world.shops[1].instance_id
    assert sorted(world.ran) == ["a", "b"]
    for n in (0, 1):  # without a key each call is one of its own
        world.at(n)("shop.buy", "c")
    assert sorted(world.ran) == ["a", "b", "c", "c"]


@pytest.mark.parametrize("queue", SHARED)
def test_a_failure_under_a_shared_key_is_repeated_and_not_run_again(
    make: Callable[[str], World], queue: str
) -> None:
    world = make(queue)
    for n in (0, 1, 0):
        with pytest.raises(fan.RemoteError, match="ValueError: a"):
            world.at(n, key="one")("shop.spoil", "a")
    assert world.ran == ["a"]


@pytest.mark.parametrize("queue", SHARED)
def test_a_duplicate_at_another_process_waits_for_the_first(
    make: Callable[[str], World], queue: str
) -> None:
    world = make(queue)
    clients = [
        world.caller.using(instance=s.instance_id, key="one", timeout=BOUND) for s in world.shops
    ]
    first = clients[0].submit("shop.hold", "a")
    assert world.shops[0].entered.acquire(timeout=BOUND)
    second = clients[1].submit("shop.hold", "a")
    world.shops[0].go.set()
    assert {first.result(BOUND), second.result(BOUND)} == {world.shops[0].instance_id}
    assert world.ran == ["a"]


def test_a_key_is_kept_in_the_memory_of_one_process_by_default(
    make: Callable[[str], World],
) -> None:
    world = make("database")
    for n in (0, 0, 1, 1):
        assert world.at(n, key="one")("shop.buy_here", "a") == world.shops[n].instance_id
    assert [shop.ran for shop in world.shops] == [["a"], ["a"]]
