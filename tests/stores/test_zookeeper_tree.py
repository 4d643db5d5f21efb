"""What the registry on ZooKeeper keeps in its tree: sizes, names, history, damage."""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec
import pytest
from kazoo.client import KazooClient

from fan.errors import (
    Aborted,
    DataLoss,
    FailedPrecondition,
    FanError,
    InvalidArgument,
    Unavailable,
)
from fan.stores.base import LIMIT, Change, Plan, Session, View, new_op
from fan.stores.zookeeper import ZookeeperStore
from fan.stores.zookeeper_commit import ROOM
from fan.stores.zookeeper_layout import bucket_of
from fan.testing.contracts.store import (
    Eventually,
    bodies,
    names,
    plan,
    repin,
    soon,
    write,
)

pytestmark = pytest.mark.zookeeper

#: Makes a store on the URL of a server; all are closed with the test.
Opens = Callable[..., ZookeeperStore]
#: Whether something becomes true in the end: the fixture `eventually`.
Eventual = Callable[[Callable[[], bool]], bool]
#: Has the servers end a session: the fixture `end_session`.
Ends = Callable[[Session], None]


def root(store: ZookeeperStore) -> str:
    return store._layout.root


# Sizes


def test_what_is_allowed_fits_and_what_is_more_is_refused_with_a_sentence(
    connect: Opens, url: str
) -> None:
    store = connect(url)
    assert write(store, x="x" * (LIMIT - 20)).gen == 1
    write(store, x="small")
    store.put("kind", "big", b"x" * (LIMIT - 20), deadline=soon())
    assert len(store.list("kind", deadline=soon())[0].body) == LIMIT - 20
    # What is pinned again is written again, and counts, though the plan does not show it.
    both = (
        Change(object="config/x", to_rev=1),
        Change(object="config/y", body=b"y" * (ROOM - LIMIT + 1000)),
    )
    with pytest.raises(InvalidArgument, match="make it in parts") as caught:
        store.commit(Plan(changes=both, verb="set"), deadline=soon())
    assert caught.value.reason == "payload_too_large"
    most = Change(object="config/y", body=b"y" * (ROOM - LIMIT - 4000))
    store.commit(Plan(changes=(both[0], most), verb="set"), deadline=soon())
    assert store.head(deadline=soon()).gen == 3


def test_a_change_that_touches_too_many_pins_says_so_and_can_be_made_in_parts(
    connect: Opens, url: str
) -> None:
    store = connect(url)
    long = [f"config/{i:04}{'x' * 3000}" for i in range(440)]
    for i in range(0, len(long), 40):
        some = tuple(Change(object=name, body=b"1") for name in long[i : i + 40])
        store.commit(Plan(changes=some, verb="set"), deadline=soon())
    # One small object beside each of them.
    by_page = {bucket_of(name): name for name in (f"config/{i}" for i in range(4000))}
    small = [by_page[bucket] for bucket in sorted({bucket_of(name) for name in long})]
    changes = tuple(Change(object=name, body=b"1") for name in small)
    before = store.head(deadline=soon())
    with pytest.raises(InvalidArgument, match=r"pages of pins.*make it in parts") as caught:
        store.commit(Plan(changes=changes, verb="set"), deadline=soon())
    assert caught.value.reason == "payload_too_large"
    assert str(ROOM) in str(caught.value)
    assert store.head(deadline=soon()) == before
    assert store.read(small, deadline=soon()).objects == {}
    for part in (changes[::2], changes[1::2]):
        store.commit(Plan(changes=part, verb="set"), deadline=soon())
    assert len(store.read(small, deadline=soon()).objects) == len(small)


@pytest.mark.parametrize("name", [".", "..", "a/b", "/", "%", "ü ñ", "-x", "a\x01b", "", "%2E"])
def test_any_name_will_do(connect: Opens, url: str, name: str) -> None:
    store = connect(url)
    write(store, **{name: "1"})
    assert bodies(store) == {name: "1"}
    store.commit(
        Plan(changes=(Change(object=f"{name}/x", body=b"2"),), verb="set"), deadline=soon()
    )
    assert store.read([f"{name}/x"], deadline=soon()).objects[f"{name}/x"].body == b"2"
    store.put("kind", name, b"1", deadline=soon())
    store.put(name, "a", b"1", deadline=soon())
    assert names(store, "kind") == [name]
    assert names(store, "kind", name[:1]) == [name]
    assert names(store, name) == ["a"]
    assert store.delete("kind", name, deadline=soon()) is True


