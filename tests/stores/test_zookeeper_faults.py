"""What the registry on ZooKeeper does when servers die, hang, forget or refuse: all or nothing, at
most once, in time, and a sentence."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kazoo.client import KazooClient
from kazoo.retry import KazooRetry

from fan.discovery import Discovery
from fan.errors import (
    Aborted,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    FanError,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from fan.model import Instance, Interface
from fan.stores.base import HEAD, LIMIT, Change, Committed, Op, Plan, Store, View, new_op
from fan.stores.zookeeper import ZookeeperStore
from fan.stores.zookeeper_commit import ROOM
from fan.stores.zookeeper_session import ZookeeperSession
from fan.testing.contracts.store import (
    PATIENCE,
    Eventually,
    bodies,
    names,
    plan,
    repin,
    soon,
    write,
)
from fan.tools.servers_ports import free_ports
from fan.tools.servers_zookeeper import Ensemble

pytestmark = pytest.mark.zookeeper

#: Makes a store on the URL of a server; all are closed with the test.
Opens = Callable[..., ZookeeperStore]


@pytest.fixture
def connect() -> Iterator[Opens]:
    with contextlib.ExitStack() as stack:

        def opens(url: str, namespace: str = "default", **how: Any) -> ZookeeperStore:
            store = ZookeeperStore(url.removeprefix("zk:"), namespace, **how)
            stack.callback(store.close)
            return store

        yield opens


@pytest.fixture
def url(zookeeper_server: Any) -> str:
    """A chroot of the test's own on the server of the run."""
    return f"{zookeeper_server.url}/{uuid.uuid4().hex}"


@pytest.fixture
def raw(zookeeper_server: Any) -> Iterator[KazooClient]:
    """Somebody who goes behind our back."""
    client = KazooClient(
        zookeeper_server.url.removeprefix("zk://"), connection_retry=KazooRetry(max_tries=20)
    )
    client.start(PATIENCE)
    yield client
    client.stop()
    client.close()


def end_session(session: ZookeeperSession) -> None:
    """Have the servers end a session: a second client that has its id and password closes it."""
    channel = session.channel
    assert channel._client is not None
    other = KazooClient(
        channel.ensemble.hosts,
        client_id=channel._client.client_id,
        connection_retry=KazooRetry(max_tries=20, delay=0.05),
    )
    other.start(PATIENCE)
    other.stop()
    other.close()


def eventually(ask: Callable[[], bool]) -> bool:
    """Whether it becomes true in the end; an error in between is not an answer."""
    deadline = soon()
    while time.monotonic() < deadline:
        with contextlib.suppress(FanError):
            if ask():
                return True
        time.sleep(0.02)
    return False


def hang(ensemble: Ensemble) -> None:
    """Stop all servers, and wait until each of their threads is: a signal takes its time."""
    ensemble.pause()
    for server in ensemble.servers:
        tasks = Path("/proc", str(server.pid), "task")
        assert eventually(
            lambda tasks=tasks: all(
                (task / "stat").read_text().rpartition(")")[2].split()[0] == "T"
                for task in tasks.iterdir()
            )
        )


def root(store: ZookeeperStore) -> str:
    return store._layout.root


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
            ask(began + 0.3)
        assert (caught.value.reason, caught.value.executed) == ("connect_failed", "no")
        assert time.monotonic() - began < PATIENCE


def test_a_server_that_hangs_costs_no_more_than_the_deadline(
    new_zookeeper: Callable[..., Ensemble], connect: Opens
) -> None:
    server = new_zookeeper()
    store = connect(server.url)
    write(store, x="1")
    hang(server)
    began = time.monotonic()
    with pytest.raises((DeadlineExceeded, Unavailable)) as caught:
        store.head(deadline=began + 0.3)
    assert caught.value.executed == "no"
    assert time.monotonic() - began < PATIENCE
    server.resume()
    assert eventually(lambda: store.head(deadline=soon()).gen == 1)


def test_a_hanging_server_does_not_keep_a_store_from_closing(
    new_zookeeper: Callable[..., Ensemble], connect: Opens
) -> None:
    server = new_zookeeper()
    store = connect(server.url)
    store.open_session(deadline=soon())
    store.watch(HEAD, lambda hint: None)
    write(store, x="1")
    hang(server)
    began = time.monotonic()
    store.close()
    store.close()
    assert time.monotonic() - began < PATIENCE
    with pytest.raises(FailedPrecondition, match="was closed"):
        store.head(deadline=soon())


# Commits


def test_a_commit_whose_answer_is_lost_says_how_to_run_it_again(
    new_zookeeper: Callable[..., Ensemble], connect: Opens
) -> None:
    server = new_zookeeper()
    store = connect(server.url)
    write(store, x="1")
    mine = plan(x="2")
    mine.check = lambda view: hang(server)
    with pytest.raises(DeadlineExceeded, match=r"run again with --op \S+:1:\S+") as caught:
        store.commit(mine, deadline=time.monotonic() + 0.5)
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
    new_zookeeper: Callable[..., Ensemble], connect: Opens
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


# Sessions


