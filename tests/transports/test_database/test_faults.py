"""What the queue database says when something is wrong with its file, and that workers go on."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fan.errors import (
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    FanError,
    ResourceExhausted,
)
from fan.settings import Settings
from fan.stores.sqlite import SqliteStore
from fan.testing.contracts.store import soon, write
from fan.transports.base import Subscription
from fan.transports.database import DatabaseTransport
from fan.transports.database_schema import QUEUE_DATABASE
from tests.transports.test_database.conftest import (
    HANG,
    Handler,
    Make,
    a_push,
    address,
    send,
    serve,
    until,
)


def as_user(path: str, act: Callable[[DatabaseTransport], object]) -> str:
    """What `act` raises, or returns, for a user whom permissions bind."""
    read, written = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            transport = DatabaseTransport(Settings(database_url=f"sqlite:{path}"))
            try:
                answer = f"ok {act(transport)}"
            except FanError as error:
                answer = f"{error.code} {error.reason} {error.executed} {error}"
            transport.close()
            os.write(written, answer.encode())
        os._exit(0)
    os.close(written)
    with os.fdopen(read, encoding="utf-8") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer


@pytest.fixture
def folder(private: Path) -> Path:
    """A folder that an ordinary user may reach, and owns."""
    private.chmod(0o755)
    own = private / "own"
    own.mkdir()
    if os.geteuid() == 0:
        os.chown(own, 65534, 65534)
    return own


ACTS: dict[str, Callable[[DatabaseTransport], object]] = {
    "push": lambda transport: send(transport, a_push()),
    "publish": lambda transport: transport.publish(transport.home(), a_push(topic="news")),
    "serve": lambda transport: serve(transport, Handler()),
    "subscribe": lambda transport: transport.subscribe(
        transport.home(), Subscription("news", "readers"), Handler()
    ),
}
every_act = pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)


@every_act
def test_a_read_only_file_is_permission_denied(
    folder: Path, act: Callable[[DatabaseTransport], object]
) -> None:
    path = str(folder / "queues.db")
    assert as_user(path, ACTS["push"]) == "ok None"
    os.chmod(path, 0o444)
    answer = as_user(path, act)
    assert answer.startswith("permission_denied read_only no ")
    assert path in answer


@every_act
def test_a_read_only_folder_is_permission_denied(
    folder: Path, act: Callable[[DatabaseTransport], object]
) -> None:
    folder.chmod(0o555)
    answer = as_user(str(folder / "queues.db"), act)
    assert answer.startswith("permission_denied read_only no ")
    assert str(folder) in answer


@pytest.fixture
def small_disk(private: Path) -> Iterator[Path]:
    """A disk of 512 KiB. Skipped where this user may not mount one."""
    place = private / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root may mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_refuses_and_loses_nothing(make: Make, small_disk: Path) -> None:
    url = f"sqlite:{small_disk}/queues.db"
    transport, sent = make(database_url=url), []

    def send_until_full() -> None:
        for n in range(1000):
            send(transport, a_push(str(n), body=b"x" * 20_000))
            sent.append(str(n))

    with pytest.raises(ResourceExhausted, match="cannot grow") as info:
        send_until_full()
    assert (info.value.reason, info.value.executed) == ("disk_full", "no")
    transport.close()
    grow = ["mount", "-o", "remount,size=8m", str(small_disk)]
    subprocess.run(grow, check=True)
    handler, again = Handler(), make(database_url=url)
    serve(again, handler)
    assert sorted(handler.wait().method for _ in sent) == sorted(sent)
    again.close()


@every_act
def test_what_is_no_database_is_data_loss_and_stays_as_it_is(
    make: Make, path: str, act: Callable[[DatabaseTransport], object]
) -> None:
    garbage = b"this is no database at all, is it? " * 40
    Path(path).write_bytes(garbage)
    with pytest.raises(DataLoss, match="move it away") as info:
        act(make())
    assert info.value.executed == "no"
    assert path in str(info.value)
    assert Path(path).read_bytes() == garbage


@every_act
def test_a_database_whose_pages_are_damaged_is_data_loss(
    make: Make, path: str, act: Callable[[DatabaseTransport], object]
) -> None:
    first = make()
    for n in range(50):
        send(first, a_push(str(n), body=b"x" * 1000))
    first.close()
    with open(path, "r+b") as file:  # what follows the first page, which says what it is
        file.seek(4096)
        file.write(b"\x5a" * (os.path.getsize(path) - 4096))
    with pytest.raises(DataLoss, match="damaged") as info:
        act(make())
    assert info.value.executed == "no"
    assert path in str(info.value)


def test_workers_tell_once_of_a_file_that_is_no_database_any_more_and_go_on(
    make: Make, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    transport, handler = make(), Handler()
    serve(transport, handler)
    Path(f"{path}.new").write_bytes(b"this is no database at all, is it? " * 40)
    for suffix in ("-wal", "-shm"):
        os.unlink(path + suffix)
    os.replace(f"{path}.new", path)  # there is always one: the workers would make it anew

    def told(what: str) -> list[str]:
        return [record.getMessage() for record in caplog.records if what in record.getMessage()]

    until(lambda: told("messages have to wait"))
    with pytest.raises(DataLoss):  # and the workers look again
        send(transport, a_push())
    os.unlink(path)
    send(transport, a_push("anew"))
    assert handler.wait().method == "anew"
    (lost,) = told("messages have to wait")
    assert "move it away" in lost
    until(lambda: told("can be used again"))  # said by the thread that handed the message out
    assert told("can be used again") == [f"the queue database {path} can be used again"]


def test_workers_rest_while_the_database_is_damaged(folder: Path) -> None:
    path = str(folder / "queues.db")

    def openings(transport: DatabaseTransport) -> int:
        """How often workers open it within a second; for a process of its own."""
        serve(transport, Handler())
        opened: list[str] = []

        def note(event: str, args: object) -> None:
            if event == "sqlite3.connect":
                opened.append(event)

        sys.addaudithook(note)
        for suffix in ("-wal", "-shm"):
            os.unlink(path + suffix)
        os.replace(f"{path}.damaged", path)
        until(lambda: opened)
        threading.Event().wait(1.0)
        return len(opened)

    assert as_user(f"{path}.damaged", ACTS["push"]) == "ok None"
    with closing(sqlite3.connect(f"{path}.damaged")) as db:
        db.execute("DROP TABLE message")
    assert int(as_user(path, openings).removeprefix("ok ")) < 100


@every_act
def test_a_registry_is_no_queue_database(
    make: Make, path: str, act: Callable[[DatabaseTransport], object]
) -> None:
    with SqliteStore(path) as store:
        write(store, x="1")
    with pytest.raises(FailedPrecondition, match="not a queue database") as info:
        act(make())
    assert info.value.reason == "not_a_queue_database"


def test_a_newer_schema_is_refused(make: Make, path: str) -> None:
    send(make(), a_push())
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {QUEUE_DATABASE.version + 1}")
    with pytest.raises(FailedPrecondition, match="newer fan") as info:
        send(make(), a_push())
    assert info.value.reason == "newer_schema"


@pytest.fixture
def locked(make: Make, path: str) -> Iterator[sqlite3.Connection]:
    """Somebody keeps the database from being written."""
    send(make(), a_push("first"))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield db


@pytest.mark.parametrize("act", ["push", "publish"])
def test_a_locked_file_ends_at_the_deadline(
    make: Make, locked: sqlite3.Connection, path: str, act: str
) -> None:
    request = a_push(topic="news", timeout_ms=1500)
    carry = make().send if act == "push" else make().publish
    with pytest.raises(DeadlineExceeded, match="locked by another process") as info:
        carry(address(path), request)
    assert (info.value.reason, info.value.executed) == ("locked", "no")


def test_beginning_to_take_from_a_locked_file_ends_in_time(
    make: Make, locked: sqlite3.Connection
) -> None:
    with pytest.raises(DeadlineExceeded, match="locked"):
        serve(make(timeout=1.5), Handler())


def test_workers_go_on_once_a_lock_is_gone(make: Make, path: str) -> None:
    transport, handler = make(), Handler()
    serve(transport, handler)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        sending = threading.Thread(target=send, args=(transport, a_push("waits")))
        sending.start()
        db.execute("COMMIT")
    sending.join(HANG)
    assert handler.wait().method == "waits"


def test_messages_wait_while_the_machine_gives_no_thread(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, is_short, refused = threading.Thread.start, threading.Event(), threading.Event()

    def scarce(thread: threading.Thread) -> None:
        if is_short.is_set() and thread.name == "fan-queue-0":
            refused.set()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    transport, handler = make(), Handler()
    serve(transport, handler)
    is_short.set()
    send(transport, a_push("waits"))
    assert refused.wait(HANG)
    is_short.clear()
    request = handler.wait()
    assert (request.method, request.attempt) == ("waits", 0)


def test_workers_take_from_a_file_that_was_replaced(make: Make, path: str) -> None:
    transport, handler, ear = make(), Handler(), Handler()
    serve(transport, handler)
    transport.subscribe(address(path), Subscription("news"), ear)
    for suffix in ("", "-wal", "-shm"):
        os.unlink(path + suffix)
    send(transport, a_push("anew"))
    assert handler.wait().method == "anew"
    event = a_push(kind="event", topic="news")
    until(lambda: transport.publish(address(path), event).details == {"groups": 1})
    assert ear.wait().topic == "news"


def test_workers_go_on_when_their_lock_files_are_removed(make: Make, path: str) -> None:
    transport, handler, ear = make(), Handler(), Handler()
    serve(transport, handler)
    transport.subscribe(address(path), Subscription("news"), ear)
    (lock,) = os.listdir(f"{path}.locks")
    os.unlink(f"{path}.locks/{lock}")
    until(lambda: os.listdir(f"{path}.locks"))
    other = make()
    serve(other, handler)
    for n in range(10):
        send(other, a_push(str(n)))
    assert {handler.wait().method for _ in range(10)} == {str(n) for n in range(10)}
    other.publish(address(path), a_push(kind="event", topic="news"))
    assert ear.wait().topic == "news"


def test_a_fork_leaves_the_messages_to_the_parent(make: Make, path: str) -> None:
    gate = threading.Event()
    handler = Handler(lambda request: gate.wait(HANG) and None)
    transport = make()
    serve(transport, handler)
    send(transport, a_push("held"))
    handler.wait()
    pid = os.fork()
    if pid == 0:  # it inherits the descriptor of the lock, and must not keep it
        status = 1
        with contextlib.suppress(BaseException):
            send(transport, a_push("child"))
            transport.close()
            status = 0
        os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert handler.wait().method == "child"
    gate.set()
    until(lambda: not transport.queues(address(path)).list([], deadline=soon())[0].in_flight)
    assert handler.requests.empty()
    transport.close()
    other = make()
    serve(other, handler)
    send(other, a_push("after"))
    assert handler.wait().method == "after"
