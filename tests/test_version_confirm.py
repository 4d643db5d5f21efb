"""Who is waited for, who is not, and what is told of those who do not come."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fan import Aborted, Configs, Confirm, Unavailable, Versions, Write
from fan.model import Applied
from fan.stores.base import Store
from fan.stores.memory import MemoryStore
from fan.version_confirm import Roll, services_of
from fan.version_undo import entry_of
from tests.configs import PATIENCE, STORES, another, eventually, make_store
from tests.versions import World

#: For those of whom the test knows that they never come.
BRIEFLY = Confirm(timeout=0.2)


class Limits(msgspec.Struct):
    size: int = 1


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, private: Path) -> Iterator[Store]:
    with make_store(request, private) as store:
        yield store


@pytest.fixture
def world(store: Store, private: Path) -> Iterator[World]:
    world = World(store, private)
    for service in ("shop", "stock"):
        world.register(service, "1.0", "2.0")
        world.adopt(service, "1.0")
    yield world
    world.close()


def ids(consumers: Any) -> list[str]:
    return [consumer.id for consumer in consumers]


def mine(app: Any) -> str:
    found: str = app.consumer.record.id
    return found


def test_it_is_confirmed_once_every_user_has_it_in_force(world: World) -> None:
    apps = [world.app("shop") for _ in range(3)]
    done = world.versions.switch({"shop": "2.0"})
    assert sorted(ids(done.confirmed.applied)) == sorted(map(mine, apps))
    assert done.failure is None
    assert all(app.discovery.gen >= done.gen for app in apps)
    assert all(app.discovery.service("shop").route.versions == {"2.0": 10_000} for app in apps)


def test_who_does_not_use_the_service_is_not_waited_for(world: World) -> None:
    session = world.consumer("stock")
    done = world.versions.switch({"shop": "2.0"})
    assert (done.confirmed.total, done.failure) == (0, None)
    session.close()


def test_who_reads_a_config_of_the_owner_is_waited_for(world: World) -> None:
    session = world.consumer("shop")
    done = world.versions.switch({}, configs={"shop/theme": "dark"}, confirm=BRIEFLY)
    assert ids(done.confirmed.pending) == ["silent"]
    session.close()


def test_who_does_not_come_in_time_is_listed_and_the_change_is_in_force(world: World) -> None:
    session = world.consumer("shop")
    app = world.app("shop")
    # The App takes a moment, and the other one never comes.
    done = world.versions.switch({"shop": "2.0"}, confirm=Confirm(timeout=3.0))
    assert ids(done.confirmed.pending) == ["silent"]
    assert ids(done.confirmed.applied) == [mine(app)]
    assert done.failure is not None
    assert (done.failure.reason, done.failure.executed) == ("not_confirmed", "yes")
    assert "silent (host there, pid 7) is at generation 0" in str(done.failure)
    assert world.routed("shop") == {"2.0": 10_000}
    session.close()


def test_a_share_of_them_may_be_enough(world: World) -> None:
    session = world.consumer("shop")
    for _ in range(2):
        world.app("shop")
    done = world.versions.switch({"shop": "2.0"}, confirm=Confirm(need=0.6, timeout=PATIENCE))
    assert (done.failure, len(done.confirmed.applied)) == (None, 2)
    session.close()


def test_nobody_needs_to_be_waited_for(world: World) -> None:
    session = world.consumer("shop")
    done = world.versions.switch({"shop": "2.0"}, confirm=Confirm(need=0.0))
    assert (done.failure, ids(done.confirmed.pending)) == (None, ["silent"])
    session.close()


def test_who_vanishes_is_lost_and_not_confirmed(world: World) -> None:
    session = world.consumer("shop")
    seen: list[int] = []

    def progress(tally: Any) -> None:
        seen.append(len(tally.pending))
        session.close()

    how = Confirm(timeout=PATIENCE, on_progress=progress)
    done = world.versions.switch({"shop": "2.0"}, confirm=how)
    assert seen[0] == 1
    assert (ids(done.confirmed.lost), done.confirmed.applied) == (["silent"], ())


def test_an_acknowledgement_with_another_op_does_not_count(world: World) -> None:
    epoch = world.store.head(deadline=world.deadline()).epoch
    gen = world.gen() + 1
    sessions = [
        world.consumer("shop", applied=Applied(epoch, gen, "other"), id="op"),
        world.consumer("shop", applied=Applied("other", gen, ""), id="epoch"),
        world.consumer("shop", applied=Applied(epoch, gen + 7, "x"), id="future"),
    ]
    done = world.versions.switch({"shop": "2.0"}, confirm=BRIEFLY)
    assert ids(done.confirmed.pending) == ["epoch", "future", "op"]
    for session in sessions:
        session.close()


def test_a_history_that_was_rewritten_is_never_confirmed(private: Path) -> None:
    with MemoryStore("one") as store, MemoryStore("two") as other:
        world, elsewhere = World(store, private), World(other, private)
        for each in (world, elsewhere):
            each.register("shop", "1.0", "2.0")
            each.adopt("shop", "1.0")
            each.versions.switch({"shop": "2.0"})
        head = store.head(deadline=world.deadline())
        roll = Roll(other, head.epoch, entry_of(store, head.gen, world.deadline()))
        with pytest.raises(Unavailable) as no:
            roll.look(world.deadline())
        assert (no.value.reason, no.value.executed) == ("reset", "maybe")


@pytest.mark.parametrize("turn", range(20))
def test_a_consumer_that_starts_at_the_moment_of_a_switch_is_never_confirmed_on_the_old_one(
    turn: int, world: World
) -> None:
    gate = threading.Barrier(2)

    def begin() -> Any:
        gate.wait(PATIENCE)
        return world.app("shop")

    with ThreadPoolExecutor(1) as pool:
        for number in range(5):
            starting = pool.submit(begin)
            gate.wait(PATIENCE)
            version = ("2.0", "1.0")[number % 2]
            done = world.versions.switch({"shop": version})
            confirmed = {c.id: c.applied.gen for c in done.confirmed.applied}
            app = starting.result(PATIENCE)
            if mine(app) in confirmed:
                assert confirmed[mine(app)] >= done.gen
            assert app.discovery.service("shop").route.versions == {version: 10_000}


def test_a_clock_that_is_set_back_an_hour_changes_nothing_but_the_times(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = world.app("shop")
    app.config.bind("shop/limits", Limits)
    first = world.versions.switch({"shop": "2.0"})
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 3600)
    configs = Configs(lambda: world.store, live=False)
    with configs.watch("shop/limits", since=f"{first.op.partition(':')[0]}:{first.gen}") as watch:
        second = world.versions.switch(
            {"shop": "1.0"}, configs={"shop/limits": {"size": 2}},
            confirm=Confirm(prepare=True, timeout=PATIENCE),
        )  # fmt: skip
        assert (second.failure, ids(second.confirmed.applied)) == (None, [mine(app)])
        back = world.versions.rollback()
        assert (back.undoes and back.undoes.gen, back.failure) == (second.gen, None)
        events = iter(watch)
        seen = [(each.event, each.value) for each in (next(events), next(events))]
        assert seen == [("set", {"size": 2}), ("delete", None)]
    found = world.versions.history(3)
    assert [each.gen for each in found] == [back.gen, second.gen, first.gen]
    assert found[0].at < found[2].at  # as it was told, and nothing goes by it
    assert world.routed("shop") == {"2.0": 10_000}
    states = [(each.consumer.id, each.is_behind) for each in world.versions.status().subscribers]
    assert states == [(mine(app), False)]


# --- refusals ---


def test_one_refusal_ends_the_wait_and_the_change_is_in_force(world: World) -> None:
    app = world.app("shop")
    app.config.bind("shop/limits", Limits)
    done = world.versions.switch(
        {"shop": "2.0"}, configs={"shop/limits": {"size": "large"}}, confirm=Confirm(timeout=600)
    )
    assert ids(done.confirmed.nacked) == [mine(app)]
    assert done.failure is not None
    assert done.failure.reason == "not_confirmed"
    assert "size" in str(done.failure)


def test_a_refusal_when_asked_before_changes_nothing(world: World) -> None:
    app = world.app("shop")
    app.config.bind("shop/limits", Limits)
    before = world.gen()
    with pytest.raises(Aborted, match=r"nothing was changed: .* refused it: .*size") as no:
        world.versions.switch(
            {"shop": "2.0"}, configs={"shop/limits": {"size": "large"}},
            confirm=Confirm(prepare=True),
        )  # fmt: skip
    assert no.value.reason == "nack"
    assert world.gen() == before
    assert world.store.list("prep", deadline=world.deadline()) == []


def test_all_who_are_asked_agree_and_then_it_is_switched(world: World) -> None:
    app = world.app("shop")
    done = world.versions.switch({"shop": "2.0"}, confirm=Confirm(prepare=True))
    assert ids(done.confirmed.applied) == [mine(app)]
    votes = world.consumers()[0].votes
    assert [vote.ok for vote in votes.values()] == [True]
    assert done.op.endswith(next(iter(votes)))


def test_who_does_not_answer_in_time_stops_it_too(world: World) -> None:
    session = world.consumer("shop")
    before = world.gen()
    with pytest.raises(Aborted, match=r"silent .* did not answer in time") as no:
        world.versions.switch({"shop": "2.0"}, confirm=Confirm(prepare=True, timeout=0.2))
    assert no.value.reason == "nack"
    assert world.gen() == before
    session.close()


def test_who_is_not_concerned_is_not_asked(world: World) -> None:
    session = world.consumer("stock")
    world.versions.switch({"shop": "2.0"}, confirm=Confirm(prepare=True, timeout=PATIENCE))
    session.close()


def test_a_retry_of_what_came_through_asks_nobody_again(world: World) -> None:
    done = world.versions.switch({"shop": "2.0"})
    session = world.consumer("shop")
    how = Confirm(prepare=True, timeout=0.2)
    again = world.versions.switch({"shop": "2.0"}, how=Write(op=done.op), confirm=how)
    assert (again.gen, again.was_applied) == (done.gen, True)
    session.close()


# --- taken back ---


def test_what_is_not_confirmed_is_taken_back_and_the_others_come_back(world: World) -> None:
    session, app = world.consumer("shop"), world.app("shop")
    how = Confirm(timeout=0.3, auto_rollback=True)
    done = world.versions.switch({"shop": "2.0"}, confirm=how)
    assert done.rolled_back == done.gen + 1
    assert done.failure is not None
    assert (done.failure.code, done.failure.reason) == ("aborted", "auto_rollback")
    assert "silent" in str(done.failure)
    assert world.routed("shop") == {"1.0": 10_000}
    assert eventually(lambda: app.discovery.service("shop").route.versions == {"1.0": 10_000})  # type: ignore[union-attr]
    assert world.versions.history(1)[0].undo_of == done.gen
    session.close()


def test_what_was_changed_again_since_is_not_taken_back(world: World) -> None:
    session, changed = world.consumer("shop"), []

    def progress(tally: Any) -> None:
        if not changed:
            with another(world.store) as mine:
                changed.append(Configs(lambda: mine, live=False).set("shop/theme", "mine").gen)

    how = Confirm(timeout=0.3, auto_rollback=True, on_progress=progress)
    done = world.versions.switch({"shop": "2.0"}, configs={"shop/theme": "dark"}, confirm=how)
    assert done.rolled_back == 0
    assert done.failure is not None
    assert done.failure.reason == "not_confirmed"
    assert done.failure.details["superseded_by"] == changed[0]
    assert world.routed("shop") == {"2.0": 10_000}
    session.close()


# --- waiting later ---


def test_a_generation_is_waited_for_by_its_number(world: World) -> None:
    app = world.app("shop")
    gen = world.versions.switch({"shop": "2.0"}, confirm=Confirm(need=0.0)).gen
    world.versions.switch({"stock": "2.0"})
    assert ids(world.versions.wait(gen).confirmed.applied) == [mine(app)]


def test_a_generation_that_was_undone_or_overtaken_is_never_confirmed(world: World) -> None:
    first = world.versions.switch({"shop": "2.0"}).gen
    back = world.versions.rollback().gen
    with pytest.raises(Aborted) as no:
        world.versions.wait(first)
    assert (no.value.reason, no.value.details["undone_by"]) == ("undone_by", back)
    second = world.versions.switch({"shop": "2.0"}).gen
    third = world.versions.switch({"shop": "1.0"}).gen
    with pytest.raises(Aborted) as no:
        world.versions.wait(second)
    assert (no.value.reason, no.value.details["superseded_by"]) == ("superseded_by", third)


def test_a_wait_ends_when_the_last_one_comes(world: World) -> None:
    session = world.consumer("shop")
    done = world.versions.switch({"shop": "2.0"}, confirm=Confirm(need=0.0))
    head = world.store.head(deadline=world.deadline())

    def come() -> None:
        with another(world.store) as store:
            theirs = Versions(lambda: store, timeout=PATIENCE)
            waited.append(theirs.wait(done.gen, confirm=Confirm(timeout=PATIENCE)))

    waited: list[Any] = []
    thread = threading.Thread(target=come)
    thread.start()
    other = world.consumer("shop", applied=Applied(head.epoch, head.gen, head.op), id="quick")
    session.close()
    thread.join(PATIENCE)
    assert waited[0].failure is None
    assert ids(waited[0].confirmed.applied) == ["quick"]
    other.close()


def test_the_status_tells_who_is_behind(world: World) -> None:
    session, app = world.consumer("shop"), world.app("shop", "stock")
    world.versions.switch({"shop": "2.0"}, configs={"shop/a": 1}, confirm=Confirm(need=0.0))
    world.versions.wait(confirm=Confirm(need=0.5, timeout=PATIENCE))
    found = world.versions.status()
    assert {name: route.versions for name, route in found.routes.items()} == {
        "shop": {"2.0": 10_000}, "stock": {"1.0": 10_000},
    }  # fmt: skip
    assert found.configs == {"shop/a": found.gen}
    assert {s.consumer.id: s.is_behind for s in found.subscribers} == {
        "silent": True, mine(app): False,
    }  # fmt: skip
    assert world.versions.status("stock").configs == {}
    session.close()


def test_the_status_is_followed(world: World) -> None:
    following = world.versions.follow()
    assert next(following).routes["shop"].versions == {"1.0": 10_000}
    world.versions.switch({"shop": "2.0"})
    assert next(following).routes["shop"].versions == {"2.0": 10_000}
    following.close()  # type: ignore[attr-defined]


def test_a_change_concerns_those_who_use_what_it_touches() -> None:
    assert services_of(["route/shop", "config/stock/x", "schema/mail/x"]) == {"shop", "stock"}


# --- never a mix ---


@pytest.mark.timeout(400)  # hundreds of commits, each a handful of round trips on ZooKeeper
def test_a_reader_during_switches_and_rollbacks_never_sees_a_mix(world: World) -> None:
    world.versions.switch({"shop": "1.0"}, configs={"shop/at": "1.0"})
    app = world.app("shop", "stock")
    app.config.get("shop/at")
    stop = threading.Event()
    mixes: list[Any] = []
    reads = 0

    def poll() -> None:
        nonlocal reads
        while not stop.is_set():
            state = app.mirror.state
            shop = msgspec.json.decode(state.body("route/shop") or b"{}")["versions"]
            stock = msgspec.json.decode(state.body("route/stock") or b"{}")["versions"]
            at = msgspec.json.decode(state.body("config/shop/at") or b'""')
            reads += 1
            if not ([*shop] == [*stock] == [at]):
                mixes.append((shop, stock, at))

    reader = threading.Thread(target=poll)
    reader.start()
    for _ in range(100):
        world.versions.switch(
            {"shop": "2.0", "stock": "2.0"}, configs={"shop/at": "2.0"}, confirm=Confirm(need=0.0)
        )
        world.versions.rollback(confirm=Confirm(need=0.0))
    stop.set()
    reader.join(PATIENCE)
    assert mixes == []
    assert reads > 200