def test_a_name_and_names_below_it_are_apart(connect: Opens, url: str) -> None:
    store = connect(url)
    for name in ("a/1", "a", "a/2", "ab"):
        store.put("kind", name, name.encode(), deadline=soon())
    assert names(store, "kind") == ["a", "a/1", "a/2", "ab"]
    assert names(store, "kind", "a/") == ["a/1", "a/2"]
    assert store.delete("kind", "a", deadline=soon()) is True
    assert names(store, "kind") == ["a/1", "a/2", "ab"]
    session = store.open_session(deadline=soon())
    with pytest.raises(FailedPrecondition) as caught:
        store.put("kind", "a", b"", session=session, deadline=soon())
    assert caught.value.reason == "bad_name"
    store.put("kind", "b", b"", session=session, deadline=soon())
    with pytest.raises(FailedPrecondition) as caught:
        store.put("kind", "b/1", b"", deadline=soon())
    assert caught.value.reason == "bad_name"


def test_a_session_takes_over_a_persistent_record(connect: Opens, url: str) -> None:
    store = connect(url)
    store.put("kind", "a", b"1", deadline=soon())
    session = store.open_session(deadline=soon())
    store.put("kind", "a", b"2", session=session, deadline=soon())
    (record,) = store.list("kind", deadline=soon())
    assert (record.body, record.session) == (b"2", session.id)
    session.close()
    assert names(store, "kind") == []


def test_who_holds_a_name_is_told(connect: Opens, url: str) -> None:
    store = connect(url)
    session = store.open_session(deadline=soon())
    store.put("inst", "a/1", b"", session=session, deadline=soon())
    with pytest.raises(FanError, match=f"process {os.getpid()} on {os.uname().nodename}") as caught:
        store.put("inst", "a/1", b"", is_new=True, deadline=soon())
    assert caught.value.details["pid"] == os.getpid()


# Trimming


def test_what_an_operation_came_to_is_forgotten_with_its_generation(
    connect: Opens, url: str, raw: KazooClient
) -> None:
    store = connect(url)
    write(store, x="1")
    _keep(raw, store, retention=3)
    op = new_op(store.head(deadline=soon()))
    stale = Plan(changes=(Change(object="config/x", body=b"3", from_rev=7),), verb="set")
    with pytest.raises(Aborted):
        store.commit(stale, op=str(op), deadline=soon())
    same = new_op(store.head(deadline=soon()))
    store.commit(plan(x="1"), op=str(same), deadline=soon())
    assert {op.id, same.id} < set(raw.get_children(f"{root(store)}/op"))
    for i in range(6):
        write(store, x=f"more {i}")
    assert len(raw.get_children(f"{root(store)}/op")) == 3
    assert raw.get_children(f"{root(store)}/refused") == []
    assert len(raw.get_children(f"{root(store)}/log")) == 3
    with pytest.raises(Unavailable) as caught:
        store.commit(stale, op=str(op), deadline=soon())
    assert caught.value.reason == "outcome_unknown"


def test_what_changes_nothing_is_remembered_only_for_who_named_the_operation(
    connect: Opens, url: str, raw: KazooClient
) -> None:
    store = connect(url)
    write(store, x="1")
    before = raw.get_children(f"{root(store)}/op")
    for _ in range(3):
        assert not store.commit(plan(x="1"), deadline=soon()).is_changed
    assert raw.get_children(f"{root(store)}/op") == before
    assert raw.get_children(f"{root(store)}/refused") == []


def test_operations_that_make_no_generation_are_forgotten_by_number_the_oldest_first(
    connect: Opens, url: str, raw: KazooClient
) -> None:
    store = connect(url)
    write(store, x="1")
    _keep(raw, store, retention=3)
    ops = [str(new_op(store.head(deadline=soon()))) for _ in range(8)]
    for op in ops:
        store.commit(plan(x="1"), op=op, deadline=soon())
    assert len(raw.get_children(f"{root(store)}/refused")) == 3
    assert len(raw.get_children(f"{root(store)}/op")) == 1 + 3
    write(store, x="2")
    for op in ops[-3:]:
        assert store.commit(plan(x="1"), op=op, deadline=soon()).was_applied
    assert bodies(store) == {"x": "2"}


def test_nothing_is_refused_that_was_applied_and_trimmed_between_two_steps(
    connect: Opens, url: str, raw: KazooClient
) -> None:
    """Somebody sends the op again, and as many generations as are kept go by, between the reading
    of the op's node and the writing of its refusal."""
    store, other = connect(url), connect(url)
    write(store, x="1")
    _keep(raw, store, retention=3)
    op = str(new_op(store.head(deadline=soon())))
    came: list[int] = []

    def check(view: View) -> None:
        if not came:
            came.append(other.commit(plan(x="2"), op=op, deadline=soon()).gen)
            for i in range(6):
                write(other, y=str(i))
        raise FailedPrecondition("it does not fit any more")

    refused = plan(x="2")
    refused.check = check
    with pytest.raises(Unavailable) as caught:
        store.commit(refused, op=op, deadline=soon())
    assert (caught.value.reason, caught.value.executed) == ("outcome_unknown", "maybe")
    assert came == [2]
    assert bodies(store) == {"x": "2", "y": "5"}
    with pytest.raises(Unavailable):
        store.commit(plan(x="2"), op=op, deadline=soon())


