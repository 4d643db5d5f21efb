"""A registry file that is removed, and made anew, under those who have it open."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fan.errors import Unavailable
from fan.stores.sqlite import SqliteStore
from fan.testing.contracts.store import Eventually, bodies, names, soon, write
from tests.configs import wipe

#: Starts another process with a store on a path: the fixture `run`.
Run = Callable[[str, str], Any]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "registry.db")


@pytest.fixture
def store(path: str) -> Iterator[SqliteStore]:
    with SqliteStore(path) as store:
        yield store


@pytest.fixture
def old(path: str) -> str:
    """The path of one that nobody has open."""
    with SqliteStore(path) as store:
        write(store, x="old")
    return path


#: Has the registry made anew at the moment when the thread that is named in `at` has opened the
#: file, and not yet looked which one that is.
_AMID = """
import queue, threading
at = set()
def replace(event, args):
    if event != 'sqlite3.connect/handle' or threading.current_thread().name not in at:
        return
    at.clear()
    for part in ('', '-wal', '-shm'):
        if os.path.exists(path + part):
            os.unlink(path + part)
    mine(x='new')
sys.addaudithook(replace)
def mine(**bodies):
    global store
    with SqliteStore(path) as other:
        store, kept = other, store
        write(**bodies)
        store = kept
def found():
    with SqliteStore(path) as other:
        cut = other.read(prefix='config/', deadline=soon())
    return {name: revision.body.decode() for name, revision in cut.objects.items()}
"""


def test_who_opens_it_meanwhile_reads_the_new_one(old: str, run: Run) -> None:
    code = """
at.add('MainThread')
store.head(deadline=soon())
cut = store.read(['config/x'], deadline=soon())
say(cut.objects['config/x'].body.decode())
"""
    with run(old, _AMID + code) as process:
        assert process.rest() == ["new"]


def test_who_opens_it_meanwhile_writes_to_the_new_one(old: str, run: Run) -> None:
    code = """
at.add('MainThread')
write(y='1')
say(found())
"""
    with run(old, _AMID + code) as process:
        assert process.rest() == ["{'config/x': 'new', 'config/y': '1'}"]


def test_a_watch_that_opens_it_meanwhile_is_told_of_the_new_one(old: str, run: Run) -> None:
    code = """
at.add('fan-registry-watch')
told = queue.SimpleQueue()
store.watch(HEAD, told.put)
say(told.get(timeout=20))
mine(y='1')
say(told.get(timeout=20))
"""
    with run(old, _AMID + code) as process:
        assert process.rest() == ["changed", "changed"]


def test_a_watch_of_records_is_told_when_the_new_one_has_as_many_changes(
    path: str, store: SqliteStore
) -> None:
    store.put("kind", "old", b"", deadline=soon())
    with SqliteStore(path + ".new") as other:
        other.put("kind", "new", b"", deadline=soon())
    seen = Eventually(lambda: names(store, "kind"))
    store.watch("kind", seen)
    assert seen.sees(["old"])
    for part in ("-wal", "-shm"):
        os.unlink(path + part)
    os.rename(path + ".new", path)  # there is always one
    assert seen.sees(["new"])


def test_a_session_is_lost_though_its_own_process_made_the_new_one(
    path: str, store: SqliteStore
) -> None:
    told = threading.Event()
    session = store.open_session(on_lost=told.set, deadline=soon())
    wipe(f"sqlite:{path}")
    # Many file systems give a new file the inode of the one that was removed last.
    write(store, x="1")
    with pytest.raises(Unavailable) as caught:
        store.put("kind", "name", b"", session=session, deadline=soon())
    assert caught.value.reason == "session_lost"
    assert told.wait(20)
    assert not session.is_alive
    assert bodies(store) == {"x": "1"}
