"""The registry on three servers: what becomes of it, and of a commit on its way, when some of them
die."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

import msgspec
import pytest

from fan.errors import DeadlineExceeded, FanError, Unavailable
from fan.stores.base import HEAD, Change, Plan, Store
from fan.stores.zookeeper import ZookeeperStore
from fan.testing.contracts.store import (
    PATIENCE,
    Eventually,
    bodies,
    names,
    plan,
    soon,
    write,
)
from fan.tools.servers_zookeeper import Ensemble, ZooKeeper

pytestmark = pytest.mark.zookeeper

#: Makes a store on the URL of a server; all are closed with the test.
Opens = Callable[..., ZookeeperStore]
#: Stops servers: the fixture `hang`.
Hangs = Callable[[Iterable[ZooKeeper]], None]


def leader_of(ensemble: Ensemble) -> ZooKeeper:
    (leader,) = [s for s in ensemble.servers if "Mode: leader" in s.say("srvr")]
    return leader


def test_an_ensemble_goes_on_without_its_leader(
    new_zookeeper: Callable[..., Ensemble], connect: Opens
) -> None:
    ensemble = new_zookeeper(3)
    store, watcher = connect(ensemble.url), connect(ensemble.url)
    told = threading.Event()
    session = store.open_session(on_lost=told.set, deadline=soon())
    store.put("inst", "a/1", b"", session=session, deadline=soon())
    seen = Eventually(lambda: _gen(watcher))
    watcher.watch(HEAD, seen)
    for i in range(1, 6):
        assert write(store, x=str(i)).gen == i
        assert bodies(watcher) == {"x": str(i)}
    leader_of(ensemble).kill()
    for i in range(6, 11):
        change = plan(x=str(i))
        assert store.commit(change, deadline=time.monotonic() + 2 * PATIENCE).gen == i
    assert seen.sees(10)
    assert [entry.gen for entry in watcher.log(0, deadline=soon())] == list(range(1, 11))
    assert names(watcher, "inst") == ["a/1"]
    assert not told.is_set()


def _gen(store: Store) -> object:
    try:
        return store.head(deadline=time.monotonic() + 3.0).gen
    except FanError:
        return None


SWITCH = Plan(
    changes=tuple(
        Change(object=object, body=b"new") for object in ("route/a", "route/b", "config/a/theme")
    ),
    verb="switch",
)


@pytest.mark.parametrize("hung", ["leader", "followers"])
def test_a_leader_killed_during_a_switch_leaves_all_or_nothing_and_its_op_applies_once(
    new_zookeeper: Callable[..., Ensemble], connect: Opens, hang: Hangs, hung: str
) -> None:
    """It dies with the switch in its hands: it never looked at it, or told its followers, who say
    yes only after its death."""
    ensemble = new_zookeeper(3)
    leader = leader_of(ensemble)
    followers = [server for server in ensemble.servers if server is not leader]
    silent, heard_by = ([leader], followers[0]) if hung == "leader" else (followers, leader)
    store, others = (
        connect(heard_by.url),
        connect(f"zk://{followers[0].hosts},{followers[1].hosts}"),
    )
    names = [change.object for change in SWITCH.changes]
    before = tuple(msgspec.structs.replace(change, body=b"old") for change in SWITCH.changes)
    store.commit(msgspec.structs.replace(SWITCH, changes=before), deadline=soon())

    switch = msgspec.structs.replace(SWITCH, check=lambda view: hang(silent))
    with pytest.raises(DeadlineExceeded) as caught:
        store.commit(switch, deadline=time.monotonic() + 4.0)
    assert caught.value.executed == "maybe"
    leader.kill()
    for server in followers:
        server.resume()

    cut = others.read(names, deadline=time.monotonic() + 3 * PATIENCE)
    assert [revision.body for revision in cut.objects.values()] in ([b"old"] * 3, [b"new"] * 3)
    op = caught.value.details["op"]
    again = [others.commit(SWITCH, op=op, deadline=soon()) for _ in range(2)]
    assert [(done.gen, done.is_changed) for done in again] == [(2, True)] * 2
    assert again[0].was_applied or cut.head.gen == 1
    assert again[1].was_applied is True
    assert [entry.gen for entry in others.log(0, deadline=soon())] == [1, 2]
    cut = others.read(names, deadline=soon())
    assert [revision.body for revision in cut.objects.values()] == [b"new"] * 3


def test_an_ensemble_of_old_servers_and_one_that_is_down_are_problems(
    new_zookeeper: Callable[..., Ensemble], connect: Opens, url: str
) -> None:
    assert connect(url).problems(deadline=soon()) == ()
    ensemble = new_zookeeper(3)
    store = connect(ensemble.url)
    old = [text for text in store.problems(deadline=soon()) if "can lose acknowledged" in text]
    is_old = "version: 3.8." in ensemble.servers[0].say("srvr")
    assert len(old) == (3 if is_old else 0)
    ensemble.servers[0].kill()
    down = [text for text in store.problems(deadline=soon()) if "does not answer" in text]
    assert len(down) == 1
    assert ensemble.servers[0].hosts in down[0]


def test_an_ensemble_without_a_quorum_is_unavailable_in_time(
    new_zookeeper: Callable[..., Ensemble], connect: Opens
) -> None:
    ensemble = new_zookeeper(3)
    store = connect(ensemble.url)
    write(store, x="1")
    for server in ensemble.servers[:2]:
        server.kill()
    began = time.monotonic()
    with pytest.raises((Unavailable, DeadlineExceeded)):
        store.commit(plan(x="2"), deadline=began + 1.0)
    assert time.monotonic() - began < PATIENCE
