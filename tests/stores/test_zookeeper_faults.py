"""What the registry on ZooKeeper does when servers die, hang or forget: all or nothing, at most
once, in time, and a sentence."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType

import pytest

from fan.errors import (
    Aborted,
    DeadlineExceeded,
    FailedPrecondition,
    FanError,
    NotFound,
    Unavailable,
)
from fan.stores.base import HEAD, Change, Committed, Op, Plan, Store, View, new_op
from fan.stores.zookeeper import ZookeeperStore
from fan.testing.contracts.store import (
    PATIENCE,
    Eventually,
    bodies,
    plan,
    soon,
    write,
)
from fan.tools.servers_ports import free_ports
from fan.tools.servers_zookeeper import Ensemble, ZooKeeper

pytestmark = pytest.mark.zookeeper

#: Makes a store on the URL of a server; all are closed with the test.
Opens = Callable[..., ZookeeperStore]
#: Whether something becomes true in the end: the fixture `eventually`.
Eventual = Callable[[Callable[[], bool]], bool]
#: Stops servers: the fixture `hang`.
Hangs = Callable[[Iterable[ZooKeeper]], None]


# Signals


def test_what_a_signal_raises_is_no_lost_connection(url: str, connect: Opens) -> None:
    """In the moment after kazoo was told that there is something to send, which is where a signal
    that came during a request is heard."""
    store = connect(url)
    store.head(deadline=soon())

    def interrupt(frame: FrameType, event: str, what: object) -> None:
        if event == "c_return" and frame.f_code.co_name == "_call" and "send" in repr(what):
            sys.setprofile(None)
            raise KeyboardInterrupt

    sys.setprofile(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            store.head(deadline=soon())
    finally:
        sys.setprofile(None)
    assert store.head(deadline=soon()).gen == 0


# Servers that are away


def test_servers_that_are_away_are_unavailable_within_the_deadline(connect: Opens) -> None:
    (port,) = free_ports(1)
    store = connect(f"zk://127.0.0.1:{port}")
    asks: list[Callable[[float], object]] = [
        lambda deadline: store.head(deadline=deadline),
        lambda deadline: store.commit(plan(x="1"), deadline=deadline),
        lambda deadline: store.put("kind", "a", b"", deadline=deadline),
        lambda deadline: store.list("kind", deadline=deadline),
        lambda deadline: store.open_session(deadline=deadline),
    ]
    for ask in asks:
        began = time.monotonic()
        with pytest.raises(Unavailable, match="cannot be reached") as caught:
            ask(began + 1.0)
        assert (caught.value.reason, caught.value.executed) == ("connect_failed", "no")
        assert time.monotonic() - began < PATIENCE


def test_a_server_that_hangs_costs_no_more_than_the_deadline(
    new_zookeeper: Callable[..., Ensemble], connect: Opens, eventually: Eventual, hang: Hangs
) -> None:
    server = new_zookeeper()
    store = connect(server.url)
    write(store, x="1")
    hang(server.servers)
    began = time.monotonic()
    with pytest.raises((DeadlineExceeded, Unavailable)) as caught:
        store.head(deadline=began + 0.3)
    assert caught.value.executed == "no"
    assert time.monotonic() - began < PATIENCE
    server.resume()
    assert eventually(lambda: store.head(deadline=soon()).gen == 1)


def test_a_hanging_server_does_not_keep_a_store_from_closing(
    new_zookeeper: Callable[..., Ensemble], connect: Opens, hang: Hangs
) -> None:
    server = new_zookeeper()
    store = connect(server.url)
    store.open_session(deadline=soon())
    store.watch(HEAD, lambda hint: None)
    write(store, x="1")
    hang(server.servers)
    began = time.monotonic()
    store.close()
    store.close()
    assert time.monotonic() - began < PATIENCE
    with pytest.raises(FailedPrecondition, match="was closed"):
        store.head(deadline=soon())


# Commits


def test_a_commit_whose_answer_is_lost_says_how_to_run_it_again(
    new_zookeeper: Callable[..., Ensemble], connect: Opens, hang: Hangs
) -> None:
    server = new_zookeeper()
    store = connect(server.url)
    write(store, x="1")
    mine = plan(x="2")
    mine.check = lambda view: hang(server.servers)
    with pytest.raises(DeadlineExceeded, match=r"run again with --op \S+:1:\S+") as caught:
        store.commit(mine, deadline=time.monotonic() + 3.0)
    assert caught.value.executed == "maybe"
    server.resume()
    again = store.commit(plan(x="2"), op=caught.value.details["op"], deadline=soon())
    assert (again.gen, again.is_changed) == (2, True)
    assert [entry.gen for entry in store.log(0, deadline=soon())] == [1, 2]


def test_a_commit_outlives_its_server(
    new_zookeeper: Callable[..., Ensemble], connect: Opens
) -> None:
    server = new_zookeeper()
    store = connect(server.url)
    write(store, x="1")
    restart = threading.Thread(target=server.start)

    def check(view: View) -> None:
        if not restart.ident:
            server.kill()
            restart.start()

    mine = plan(x="2")
    mine.check = check
    assert store.commit(mine, deadline=soon()).gen == 2
    restart.join()
    assert [entry.gen for entry in store.log(0, deadline=soon())] == [1, 2]


def test_killed_servers_leave_no_half_commits_and_no_double_ones(
    new_zookeeper: Callable[..., Ensemble], connect: Opens, eventually: Eventual
) -> None:
    server = new_zookeeper()
    done: list[Committed] = []
    is_over = threading.Event()

    def run(store: ZookeeperStore, name: str) -> None:
        count = 0
        while not is_over.is_set():
            count += 1
            both = plan(**{name: str(count), f"{name}-too": str(count)})
            done.append(store.commit(both, deadline=time.monotonic() + 3 * PATIENCE))

    writers = [
        threading.Thread(target=run, args=(connect(server.url), name)) for name in ("a", "b")
    ]
    for writer in writers:
        writer.start()
    for _ in range(4):
        before = len(done)
        assert eventually(lambda before=before: len(done) >= before + 10)
        server.kill()
        server.start()
    is_over.set()
    for writer in writers:
        writer.join()
    store = connect(server.url)
    entries = store.log(0, deadline=soon())
    assert [entry.gen for entry in entries] == list(range(1, len(done) + 1))
    assert [entry.prev for entry in entries[1:]] == [entry.op for entry in entries[:-1]]
    assert {entry.op: entry.gen for entry in entries} == {
        Op.parse(one.op).id: one.gen for one in done
    }
    for gen in (1, len(done) // 2, len(done)):
        now = bodies(store, gen)
        assert now.get("a") == now.get("a-too")
        assert now.get("b") == now.get("b-too")


def test_a_refusal_after_a_lost_answer_is_final(
    new_zookeeper: Callable[..., Ensemble], connect: Opens
) -> None:
    server = new_zookeeper()
    store, other = connect(server.url), connect(server.url)
    write(store, x="1")
    op = str(new_op(store.head(deadline=soon())))
    write(other, x="2")
    stale = Plan(changes=(Change(object="config/x", body=b"3", from_rev=1),), verb="set")
    server.kill()
    restart = threading.Thread(target=server.start)
    restart.start()
    with pytest.raises(Aborted):
        store.commit(stale, op=op, deadline=soon())
    restart.join()
    write(other, x="1")
    with pytest.raises(Aborted):
        store.commit(stale, op=op, deadline=soon())


# Watches


def test_a_watch_goes_on_after_its_server_was_restarted(
    new_zookeeper: Callable[..., Ensemble], connect: Opens, eventually: Eventual
) -> None:
    server = new_zookeeper()
    a, b = connect(server.url), connect(server.url)
    write(b, x="1")
    seen = Eventually(lambda: _gen(a))
    records = Eventually(lambda: _count(a))
    a.watch(HEAD, seen)
    a.watch("inst", records)
    assert seen.sees(1)
    assert records.sees(0)
    server.kill()
    assert eventually(lambda: "lost" in seen.hints and "lost" in records.hints)
    server.start()
    assert write(b, x="2").gen == 2
    b.put("inst", "a/1", b"", deadline=soon())
    assert seen.sees(2)
    assert records.sees(1)
    for hints in (seen.hints, records.hints):
        after = hints[hints.index("lost") :]
        assert after[:2] == ["lost", "regained"]


def test_a_watch_of_many_services_takes_few_watches_and_sees_each_end(
    new_zookeeper: Callable[..., Ensemble], connect: Opens
) -> None:
    server = new_zookeeper()
    a, b = connect(server.url), connect(server.url)
    sessions = [b.open_session(deadline=soon()) for _ in range(3)]
    for i in range(60):
        b.put("inst", f"service{i}/1", b"", session=sessions[i % 3], deadline=soon())
    seen = Eventually(lambda: _count(a))
    a.watch("inst", seen)
    assert seen.sees(60)
    said = server.servers[0].say("mntr").splitlines()
    (count,) = (line.split()[1] for line in said if line.startswith("zk_watch_count"))
    assert int(count) <= 2 + len(sessions)
    for left, session in zip((40, 20, 0), sessions, strict=True):
        session.close()
        assert seen.sees(left)


def _gen(store: Store) -> object:
    try:
        return store.head(deadline=time.monotonic() + 3.0).gen
    except FanError:
        return None


def _count(store: Store) -> object:
    try:
        return len(store.list("inst", deadline=time.monotonic() + 3.0))
    except FanError:
        return None


def test_a_watch_begun_while_no_server_is_there_says_so_and_then_goes_on(
    new_zookeeper: Callable[..., Ensemble], connect: Opens, eventually: Eventual
) -> None:
    server = new_zookeeper()
    write(connect(server.url), x="1")
    server.kill()
    a = connect(server.url)
    seen = Eventually(lambda: _gen(a))
    a.watch(HEAD, seen)
    assert eventually(lambda: seen.hints == ["lost"])
    server.start()
    assert seen.sees(1)


def test_a_wiped_server_has_another_epoch_and_old_operations_are_unknown(
    new_zookeeper: Callable[..., Ensemble], connect: Opens
) -> None:
    server = new_zookeeper()
    store = connect(server.url, timeout=0.5)
    write(store, x="1")
    before = store.head(deadline=soon())
    op = str(new_op(before))
    seen = Eventually(lambda: _gen(store))
    store.watch(HEAD, seen)
    assert seen.sees(1)
    server.kill()
    shutil.rmtree(Path(server.servers[0].folder) / "data")
    server.start()
    assert seen.sees(0)
    assert write(store, y="1").gen == 1
    after = store.head(deadline=soon())
    assert after.epoch != before.epoch
    with pytest.raises(Unavailable) as caught:
        store.commit(plan(x="2"), op=op, deadline=soon())
    assert (caught.value.reason, caught.value.executed) == ("outcome_unknown", "maybe")


def test_a_backup_that_was_put_back_is_seen_by_who_knew_more(
    new_zookeeper: Callable[..., Ensemble], connect: Opens, tmp_path: Path, eventually: Eventual
) -> None:
    server = new_zookeeper()
    data = Path(server.servers[0].folder) / "data"
    store = connect(server.url, timeout=0.5)
    write(store, x="1")
    server.kill()
    shutil.copytree(data, tmp_path / "backup")
    server.start()
    write(store, x="2", y="1")
    assert bodies(store) == {"x": "2", "y": "1"}
    lost = store.log(1, deadline=soon())[0].op
    server.kill()
    shutil.rmtree(data)
    shutil.copytree(tmp_path / "backup", data)
    server.start()
    assert eventually(lambda: store.head(deadline=soon()).gen == 1)
    gone = Plan(changes=(Change(object="config/x", unpin=True),), verb="rollback")
    assert connect(server.url).commit(gone, deadline=soon()).gen == 2
    # The same generation as before with another content: nothing of the old one may linger.
    assert eventually(lambda: store.head(deadline=soon()).gen == 2)
    assert bodies(store) == {}
    assert store.log(1, deadline=soon())[0].op != lost
    with pytest.raises(NotFound):
        store.revision("config/x", 7, deadline=soon())
