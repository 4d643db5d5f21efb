"""Which instance a shard key belongs to: templates, owned and hashed, holes and overlaps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

import fan
from fan.errors import FailedPrecondition, InvalidArgument, Unavailable
from fan.model import Instance, Route
from fan.shard import Sharding, ShardRule
from fan.stores.base import Change, Plan
from fan.stores.base import Store as RegistryStore
from fan.stores.memory import MemoryStore
from tests.configs import PATIENCE, STORES, another, make_store

PATH = "/store/{shard1}/item/{shard2}/"


def soon() -> float:
    return time.monotonic() + PATIENCE


def sharding(template: str = PATH, mode: Any = "hashed", **map: dict[str, list[str]]) -> Sharding:
    return Sharding(ShardRule(template, mode, map))


def instance(id: str, **shards: list[str]) -> Instance:
    return Instance(id=id, service="store", version="1.0.0", shards=shards)


def key(of: Sharding, given: str = "", **arguments: Any) -> str:
    return of.key("store", given, lambda: arguments)


@pytest.mark.parametrize(
    "template",
    ["", "/store/", "/{a}{b}/", "/{a}/{a}/", "/{a/", "/a}/", "/{1}/", "/{a b}/", "/{}/", "{{a}}"],
)
def test_a_template_that_makes_no_sense_is_refused(template: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        sharding(template)
    assert caught.value.reason == "bad_shard"


def test_a_map_of_a_variable_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="other"):
        sharding(other={"a": ["x"]})


@pytest.mark.parametrize(
    ("template", "given", "values"),
    [
        (PATH, "/store/7/item/9/", {"shard1": "7", "shard2": "9"}),
        (PATH, "/store/7/item/9", {"shard1": "7", "shard2": "9"}),
        (PATH, "/store/a%2Fb/item/%20%C3%BC/", {"shard1": "a/b", "shard2": " ü"}),
        ("/user/{id}/", "/user/7/", {"id": "7"}),
        ("/user/{id}/", "7", {"id": "7"}),
        ("/user/{id}/", "a/b", {"id": "a/b"}),
        ("{id}", "a%2Fb/", {"id": "a%2Fb/"}),
        ("u.{id}+", "u.7+", {"id": "7"}),
    ],
)
def test_a_key_is_a_path_or_the_one_value(
    template: str, given: str, values: dict[str, str]
) -> None:
    assert sharding(template).parse(given) == values


@pytest.mark.parametrize("given", ["", "7", "/store/7/", "/store//item/9/", "/store/7/item/9/x/"])
def test_what_is_no_key_of_the_template_is_refused(given: str) -> None:
    with pytest.raises(InvalidArgument):
        sharding().parse(given)


@pytest.mark.parametrize("template", [PATH, "{shard1}"])
def test_arguments_and_a_given_key_make_the_same_key(template: str) -> None:
    of = sharding(template)
    made = key(of, shard1="a/b%2F ü", shard2=9)
    assert key(of, made) == made
    assert of.parse(made)["shard1"] == "a/b%2F ü"


@pytest.mark.parametrize(
    "arguments",
    [{}, {"shard1": 7}, {"shard1": 7, "shard2": None}, {"shard1": 7, "shard2": ""},
     {"shard1": 7, "shard2": [1]}, {"shard1": 7, "shard2": 1.5}],
)  # fmt: skip
def test_a_missing_value_is_an_error_and_no_default(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="shard2") as caught:
        key(sharding(), **arguments)
    assert (caught.value.reason, caught.value.executed) == ("bad_shard", "no")


def owners(of: Sharding, fleet: list[Instance], **values: str) -> list[str]:
    return [i.id for i in of.narrow(values, fleet, fleet)]


def test_owned_keys_go_to_who_declares_them() -> None:
    of = sharding(mode="owned")
    fleet = [instance("x", shard1=["a", "b"]), instance("y", shard1=["c"])]
    assert owners(of, fleet, shard1="b", shard2="anything") == ["x"]
    assert owners(of, fleet, shard1="c", shard2="1") == ["y"]
    assert owners(of, fleet, shard1="d", shard2="1") == []
    with pytest.raises(Unavailable, match="shard1=d") as caught:
        of.owners("store", {"shard1": "d", "shard2": "1"}, fleet, fleet)
    assert (caught.value.reason, caught.value.executed) == ("no_instance", "no")


def test_two_variables_are_owned_together() -> None:
    of = sharding(mode="owned")
    fleet = [
        instance("x", shard1=["a"], shard2=["1"]),
        instance("y", shard1=["a"], shard2=["2"]),
        instance("z", shard1=["b"]),
    ]
    assert owners(of, fleet, shard1="a", shard2="2") == ["y"]
    assert owners(of, fleet, shard1="b", shard2="2") == []


def test_who_declares_nothing_owns_nothing() -> None:
    of = sharding("{user}", "owned")
    assert owners(of, [instance("x")], user="ada") == []
    assert owners(of, [instance("x"), instance("y", user=["ada"])], user="ada") == ["y"]


def test_an_owner_that_is_down_leaves_a_hole_and_no_heir() -> None:
    of = sharding("{user}", "owned")
    gone, there = instance("x", user=["ada"]), instance("y")
    assert of.narrow({"user": "ada"}, [there], [gone, there]) == ()


@pytest.mark.parametrize("mode", ["owned", "hashed"])
def test_the_map_stands_above_what_is_declared_and_hashed(mode: str) -> None:
    of = sharding("{user}", mode, user={"ada": ["y"]})
    fleet = [instance("x", user=["ada", "bob"]), instance("y"), instance("z")]
    assert owners(of, fleet, user="ada") == ["y"]
    assert owners(of, fleet, user="bob") == (["x"] if mode == "owned" else ["x", "y", "z"])


def test_a_fifth_instance_takes_about_a_fifth_of_the_keys() -> None:
    from fan.balancer import by_shard

    fleet = [instance(f"store-{n}") for n in range(5)]
    keys = [key(sharding(), shard1=n % 97, shard2=n) for n in range(10_000)]
    before = {each: by_shard(fleet[:4], each) for each in keys}
    after = {each: by_shard(fleet, each) for each in keys}
    moved = [each for each in keys if after[each] is not before[each]]
    assert all(after[each].id == "store-4" for each in moved)
    assert 0.17 < len(moved) / len(keys) < 0.23


def said(of: Sharding, *fleet: Instance, down: tuple[Instance, ...] = ()) -> list[str]:
    return list(of.problems(fleet, (*fleet, *down)))


def test_a_check_finds_holes_and_overlaps() -> None:
    of = sharding(mode="owned")
    x, y = instance("x", shard1=["a", "b"]), instance("y", shard1=["b"])
    assert said(of, x) == []
    assert said(of, x, y) == ["overlap: x, y have shard1=b"]
    assert said(of, y, down=(x,)) == ["hole: no live instance has shard1=a"]
    assert said(of, instance("z")) == [f"hole: no instance declares shards of {PATH}"]
    assert said(of, x, instance("z", other=["1"])) == [
        f"unknown: instances declare other, which is not in {PATH}"
    ]


def test_a_check_finds_a_wanted_value_that_nobody_declares() -> None:
    of = Sharding(ShardRule("{user}", "owned", values={"user": ["ada", "bob"]}))
    assert said(of, instance("x", user=["ada"])) == ["hole: no live instance has user=bob"]


def test_a_check_combines_the_variables() -> None:
    of = sharding(mode="owned")
    x = instance("x", shard1=["a"], shard2=["1"])
    y = instance("y", shard1=["b"], shard2=["1", "2"])
    assert said(of, x, y) == ["hole: no live instance has shard1=a, shard2=2"]


def test_a_check_of_many_combinations_ends() -> None:
    many = [str(n) for n in range(300)]
    of = sharding(mode="owned")
    assert said(of, instance("x", shard1=many, shard2=many)) == []


def test_a_check_finds_a_map_to_who_is_not_there() -> None:
    of = sharding("{user}", user={"ada": ["gone"]})
    assert said(of, instance("x")) == ["hole: no live instance has user=ada"]


@pytest.mark.parametrize("shard", [{"x": 1}, {"template": "/{a"}, {"template": "{a}", "mode": "?"}])
def test_a_rule_that_cannot_be_understood_sends_no_key_anywhere(shard: dict[str, Any]) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        Sharding.of("store", Route(shard=shard))
    assert caught.value.reason == "bad_shard"


# Whole Apps


class Store(fan.Service):
    name = "store"
    version = "1.0.0"

    def __init__(self) -> None:
        self.taken: SimpleQueue[int] = SimpleQueue()

    @fan.push
    def put(self, shard1: int) -> None:
        self.taken.put(shard1)

    @fan.rpc
    def get(self, shard1: int, shard2: str = "x") -> str:
        return self.instance_id


class World:
    """Two instances of a service on one registry, and who calls them."""

    def __init__(self, store: RegistryStore, folder: str) -> None:
        self.store = store
        self._stores = [another(store) for _ in range(3)]
        settings = fan.Settings(runtime_dir=folder)
        self.apps = []
        for number, mine in zip(("1", "2"), self._stores, strict=False):
            one = Store()
            one.shards = {"shard1": [number]}
            app = fan.App(settings=settings, store=mine)
            app.add(one, f"store-{number}")
            app.start(["ipc"])
            self.apps.append(app)
        self.caller = fan.App(settings=settings, store=self._stores[-1])

    def reshard(self, template: str, mode: Any = "owned", **map: dict[str, list[str]]) -> None:
        self.caller.operations.reshard("store", ShardRule(template, mode, map))
        self.catch_up()

    def catch_up(self) -> None:
        """Have every App see what the registry has."""
        for app in (self.caller, *self.apps):
            app.mirror.refresh(soon())
            app.discovery.again("store", soon())

    def close(self) -> None:
        for each in (self.caller, *self.apps, *self._stores):
            each.close()


@pytest.fixture(params=STORES)
def world(request: pytest.FixtureRequest, private: Path) -> Iterator[World]:
    with make_store(request, private) as store:
        made = World(store, str(private / "run"))
        yield made
        made.close()


def test_a_call_goes_to_the_owner_of_its_arguments(world: World) -> None:
    world.reshard(PATH)
    assert world.caller.call("store.get", shard1=1, shard2="a") == "store-1"
    assert world.caller.call("store.get", shard1=2, shard2="a") == "store-2"
    assert world.caller.call("store.get", 2, "a") == "store-2"
    sharded = world.caller.using(shard="/store/1/item/a/")
    assert sharded.call("store.get", shard1=2) == "store-1"


def test_a_call_without_a_shard_value_runs_nowhere(world: World) -> None:
    world.reshard(PATH)
    with pytest.raises(InvalidArgument, match="shard2") as caught:
        world.caller.call("store.get", shard1=1)
    assert caught.value.executed == "no"
    with pytest.raises(Unavailable, match="shard1=3"):
        world.caller.call("store.get", shard1=3, shard2="a")


def test_an_owner_asks_the_other_for_what_is_not_its_own(world: World) -> None:
    world.reshard(PATH)
    for app in world.apps:
        found = [app.call("store.get", shard1=n, shard2="a") for n in (1, 2)]
        assert found == ["store-1", "store-2"]


def test_built_in_methods_and_a_named_instance_need_no_key(world: World) -> None:
    world.reshard(PATH)
    assert world.caller.call("store.health") == "ok"
    named = world.caller.using(instance="store-2")
    assert named.call("store.get", shard1=1) == "store-2"


def test_a_push_goes_to_the_owner_or_is_refused_and_never_to_a_queue_that_all_share(
    world: World,
) -> None:
    with pytest.raises(InvalidArgument, match="a shard key cannot be asked for"):
        world.caller.using(transport="database", shard="1").push("store.put", shard1=1)
    world.reshard("{shard1}")
    direct = world.caller.using(transport="ipc")
    for number in (1, 2):
        direct.push("store.put", shard1=number)
    stores = [app.services[0].service for app in world.apps]
    assert [store.taken.get(timeout=PATIENCE) for store in stores] == [1, 2]
    for queued in (world.caller.client, world.caller.using(transport="database")):
        with pytest.raises(InvalidArgument, match=r"its queue of pushes is that of all") as no:
            queued.push("store.put", shard1=1)
        assert (no.value.reason, no.value.executed) == ("bad_shard", "no")
        with pytest.raises(InvalidArgument):
            queued.resolve("store", "put", kind="push")
    assert [store.taken.empty() for store in stores] == [True, True]


def test_resharding_is_a_generation_that_can_be_taken_back(world: World) -> None:
    world.reshard("{shard1}")
    assert world.caller.call("store.get", shard1=1) == "store-1"
    before = world.store.read(["route/store"], deadline=soon()).objects["route/store"]
    world.reshard("{shard1}", shard1={"1": ["store-2"]})
    assert world.caller.call("store.get", shard1=1) == "store-2"
    back = Change(object="route/store", to_rev=before.rev)
    world.store.commit(Plan(changes=(back,), verb="rollback"), deadline=soon())
    world.catch_up()
    assert world.caller.call("store.get", shard1=1) == "store-1"


def test_a_drained_owner_is_a_hole(world: World) -> None:
    world.reshard("{shard1}")
    operations = world.caller.operations
    operations.override(operations.find("store", id="store-1"), "draining")
    world.catch_up()
    with pytest.raises(Unavailable, match="shard1=1"):
        world.caller.call("store.get", shard1=1)
    kinds = [(f.kind, f.what) for f in operations.check("store")]
    assert kinds == [("hole", "no live instance has shard1=1")]


def test_a_service_without_a_route_cannot_be_resharded(world: World) -> None:
    with pytest.raises(fan.NotFound):
        world.caller.operations.reshard("nobody", ShardRule("{x}"))
    unpin = Change(object="route/store", unpin=True)
    world.store.commit(Plan(changes=(unpin,), verb="x"), deadline=soon())
    with pytest.raises(FailedPrecondition, match="no route"):
        world.reshard("{shard1}")


def test_shards_that_are_none_are_refused_at_the_start(private: Any) -> None:
    one = Store()
    one.shards = {"shard1": 7}  # type: ignore[dict-item]
    settings = fan.Settings(registry="memory:", runtime_dir=str(private))
    with (
        MemoryStore("bad") as store,
        fan.App(one, settings=settings, store=store) as app,
        pytest.raises(ValueError, match="dict of lists"),
    ):
        app.start(["ipc"])
