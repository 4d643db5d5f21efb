"""The registry file among processes that race, fork and are killed."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fan.errors import AlreadyExists
from fan.sqlite import locks
from fan.stores.base import HEAD, new_op
from fan.stores.sqlite import SqliteStore
from fan.testing.contracts.store import Eventually, bodies, names, soon, write

#: Starts another process with a store on a path: the fixture `run`.
Run = Callable[[str, str], Any]

_HOLD = """
session = store.open_session(deadline=soon())
store.put('inst', 'x', b'1', session=session, is_new=True, deadline=soon())
say(session.id)
hear()
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "registry.db")


@pytest.fixture
def store(path: str) -> Iterator[SqliteStore]:
    with SqliteStore(path) as store:
        yield store


def in_child(run: object) -> int:
    """Exit status of a forked child that calls `run`: 0 where it returned True."""
    assert callable(run)
    pid = os.fork()
    if pid == 0:
        status = 2
        with contextlib.suppress(BaseException):
            status = 0 if run() else 1
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# Death


def test_a_killed_process_records_vanish(path: str, store: SqliteStore, run: Run) -> None:
    with run(path, _HOLD) as other:
        assert other.hear()
        assert names(store, "inst") == ["x"]
        other.kill()
        assert names(store, "inst") == []


def test_a_watch_sees_a_process_die(path: str, store: SqliteStore, run: Run) -> None:
    with run(path, _HOLD) as other:
        assert other.hear()
        seen = Eventually(lambda: names(store, "inst"))
        store.watch("inst", seen)
        assert seen.sees(["x"])
        other.kill()
        assert seen.sees([])


def test_a_stopped_process_is_alive(path: str, store: SqliteStore, run: Run) -> None:
    with run(path, _HOLD) as other:
        assert other.hear()
        os.kill(other.pid, signal.SIGSTOP)
        (record,) = store.list("inst", deadline=soon())
        assert record.heard_at is not None
        assert record.heard_at > 0


def test_a_dead_ones_name_is_free(path: str, store: SqliteStore, run: Run) -> None:
    with run(path, _HOLD) as other:
        assert other.hear()
        other.kill()
    session = store.open_session(deadline=soon())
    store.put("inst", "x", b"2", session=session, is_new=True, deadline=soon())
    assert store.list("inst", deadline=soon())[0].session == session.id


def test_a_living_ones_name_is_refused_with_its_pid(
    path: str, store: SqliteStore, run: Run
) -> None:
    with run(path, _HOLD) as other:
        assert other.hear()
        session = store.open_session(deadline=soon())
        with pytest.raises(AlreadyExists) as caught:
            store.put("inst", "x", b"2", session=session, is_new=True, deadline=soon())
        assert caught.value.reason == "duplicate_id"
        assert caught.value.details["pid"] == other.pid
        assert str(other.pid) in str(caught.value)
        assert os.uname().nodename in str(caught.value)


def test_what_the_dead_leave_is_cleaned_up(path: str, store: SqliteStore, run: Run) -> None:
    with run(path, _HOLD) as other:
        dead = other.hear()
        other.kill()
    assert Path(locks.path_of(store.locks, dead)).exists()
    session = store.open_session(deadline=soon())
    assert os.listdir(store.locks) == [f"{session.id}.lock"]


def test_a_lock_without_a_session_is_cleaned_up(store: SqliteStore) -> None:
    Path(store.locks).mkdir()
    Path(locks.path_of(store.locks, "died-while-opening")).touch()
    session = store.open_session(deadline=soon())
    assert os.listdir(store.locks) == [f"{session.id}.lock"]


def test_clean_up_spares_the_living(store: SqliteStore) -> None:
    session = store.open_session(deadline=soon())
    assert locks.clean_up(store.locks, session.id) is False
    assert session.is_alive


# Commits


def test_processes_that_race_lose_nothing(path: str, store: SqliteStore, run: Run) -> None:
    code = """
hear()
for n in range(50): write(**{f'w{os.getpid()}': str(n), 'all': str(n)})
"""
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(run(path, code)) for _ in range(4)]
        for writer in writers:
            writer.say()
        assert [writer.wait() for writer in writers] == [0] * 4
    entries = store.log(0, deadline=soon())
    assert [e.gen for e in entries] == list(range(1, 201))
    assert [e.prev for e in entries[1:]] == [e.op for e in entries[:-1]]
    assert sorted(bodies(store).values()) == ["49"] * 5


def test_a_process_killed_in_a_commit_leaves_all_or_nothing(
    path: str, store: SqliteStore, run: Run
) -> None:
    code = """
n = 0
while True:
    n += 1
    write(**{f'c{i}': f'{os.getpid()}-{n}-' + 'x' * 3000 for i in range(20)})
    say(n)
"""
    written = 0
    for round in range(8):
        with run(path, code) as writer:
            for _ in range(round + 1):
                writer.hear()
            writer.kill()
            acknowledged = round + 1 + len(writer.rest())
        entries = store.log(0, deadline=soon())
        assert [e.gen for e in entries] == list(range(1, len(entries) + 1))
        assert all(len(e.diff) == 20 for e in entries)
        assert len(set(bodies(store).values())) == 1
        # What it was told is there, and at most the one that it was writing.
        assert len(entries) - written in (acknowledged, acknowledged + 1)
        written = len(entries)


_SWITCH = """
op = hear()
def check(view):
    say('inside')
    hear()
names = ('route/a', 'route/b', 'config/a/theme')
changes = tuple(Change(object=name, body=b'new') for name in names)
done = store.commit(Plan(changes=changes, verb='switch', check=check), op=op, deadline=soon())
say(done.gen, done.was_applied)
hear()
"""


