"""What the registry file says when something is wrong with it: a sentence, in time, and no harm."""

from __future__ import annotations

import contextlib
import os
import queue
import resource
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fan.errors import (
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    FanError,
    ResourceExhausted,
    Unavailable,
)
from fan.sqlite import schema
from fan.stores.base import HEAD, Hint
from fan.stores.sqlite import SqliteStore
from fan.stores.sqlite_schema import REGISTRY
from fan.testing.contracts.store import Eventually, bodies, names, plan, soon, write

#: Starts another process with a store on a path: the fixture `run`.
Run = Callable[[str, str], Any]


@pytest.fixture
def folder(private: Path) -> Path:
    """A folder that an ordinary user may reach, and owns."""
    private.chmod(0o755)
    own = private / "own"
    own.mkdir()
    if os.geteuid() == 0:
        os.chown(own, 65534, 65534)
    return own


@pytest.fixture
def path(folder: Path) -> str:
    return str(folder / "registry.db")


def as_user(path: str, act: Callable[[SqliteStore], object], limit: int = 0) -> str:
    """What `act` raises, or returns, for a user whom permissions bind; `limit` is the largest size
    of a file that this user may write."""
    read, written = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            if limit:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            with SqliteStore(path) as store:
                try:
                    answer = f"ok {act(store)}"
                except FanError as error:
                    answer = f"{error.code} {error.reason} {error.executed} {error}"
            os.write(written, answer.encode())
        os._exit(0)
    os.close(written)
    with os.fdopen(read, encoding="utf-8") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer


def openings(store: SqliteStore) -> int:
    """How often a watch opens the file within a second. For a process of its own: who once listens
    does so for ever."""
    opened: list[str] = []
    told: queue.SimpleQueue[Hint] = queue.SimpleQueue()

    def note(event: str, args: object) -> None:
        if event == "sqlite3.connect":
            opened.append(event)

    sys.addaudithook(note)
    store.watch(HEAD, told.put)
    told.get(timeout=20)
    threading.Event().wait(1.0)
    return len(opened)


def write_until_full(store: SqliteStore) -> None:
    for i in range(1000):
        write(store, **{f"big{i}": "x" * 50_000})


def fill(path: str) -> None:
    assert as_user(path, lambda store: write(store, x="1").gen) == "ok 1"


# Permissions


def test_a_read_only_file_is_read(path: str) -> None:
    fill(path)
    os.chmod(path, 0o444)
    assert as_user(path, bodies) == "ok {'x': '1'}"


def test_a_read_only_file_is_not_written_and_the_error_says_so(path: str) -> None:
    fill(path)
    os.chmod(path, 0o444)
    answer = as_user(path, lambda store: write(store, x="2"))
    assert answer.startswith("permission_denied read_only no ")
    assert path in answer
    assert as_user(path, bodies) == "ok {'x': '1'}"


def test_a_read_only_folder_is_read(path: str, folder: Path) -> None:
    fill(path)
    os.chmod(path, 0o444)
    folder.chmod(0o555)
    assert as_user(path, bodies) == "ok {'x': '1'}"
    assert as_user(path, lambda store: store.head(deadline=soon()).gen) == "ok 1"


def test_a_watch_of_a_read_only_folder_rests(path: str, folder: Path) -> None:
    fill(path)
    os.chmod(path, 0o444)
    folder.chmod(0o555)
    assert int(as_user(path, openings).removeprefix("ok ")) < 100


