"""Who switches versions is killed in the middle of it: all of a switch happened, or nothing, and
its op is applied once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fan
from fan.config_values import decode
from fan.stores.base import Store
from fan.writing import Write
from tests.configs import BOTH, PATIENCE, open_store
from tests.versions import World

#: Switches both services and a config to and fro, and says the op of each before it is sent and its
#: generation once it is in force.
_SWITCH = """
import sys
import fan
from fan.plugins import open_store
from fan.writing import Write

def say(*what):
    print(*what, flush=True)

with open_store(sys.argv[1], "default") as store:
    versions = fan.Versions(lambda: store, timeout=30.0)
    while True:
        for version in sys.argv[2:]:
            done = versions.switch(
                {"shop": version, "users": version},
                configs={"shop/theme": version},
                how=Write(announce=lambda op: say("op", op, version)),
            )
            say("gen", done.gen)
"""

OBJECTS = ("config/shop/theme", "route/shop", "route/users")


@pytest.fixture
def store(registry_url: str) -> Iterator[Store]:
    with open_store(registry_url) as store:
        yield store


@pytest.fixture
def world(store: Store, private: Path) -> Iterator[World]:
    world = World(store, private)
    for service in ("shop", "users"):
        world.register(service, "1.0.0", "2.0.0")
        world.adopt(service, "1.0.0")
    yield world
    world.close()


def killed_after(generations: int, url: str, *versions: str) -> list[list[str]]:
    """What a process said that switched to and fro between these and was killed as it had told so
    many generations, and was at the next one."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SWITCH, url, *versions], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        try:
            said = [process.stdout.readline() for _ in range(2 * generations + 1)]
        finally:
            process.kill()
        said += process.stdout
    return [line.split() for line in said]


def switched(store: Store) -> dict[str, int]:
    """The generation of each op that switched, all of whose objects it changed."""
    entries = store.log(0, deadline=World.deadline())
    assert [entry.gen for entry in entries] == list(range(1, len(entries) + 1))
    found = [entry for entry in entries if entry.verb == "switch"]
    assert all(tuple(sorted(diff.object for diff in e.diff)) == OBJECTS for e in found)
    assert len({entry.op for entry in found}) == len(found)
    return {entry.op: entry.gen for entry in found}


@BOTH
def test_a_switch_whose_process_is_killed_happened_as_a_whole_or_not_at_all_and_never_twice(
    registry_url: str, store: Store, world: World
) -> None:
    versions = fan.Versions(lambda: store, timeout=PATIENCE)
    for generations in range(1, 5):
        (version,) = world.routed("shop")
        other = {"1.0.0": "2.0.0", "2.0.0": "1.0.0"}[version]
        said = killed_after(generations, registry_url, other, version)
        ops = [op.rpartition(":")[2] for what, op, *_ in said if what == "op"]
        told = [int(gen) for what, gen, *_ in said if what == "gen"]
        gens = switched(store)
        assert [gens[op] for op in ops[: len(told)]] == told
        objects = store.read(OBJECTS, deadline=World.deadline()).objects
        (version,) = world.routed("shop")
        assert world.routed("shop") == world.routed("users") == {version: 10_000}
        theme = objects["config/shop/theme"].body
        assert theme is not None
        assert decode("shop/theme", theme) == version
        # The last one, which may have been under way, is sent again.
        _, op, version = [line for line in said if line[0] == "op"][-1]
        plan = {"shop": version, "users": version}
        versions.switch(plan, configs={"shop/theme": version}, how=Write(op=op))
        assert world.routed("shop") == world.routed("users") == {version: 10_000}
        assert switched(store).keys() - gens.keys() <= {ops[-1]}
        assert ops[-1] in switched(store)