def test_a_process_killed_inside_a_switch_leaves_nothing_and_its_op_applies_once(
    path: str, store: SqliteStore, run: Run
) -> None:
    write(store, x="1")
    op = str(new_op(store.head(deadline=soon())))
    objects = ["route/a", "route/b", "config/a/theme"]

    def tries(*lines: str) -> list[str]:
        with run(path, _SWITCH) as switcher:
            switcher.say(op)
            heard = []
            for line in lines:
                heard.append(switcher.hear())
                switcher.say(line)
            heard.append(switcher.hear())
            switcher.kill()
        return heard

    assert tries() == ["inside"]
    assert store.read(objects, deadline=soon()).objects == {}
    assert store.head(deadline=soon()).gen == 1
    assert tries("go on") == ["inside", "2 False"]  # killed before it can tell anybody
    assert tries() == ["2 True"]
    assert len(store.read(objects, deadline=soon()).objects) == 3
    assert [e.gen for e in store.log(0, deadline=soon())] == [1, 2]


def test_a_watcher_in_another_process_follows_dense_generations(
    path: str, store: SqliteStore, run: Run
) -> None:
    gens: list[int] = []

    def follow() -> int:
        gens.extend(e.gen for e in store.log(gens[-1] if gens else 0, deadline=soon()))
        return len(gens)

    seen = Eventually(follow)
    store.watch(HEAD, seen)
    with run(path, "for n in range(200): write(n=str(n))") as writer:
        assert writer.wait() == 0
    assert seen.sees(200)
    assert gens == list(range(1, 201))


def test_a_watch_begun_before_the_registry_sees_it_appear(
    path: str, store: SqliteStore, run: Run
) -> None:
    seen = Eventually(lambda: bodies(store))
    store.watch(HEAD, seen)
    assert seen.sees({})
    with run(path, "write(x='1')") as writer:
        assert writer.wait() == 0
    assert seen.sees({"x": "1"})


def test_a_watch_sees_that_the_registry_was_replaced(path: str, store: SqliteStore) -> None:
    write(store, x="1")
    with SqliteStore(path + ".new") as other:
        write(other, y="1")
    seen = Eventually(lambda: bodies(store))
    store.watch(HEAD, seen)
    assert seen.sees({"x": "1"})
    # With its log, which would be taken for the log of the new file.
    for part in ("-wal", "-shm", ""):
        os.unlink(path + part)
    os.rename(path + ".new", path)
    assert seen.sees({"y": "1"})


def test_a_session_is_lost_when_the_registry_is_replaced(path: str, store: SqliteStore) -> None:
    told = threading.Event()
    session = store.open_session(on_lost=told.set, deadline=soon())
    os.unlink(path)
    assert not session.is_alive
    assert told.wait(20)


# Forks


def test_a_forked_child_does_not_keep_the_session_alive(
    path: str, store: SqliteStore, run: Run
) -> None:
    code = """
session = store.open_session(deadline=soon())
store.put('inst', 'x', b'1', session=session, deadline=soon())
if os.fork() == 0:
    say(os.getpid())
    os.close(1)
    time.sleep(600)
hear()
"""
    with run(path, code) as parent:
        child = int(parent.hear())
        assert names(store, "inst") == ["x"]
        try:
            parent.kill()
            assert names(store, "inst") == []
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_childs_end_leaves_the_parents_session(store: SqliteStore) -> None:
    session = store.open_session(deadline=soon())
    store.put("inst", "x", b"", session=session, deadline=soon())

    def child() -> bool:
        was_alive = session.is_alive
        session.close()
        store.close()
        return not was_alive

    assert in_child(child) == 0
    assert session.is_alive
    assert names(store, "inst") == ["x"]


def test_a_forked_child_reads_and_writes(store: SqliteStore) -> None:
    write(store, x="1")

    def child() -> bool:
        return bodies(store) == {"x": "1"} and write(store, y="2").gen == 2

    assert in_child(child) == 0
    assert bodies(store) == {"x": "1", "y": "2"}
    assert write(store, x="3").gen == 3


def test_a_watch_survives_the_forks_of_its_process(path: str, store: SqliteStore) -> None:
    seen = Eventually(lambda: store.head(deadline=soon()).gen)
    store.watch(HEAD, seen)
    write(store, x="0")
    assert seen.sees(1)
    for gen in range(2, 6):
        assert in_child(lambda gen=gen: write(store, x=str(gen)).gen == gen) == 0
        assert seen.sees(gen)


def test_a_forked_child_is_told_beside_a_parent_who_watches(
    path: str, store: SqliteStore
) -> None:
    seen = Eventually(lambda: store.head(deadline=soon()).gen)
    store.watch(HEAD, seen)
    write(store, x="1")
    assert seen.sees(1)

    def child() -> bool:
        with SqliteStore(path) as mine:
            told = Eventually(lambda: mine.head(deadline=soon()).gen)
            mine.watch(HEAD, told)
            is_told = told.sees(1)
            write(mine, x="2")
            return is_told and told.sees(2)

    assert in_child(child) == 0
    assert seen.sees(2)


def test_forks_in_the_middle_of_writes_harm_nobody(store: SqliteStore) -> None:
    write(store, x="0")
    is_enough = threading.Event()
    made: list[int] = []

    def keep_writing() -> None:
        while not is_enough.is_set() and len(made) < 500:
            made.append(write(store, x=f"p{len(made)}").gen)

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        for i in range(10):
            assert in_child(lambda i=i: write(store, **{f"c{i}": "1"}).gen > 0) == 0
    finally:
        is_enough.set()
        writer.join()
    entries = store.log(0, deadline=soon())
    assert [e.gen for e in entries] == list(range(1, len(entries) + 1))
    assert len(entries) == 1 + len(made) + 10