def test_an_instance_comes_back_after_its_session_expired_with_its_latest_data(
    connect: Opens, url: str
) -> None:
    server, watcher = connect(url), connect(url)
    discovery = Discovery(lambda: server)
    try:
        instance = Instance(id="greeter-1", service="greeter", version="1.0.0")
        discovery.register(instance, Interface(service="greeter", version="1.0.0"))
        discovery.update(msgspec.structs.replace(instance, state="draining"))
        session = discovery._session
        assert isinstance(session, ZookeeperSession)
        end_session(session)

        def is_back() -> bool:
            found = [r for r in watcher.list("inst", deadline=soon()) if r.session != session.id]
            return [msgspec.json.decode(r.body)["state"] for r in found] == ["draining"]

        assert eventually(is_back)
        assert not session.is_alive
    finally:
        discovery.close()


def test_a_session_is_lost_when_no_server_is_there_for_long(
    new_zookeeper: Callable[..., Ensemble], connect: Opens
) -> None:
    server = new_zookeeper()
    store = connect(server.url, session_timeout=0.5)
    told = threading.Event()
    session = store.open_session(on_lost=told.set, deadline=soon())
    server.kill()
    assert told.wait(PATIENCE)
    assert not session.is_alive
    with pytest.raises(Unavailable) as caught:
        store.put("inst", "a", b"", session=session, deadline=soon())
    assert caught.value.reason == "session_lost"


def test_a_session_outlives_a_restart_of_its_server(
    new_zookeeper: Callable[..., Ensemble], connect: Opens
) -> None:
    server = new_zookeeper()
    store = connect(server.url)
    told = threading.Event()
    session = store.open_session(on_lost=told.set, deadline=soon())
    store.put("inst", "a", b"1", session=session, deadline=soon())
    server.kill()
    server.start()
    store.put("inst", "a", b"2", session=session, deadline=soon())
    assert [r.body for r in store.list("inst", deadline=soon())] == [b"2"]
    assert session.is_alive
    assert not told.is_set()


# Forks

#: Python 3.12 and newer warn of a fork with threads, which is what is tried here.
_FORKS = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


def _in_child(act: Callable[[], str]) -> str:
    """What `act` says in a forked child."""
    read, written = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer = "failed"
        try:
            answer = act()
        except BaseException as error:
            answer = repr(error)
        finally:
            os.write(written, answer.encode())
            os._exit(0)
    os.close(written)
    with os.fdopen(read, encoding="utf-8") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer


@_FORKS
def test_a_forked_child_has_a_connection_of_its_own(connect: Opens, url: str) -> None:
    store = connect(url)
    session = store.open_session(deadline=soon())
    store.put("inst", "a", b"", session=session, deadline=soon())
    store.watch(HEAD, lambda hint: None)
    write(store, x="1")

    def act() -> str:
        assert not session.is_alive
        session.close()
        gen = write(store, x="2").gen
        store.close()
        return f"{gen}"

    assert _in_child(act) == "2"
    assert session.is_alive
    assert names(store, "inst") == ["a"]
    assert write(store, x="3").gen == 3


@_FORKS
def test_a_forked_child_does_not_keep_a_dead_parents_records(connect: Opens, url: str) -> None:
    keeper = connect(url)
    keeper.head(deadline=soon())
    read, written = os.pipe()
    parent = os.fork()
    if parent == 0:
        # This one serves, forks, and dies; its child lives on until the pipe breaks.
        store = ZookeeperStore(url.removeprefix("zk:"), session_timeout=0.5)
        session = store.open_session(deadline=soon())
        store.put("inst", "a", b"", session=session, deadline=soon())
        child = os.fork()
        if child == 0:
            os.close(written)
            signal.pause()
        os.write(written, f"{child}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(written)
    with os.fdopen(read, encoding="utf-8") as pipe:
        child = int(pipe.readline())
    os.waitpid(parent, 0)
    try:
        assert eventually(lambda: names(keeper, "inst") == [])
    finally:
        os.kill(child, signal.SIGKILL)


# Watches


def test_a_watch_goes_on_after_its_server_was_restarted(
    new_zookeeper: Callable[..., Ensemble], connect: Opens
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


def _gen(store: Store) -> object:
    try:
        return store.head(deadline=time.monotonic() + 0.5).gen
    except FanError:
        return None


def _count(store: Store) -> object:
    try:
        return len(store.list("inst", deadline=time.monotonic() + 0.5))
    except FanError:
        return None


def test_a_watch_begun_while_no_server_is_there_says_so_and_then_goes_on(
    new_zookeeper: Callable[..., Ensemble], connect: Opens
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
    new_zookeeper: Callable[..., Ensemble], connect: Opens, tmp_path: Path
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


# Ensembles


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
    (leader,) = [s for s in ensemble.servers if "Mode: leader" in s.say("srvr")]
    leader.kill()
    for i in range(6, 11):
        change = plan(x=str(i))
        assert store.commit(change, deadline=time.monotonic() + 2 * PATIENCE).gen == i
    assert seen.sees(10)
    assert [entry.gen for entry in watcher.log(0, deadline=soon())] == list(range(1, 11))
    assert names(watcher, "inst") == ["a/1"]
    assert not told.is_set()


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
