"""A registry file that is removed, and made anew, under those who have it open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fan.stores.sqlite import SqliteStore
from fan.testing.contracts.store import write

#: Starts another process with a store on a path: the fixture `run`.
Run = Callable[[str, str], Any]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "registry.db")


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
