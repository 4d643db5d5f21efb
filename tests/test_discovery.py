"""What an App knows of the registry: never older than what it was told, and nothing lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fan import App, Service, Settings, rpc
from fan.discovery import Discovery
from fan.errors import DeadlineExceeded, NotFound, Unavailable
from fan.model import Instance, Interface
from fan.stores.base import Change, Plan, Store
from fan.stores.memory import MemoryStore
from tests.configs import PATIENCE, STORES, make_store

#: A bound on hangs.
BOUND = 10.0
FOREVER = float("inf")


def instance(state: Any = "up", id: str = "a-1") -> Instance:
    return Instance(id=id, service="a", version="1.0.0", state=state)


INTERFACE = Interface(service="a", version="1.0.0")


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    with MemoryStore() as store:
        yield store


@pytest.fixture(params=STORES)
def any_store(request: pytest.FixtureRequest, private: Path) -> Iterator[Store]:
    with make_store(request, private) as store:
        yield store


@pytest.fixture
def discovery(store: MemoryStore) -> Iterator[Discovery]:
    discovery = Discovery(lambda: store)
    yield discovery
    discovery.close()


def states(store: MemoryStore) -> list[str]:
    records = store.list("inst", deadline=FOREVER)
    return [msgspec.json.decode(r.body, type=Instance).state for r in records]


def hook(target: Any, name: str, before: Callable[[], None]) -> None:
    """Run `before` once, ahead of the next call of a method."""
    real = getattr(target, name)

    def once(*args: Any, **kwargs: Any) -> Any:
        setattr(target, name, real)
        before()
        return real(*args, **kwargs)

    setattr(target, name, once)


def test_an_older_reading_does_not_replace_a_newer_one(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    discovery = Discovery(lambda: store, live=False)
    discovery.register(instance("starting"), INTERFACE)
    read, old = discovery._read, discovery._read("a", FOREVER)

    def slow(name: str, deadline: float) -> Any:
        monkeypatch.setattr(discovery, "_read", read)
        discovery.update(instance("up"))
        discovery.again("a", FOREVER)
        discovery._refresh("a", FOREVER)  # begins and ends while the first is under way
        return old

    monkeypatch.setattr(discovery, "_read", slow)
    discovery._refresh("a", FOREVER)
    assert [i.state for i in discovery._cache["a"].instances] == ["up"]
    discovery.close()


def test_what_is_kept_answers_until_it_is_forgotten_or_read_again(store: MemoryStore) -> None:
    discovery = Discovery(lambda: store, live=False)
    discovery.register(instance("starting"), INTERFACE)
    read = discovery.service("a")
    discovery.keep(read)
    discovery.update(instance("up"))
    assert discovery.service("a") is read
    discovery.forget("a")
    assert discovery.service("a").instances[0].state == "up"
    discovery.keep(read)
    assert discovery.again("a", FOREVER).instances[0].state == "up"
    assert discovery.service("a").instances[0].state == "up"
    discovery.close()


def test_what_is_kept_is_no_older_than_what_the_watch_told(
    discovery: Discovery, store: MemoryStore
) -> None:
    discovery.register(instance("starting"), INTERFACE)
    read = discovery.service("a")
    told = threading.Event()
    end = discovery.watch(lambda: told.set() if _state_of(discovery) == "up" else None)
    discovery.update(instance("up"))
    assert told.wait(BOUND)
    discovery.keep(read)
    assert _state_of(discovery) == "up"
    end()


def _state_of(discovery: Discovery) -> str:
    return discovery.service("a").instances[0].state


def test_a_watch_that_could_not_begin_is_begun_again(
    discovery: Discovery, store: MemoryStore
) -> None:
    discovery.register(instance("starting"), INTERFACE)

    def fail() -> None:
        raise Unavailable("not now")

    hook(store, "watch", fail)
    with pytest.raises(Unavailable):
        discovery.service("a")
    is_up = threading.Event()

    def look() -> None:
        if discovery.service("a").live("1.0.0"):
            is_up.set()

    discovery.watch(look)
    discovery.update(instance("up"))
    assert is_up.wait(BOUND)


def test_who_leaves_while_all_is_registered_again_is_gone(
    discovery: Discovery, store: MemoryStore
) -> None:
    discovery.register(instance(), INTERFACE)
    hook(store, "put", lambda: discovery.deregister("a-1"))
    discovery._on_lost()
    assert states(store) == []
    discovery._on_lost()
    assert states(store) == []


def test_a_state_that_changes_while_all_is_registered_again_is_kept(
    discovery: Discovery, store: MemoryStore
) -> None:
    discovery.register(instance("starting"), INTERFACE)
    hook(store, "put", lambda: discovery.update(instance("up")))
    discovery._on_lost()
    assert states(store) == ["up"]


def test_a_state_that_could_not_be_written_is_written_later(
    discovery: Discovery, store: MemoryStore
) -> None:
    discovery.register(instance("up"), INTERFACE)

    def fail() -> None:
        raise Unavailable("not now")

    hook(store, "put", fail)
    with pytest.raises(Unavailable):
        discovery.update(instance("draining"))
    discovery._on_lost()
    assert states(store) == ["draining"]


def test_nothing_is_registered_again_after_the_end(store: MemoryStore) -> None:
    discovery = Discovery(lambda: store)
    discovery.register(instance(), INTERFACE)
    discovery.close()
    threading.Thread(target=discovery._on_lost).start()
    assert not discovery._register_again()
    assert states(store) == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b"null", b"[]", b'{"id":1}', b"\xff", b'{"x":' + b"[" * 100_000]
)
def test_a_damaged_record_is_left_out(any_store: Store, body: bytes) -> None:
    discovery, store = Discovery(lambda: any_store, live=False), any_store
    discovery.register(instance(), INTERFACE)
    deadline = time.monotonic() + PATIENCE
    for kind, name in (("inst", "a/b"), ("iface", "a/2.0.0"), ("inst", "c/d")):
        store.put(kind, name, body, deadline=deadline)
    plan = Plan(changes=(Change(object="route/a", body=body),), verb="set")
    store.commit(plan, deadline=deadline)
    assert [i.id for i in discovery.service("a").instances] == ["a-1"]
    assert {s.name for s in discovery.services()} == {"a", "c"}
    assert discovery.adopt("a", "1.0.0", force=True)
    with pytest.raises(NotFound):
        discovery.service("b")
    discovery.close()


def test_fields_of_a_newer_fan_are_ignored(discovery: Discovery, store: MemoryStore) -> None:
    body = b'{"id":"a-2","service":"a","version":"2","of_tomorrow":{"x":[1]}}'
    store.put("inst", "a/a-2", body, deadline=FOREVER)
    assert [i.id for i in discovery.service("a").instances] == ["a-2"]


class Old(Service):
    name = "greeter"
    version = "1.0.0"

    @rpc
    def which(self) -> str:
        return self.version


class New(Old):
    version = "2.0.0"


def test_a_bound_endpoint_follows_a_route_that_another_app_moves(
    store: MemoryStore, tmp_path: Any
) -> None:
    settings = Settings(registry="memory:", runtime_dir=str(tmp_path))
    with (
        App(Old(), settings=settings, store=store) as one,
        App(New(), settings=settings, store=store.another()) as two,
    ):
        one.start(["ipc"])
        which = one.bind("greeter.which")
        assert which() == "1.0.0"
        has_moved = threading.Event()

        def look() -> None:
            route = one.discovery.service("greeter").route
            if route is not None and "2.0.0" in route.versions:
                has_moved.set()

        one.discovery.watch(look)
        two.start(["ipc"], adopt=True)
        assert has_moved.wait(BOUND)
        assert which() == "2.0.0"


class Large(MemoryStore):
    """A registry that counts how often all of it was listed, and may be too large for that."""

    def __init__(self) -> None:
        super().__init__()
        self.listed = 0
        self.is_endless = False

    def list(self, kind: str, prefix: str = "", *, deadline: float) -> Any:
        if not prefix and kind == "inst":
            self.listed += 1
            if self.is_endless:
                assert deadline - time.monotonic() < BOUND / 2  # a part of what the caller has
                raise DeadlineExceeded("no time was left to read the registry")
        return super().list(kind, prefix, deadline=deadline)


@pytest.fixture
def large() -> Iterator[Large]:
    with Large() as store:
        yield store


@pytest.mark.parametrize("live", [False, True])
def test_a_misspelt_name_reads_the_whole_registry_once_and_not_at_each_call(
    large: Large, live: bool
) -> None:
    discovery = Discovery(lambda: large, live=live)
    discovery.register(instance(), INTERFACE)
    for name in ("aa", "ab", "aa"):
        with pytest.raises(NotFound) as info:
            discovery.service(name, time.monotonic() + BOUND)
        assert info.value.reason == "no_such_service"
    assert info.value.details["similar"] == ["a"]
    assert large.listed == 1
    discovery.close()


def test_a_name_is_unknown_also_where_the_others_cannot_be_listed_in_time(large: Large) -> None:
    large.is_endless = True
    discovery = Discovery(lambda: large, live=False)
    for _ in range(2):
        with pytest.raises(NotFound) as info:
            discovery.service("aa", time.monotonic() + BOUND)
        assert info.value.reason == "no_such_service"
    assert large.listed == 1