def test_a_watch_of_a_damaged_registry_rests(path: str) -> None:
    fill(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE head")
    assert int(as_user(path, openings).removeprefix("ok ")) < 100


def test_a_read_only_folder_is_not_written_and_the_error_says_so(path: str, folder: Path) -> None:
    fill(path)
    folder.chmod(0o555)
    answer = as_user(path, lambda store: write(store, x="2"))
    assert answer.startswith("permission_denied read_only no ")
    assert str(folder) in answer


def test_a_registry_cannot_be_made_in_a_read_only_folder(path: str, folder: Path) -> None:
    folder.chmod(0o555)
    assert as_user(path, bodies) == "ok {}"
    answer = as_user(path, lambda store: write(store, x="2"))
    assert answer.startswith("permission_denied read_only no ")


def test_a_missing_folder_is_not_made_and_the_error_names_it(folder: Path) -> None:
    lost = folder / "no" / "where"
    with SqliteStore(str(lost / "r.db")) as store:
        assert bodies(store) == {}
        assert store.list("inst", deadline=soon()) == []
        with pytest.raises(FailedPrecondition, match=f"there is no folder {lost}") as caught:
            write(store, x="1")
        assert (caught.value.reason, caught.value.executed) == ("no_folder", "no")
        with pytest.raises(FailedPrecondition, match="there is no folder"):
            store.open_session(deadline=soon())
    assert list(folder.iterdir()) == []


def test_the_default_registrys_folder_is_made_by_the_first_write(folder: Path) -> None:
    with SqliteStore(str(folder / "share" / "fan" / "r.db"), makes_folder=True) as store:
        assert bodies(store) == {}
        assert list(folder.iterdir()) == []
        assert write(store, x="1").gen == 1
    assert (folder / "share" / "fan").stat().st_mode & 0o777 == 0o700


def test_a_file_that_may_not_be_read_is_permission_denied(path: str) -> None:
    fill(path)
    os.chmod(path, 0o000)
    assert as_user(path, bodies).startswith("permission_denied read_only no ")


def test_a_folder_that_may_not_be_entered_is_permission_denied(path: str, folder: Path) -> None:
    fill(path)
    folder.chmod(0o000)
    for act in (bodies, lambda store: write(store, x="2")):
        answer = as_user(path, act)
        assert answer.startswith("permission_denied read_only no ")
        assert path in answer
    folder.chmod(0o755)


def test_a_name_that_no_file_can_have_is_unavailable(folder: Path) -> None:
    with SqliteStore(str(folder / ("x" * 300))) as store:
        for act in (bodies, lambda store: write(store, x="2")):
            with pytest.raises(Unavailable, match="File name too long"):
                act(store)


def test_a_session_needs_a_folder_for_its_lock(path: str) -> None:
    fill(path)
    Path(path + ".locks").mkdir(mode=0o555)
    answer = as_user(path, lambda store: store.open_session(deadline=soon()))
    assert answer.startswith("permission_denied read_only no ")
    assert path + ".locks" in answer


def test_a_registry_that_is_a_folder_is_unavailable(path: str) -> None:
    Path(path).mkdir()
    with SqliteStore(path) as store, pytest.raises(Unavailable, match="it is a folder"):
        bodies(store)


# Disks


def test_a_file_that_may_not_grow_refuses_and_keeps_what_it_has(path: str) -> None:
    fill(path)

    answer = as_user(path, write_until_full, limit=300_000)
    assert answer.startswith("unavailable disk_failed ")
    assert path in answer
    with SqliteStore(path) as store:
        before = store.head(deadline=soon()).gen
        assert [e.gen for e in store.log(0, deadline=soon())] == list(range(1, before + 1))
        assert write(store, x="2").gen == before + 1


@pytest.fixture
def small_disk(private: Path) -> Iterator[Path]:
    """A disk of 512 KiB. Skipped where this user may not mount one: the test above needs none."""
    place = private / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root may mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_refuses_and_keeps_what_is_there(small_disk: Path) -> None:
    path = str(small_disk / "registry.db")
    with SqliteStore(path) as store:
        write(store, x="1")
        with pytest.raises(ResourceExhausted, match=r"registry\.db cannot grow") as caught:
            write_until_full(store)
        assert (caught.value.reason, caught.value.executed) == ("disk_full", "no")
        gen = store.head(deadline=soon()).gen
        assert len(bodies(store)) == gen


# Damage


def test_a_file_that_is_no_database_is_data_loss(path: str) -> None:
    garbage = b"this is no database at all, is it? " * 40
    Path(path).write_bytes(garbage)
    with SqliteStore(path) as store:
        for act in (bodies, lambda store: write(store, x="1")):
            with pytest.raises(DataLoss) as caught:
                act(store)
            assert caught.value.executed == "no"
            assert path in str(caught.value)
            assert "move it away" in str(caught.value)
    assert Path(path).read_bytes() == garbage


def test_damaged_pages_are_data_loss(path: str) -> None:
    with SqliteStore(path) as store:
        write(store, **{f"x{i}": "y" * 500 for i in range(100)})
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    with SqliteStore(path) as store, pytest.raises(DataLoss, match="is damaged"):
        bodies(store)


def test_an_empty_file_becomes_a_registry(path: str) -> None:
    Path(path).touch()
    with SqliteStore(path) as store:
        assert bodies(store) == {}
        assert write(store, x="1").gen == 1


def test_a_file_that_another_process_makes_right_now_is_empty_or_a_registry(
    tmp_path: Path,
) -> None:
    def is_ready_while_it_is_made_at(step: int) -> tuple[bool, bool]:
        """What is found of a file that becomes a registry at that step of SQLite's look at it, and
        whether the look was that long."""
        path = str(tmp_path / f"{step}.db")
        reader, maker = schema.connect(path, "mode=rwc"), schema.connect(path, "mode=rw")
        steps = 0

        def make() -> int:
            nonlocal steps
            steps += 1
            if steps == step:
                schema.create(maker, path, REGISTRY, soon())
            return 0

        with contextlib.closing(reader), contextlib.closing(maker):
            reader.execute("PRAGMA journal_mode = WAL").fetchone()
            reader.set_progress_handler(make, 1)
            found = schema.is_ready(reader, path, REGISTRY)
            reader.set_progress_handler(None, 1)
            return found, steps >= step

    found = []
    for step in range(1, 500):
        is_ready, was_made = is_ready_while_it_is_made_at(step)
        if not was_made:
            break
        found.append(is_ready)
    assert len(found) > 10
    assert False in found


def test_a_newer_schema_is_refused(path: str) -> None:
    with SqliteStore(path) as store:
        write(store, x="1")
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {REGISTRY.version + 1}")
    with SqliteStore(path) as store:
        for act in (bodies, lambda store: write(store, x="1")):
            with pytest.raises(FailedPrecondition, match="upgrade fan") as caught:
                act(store)
            assert caught.value.reason == "newer_schema"
            assert path in str(caught.value)


def test_the_database_of_somebody_else_is_left_alone(path: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")
    with SqliteStore(path) as store:
        with pytest.raises(FailedPrecondition, match="not a registry") as caught:
            write(store, x="1")
        assert caught.value.reason == "not_a_registry"


def test_a_network_file_system_is_refused(path: str, tmp_path: Path) -> None:
    device = os.stat(os.path.dirname(path)).st_dev
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
        f"36 35 {os.major(device)}:{os.minor(device)} / /mnt rw - nfs4 server:/export rw\n"
    )
    with SqliteStore(path, mounts=str(table)) as store:
        with pytest.raises(FailedPrecondition, match=r"network file system \(nfs4\)") as caught:
            write(store, x="1")
        assert caught.value.reason == "network_file_system"
    assert not Path(path).exists()


def test_without_a_mount_table_nothing_is_refused(path: str, tmp_path: Path) -> None:
    with SqliteStore(path, mounts=str(tmp_path / "none")) as store:
        assert write(store, x="1").gen == 1


# Locks

_STUCK = """
import sqlite3
db = sqlite3.connect(path, isolation_level=None)
db.execute('BEGIN IMMEDIATE')
say('locked')
hear()
"""


def test_a_stuck_writer_ends_a_commit_at_its_deadline(path: str, run: Run) -> None:
    with SqliteStore(path) as store:
        write(store, x="1")
        with run(path, _STUCK) as stuck:
            assert stuck.hear() == "locked"
            with pytest.raises(DeadlineExceeded) as caught:
                store.commit(plan(x="2"), deadline=time.monotonic() + 1.5)
            assert (caught.value.reason, caught.value.executed) == ("locked", "no")
            assert path in str(caught.value)
            assert bodies(store) == {"x": "1"}
        assert write(store, x="3").gen == 2


def test_a_writer_that_waits_keeps_no_reader_waiting(path: str, run: Run) -> None:
    with SqliteStore(path) as store:
        write(store, x="1")
        with run(path, _STUCK) as stuck:
            assert stuck.hear() == "locked"
            waiter = threading.Thread(target=write, args=(store,), kwargs={"x": "2"})
            waiter.start()
            assert bodies(store) == {"x": "1"}
            stuck.kill()
            waiter.join()
        assert bodies(store) == {"x": "2"}


def test_a_registry_under_an_exclusive_lock_ends_a_read_at_its_deadline(
    path: str, run: Run
) -> None:
    code = """
import sqlite3
db = sqlite3.connect(path, isolation_level=None)
db.execute('PRAGMA locking_mode = EXCLUSIVE')
db.execute('BEGIN EXCLUSIVE')
say('locked')
hear()
"""
    with SqliteStore(path) as store:
        write(store, x="1")
    with run(path, code) as stuck, SqliteStore(path) as store:
        assert stuck.hear() == "locked"
        with pytest.raises(DeadlineExceeded) as caught:
            store.head(deadline=time.monotonic() + 1.5)
        assert (caught.value.reason, caught.value.executed) == ("locked", "no")


# Watches


def test_a_watch_that_begins_while_the_registry_is_lost_is_told_at_once(path: str) -> None:
    Path(path).write_bytes(b"garbage " * 1000)
    with SqliteStore(path) as store:
        for _ in range(2):  # the second one begins when the loss was told
            told: queue.SimpleQueue[Hint] = queue.SimpleQueue()
            store.watch(HEAD, told.put)
            assert told.get(timeout=20) == "lost"


def test_a_watch_tells_of_a_registry_that_is_lost_and_regained(path: str) -> None:
    with SqliteStore(path) as store:
        store.put("inst", "a", b"", deadline=soon())
        hints: list[Hint] = []

        def ask() -> object:
            found: object = "error"
            with contextlib.suppress(FanError):
                found = names(store, "inst")
            return (found, "lost" in hints)

        seen = Eventually(ask)

        def callback(hint: Hint) -> None:
            hints.append(hint)
            seen(hint)

        store.watch("inst", callback)
        assert seen.sees((["a"], False))
        # A log that stayed would be taken for that of the next file of this name.
        for part in ("-wal", "-shm", ""):
            os.rename(path + part, path + ".kept" + part)
        Path(path).write_bytes(b"garbage " * 1000)
        assert seen.sees(("error", True))
        os.unlink(path)
        for part in ("-wal", "-shm", ""):
            os.rename(path + ".kept" + part, path + part)
        assert seen.sees((["a"], True))
        assert "regained" in hints


def test_a_closed_store_says_so(path: str) -> None:
    store = SqliteStore(path)
    write(store, x="1")
    store.close()
    with pytest.raises(FailedPrecondition, match="was closed"):
        store.head(deadline=soon())


def test_a_store_that_is_not_closed_warns(path: str) -> None:
    store = SqliteStore(path)
    write(store, x="1")
    with pytest.warns(ResourceWarning, match="was not closed"):
        store.__del__()
    store.close()