def test_trimming_takes_pages_and_revisions_but_nothing_that_is_pinned(
    connect: Opens, url: str, raw: KazooClient
) -> None:
    store = connect(url)
    write(store, kept="1", x="0")
    _keep(raw, store, retention=3)
    for i in range(1, 5):
        write(store, x=str(i))
    store.commit(repin("x", 3), deadline=soon())
    for i in range(5):
        write(store, y=str(i))
    assert bodies(store) == {"kept": "1", "x": "2", "y": "4"}
    found = raw.get_children(store._layout.revisions("config/x")[1])
    assert "3" in found
    pages = [
        len(raw.get_children(f"{root(store)}/page/{bucket}"))
        for bucket in raw.get_children(f"{root(store)}/page")
    ]
    assert sum(pages) <= 3 + 3  # today's, and those of the generations that are kept


def _keep(raw: KazooClient, store: ZookeeperStore, *, retention: int) -> None:
    """Let a namespace keep so many generations."""
    data, stat = raw.get(f"{root(store)}/head")
    head = msgspec.json.decode(data)
    head["retention"] = retention
    raw.set(f"{root(store)}/head", msgspec.json.encode(head), stat.version)


# Damage


def test_a_history_that_was_put_back_in_part_is_data_loss(
    connect: Opens, url: str, raw: KazooClient
) -> None:
    store = connect(url)
    write(store, x="1")
    data, _ = raw.get(f"{root(store)}/head")
    write(store, x="2")
    raw.set(f"{root(store)}/head", data)
    with pytest.raises(DataLoss, match="is there already"):
        write(store, y="3")


@pytest.mark.parametrize("lost", ["page", "rev"])
def test_a_lost_node_is_data_loss_and_nothing_spins(
    connect: Opens, url: str, raw: KazooClient, lost: str
) -> None:
    store = connect(url)
    write(store, x="1")
    raw.delete(f"{root(store)}/{lost}", recursive=True)
    other = connect(url)
    with pytest.raises(DataLoss, match=f"has lost .*/{lost}/"):
        bodies(other)
    with pytest.raises(DataLoss, match=f"has lost .*/{lost}/"):
        write(other, x="2")


def test_a_damaged_node_is_data_loss_that_names_it(
    connect: Opens, url: str, raw: KazooClient
) -> None:
    store = connect(url)
    write(store, x="1")
    path = store._layout.revision("config/x", 1)
    data, _ = raw.get(path)
    raw.set(path, data + b"!")
    with pytest.raises(DataLoss, match=path):
        bodies(store)
    raw.set(f"{root(store)}/head", b"{")
    with pytest.raises(DataLoss, match="head is damaged"):
        store.head(deadline=soon())


def test_a_newer_layout_is_refused(connect: Opens, url: str, raw: KazooClient) -> None:
    store = connect(url)
    write(store, x="1")
    raw.set(f"{root(store)}/head", b'{"epoch":"e","layout":2}')
    with pytest.raises(FailedPrecondition, match="newer fan"):
        store.head(deadline=soon())


def test_a_record_that_is_none_does_not_break_the_list(
    connect: Opens, url: str, raw: KazooClient
) -> None:
    store = connect(url)
    store.put("inst", "a/1", b"1", deadline=soon())
    raw.create(f"{root(store)}/inst/a/2", b"what is this\n")
    assert names(store, "inst") == ["a/1"]


def test_a_watch_outlives_what_it_watches(connect: Opens, url: str, raw: KazooClient) -> None:
    """kazoo's own watches of children end without a word where the parent is deleted."""
    store, other = connect(url), connect(url)
    session = other.open_session(deadline=soon())
    other.put("inst", "a/1", b"", session=session, deadline=soon())
    seen = Eventually(lambda: names(store, "inst"))
    store.watch("inst", seen)
    assert seen.sees(["a/1"])
    for folder in ("inst", "alive"):
        raw.delete(f"{root(store)}/{folder}", recursive=True)
    assert seen.sees([])
    again = connect(url).open_session(deadline=soon())
    other.put("inst", "b/1", b"", session=again, deadline=soon())
    other.put("inst", "c/1", b"", deadline=soon())
    assert seen.sees(["b/1", "c/1"])
    again.close()
    assert seen.sees(["c/1"])
