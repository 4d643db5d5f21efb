"""What becomes of messages that a worker has, or is about to have, when it leaves."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from fan.message import Request
from fan.transports import database_rows as rows
from fan.transports.base import Subscription
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


@pytest.fixture
def other(path: str, make: Make) -> Iterator[sqlite3.Connection]:
    """Another process's connection to the database, which is there."""
    send(make(), a_push("first"))
    with closing(sqlite3.connect(path, isolation_level=None, timeout=HANG)) as db:
        yield db


def test_a_worker_that_is_told_to_leave_while_the_file_is_locked_claims_nothing_more(
    make: Make, path: str, other: sqlite3.Connection
) -> None:
    other.execute("CREATE TABLE noted (body BLOB)")
    other.execute(
        "CREATE TRIGGER note AFTER UPDATE OF state ON message WHEN NEW.state = 1"
        " BEGIN INSERT INTO noted VALUES (NEW.body); END"
    )
    gate = threading.Event()
    transport, handler = make(workers=1), Handler()
    pushes = serve(transport, handler)
    assert handler.wait().method == "first"
    busy = Handler(lambda request: gate.wait(HANG) and None)
    events = transport.subscribe(address(path), Subscription("news", "readers"), busy)
    transport.publish(address(path), a_push(kind="event", topic="news"))
    assert busy.wait().topic == "news"
    send(transport, a_push("waits"))  # for the only place
    other.execute("BEGIN IMMEDIATE")
    assert "0 in hand" in repr(pushes)
    gate.set()
    until(lambda: "1 in hand" in repr(pushes))  # it has a place now: a look waits for the file
    pushes.drain()
    other.execute("COMMIT")
    until(lambda: other.execute("SELECT count(*) FROM message").fetchone() == (1,))
    events.close(HANG)
    pushes.close(HANG)
    claims = [bytes(body) for (body,) in other.execute("SELECT body FROM noted")]
    assert len(claims) == 2  # the first push, and the event
    found = other.execute("SELECT state, deliveries, body FROM message").fetchall()
    assert [(state, deliveries) for state, deliveries, _ in found] == [(0, 0)]
    assert found[0][2] not in claims


def test_who_leaves_has_given_back_what_was_being_taken_for_it(
    make: Make, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    other.execute("CREATE TABLE noted (state INTEGER, deliveries INTEGER)")
    other.execute(
        "CREATE TRIGGER note AFTER DELETE ON consumer"
        " BEGIN INSERT INTO noted SELECT state, deliveries FROM message; END"
    )
    claim, is_taking, gate = rows.claim, threading.Event(), threading.Event()

    def slow(*what: Any) -> list[rows.Claimed]:
        is_taking.set()
        gate.wait(HANG)
        return claim(*what)

    monkeypatch.setattr(rows, "claim", slow)
    handler = Handler()
    listener = serve(make(), handler)
    assert is_taking.wait(HANG)
    leaving = threading.Thread(target=listener.close, args=(HANG,))
    leaving.start()
    until(lambda: "draining" in repr(listener))
    gate.set()
    leaving.join(2 * HANG)
    ((state, deliveries),) = other.execute("SELECT state, deliveries FROM noted")
    assert state != 1  # in nobody's hand
    assert deliveries == 0
    assert handler.requests.empty()


def test_who_leaves_has_time_for_it_however_long_its_handler_took(
    make: Make, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, handler = threading.Event(), Handler(lambda request: gate.wait(HANG) and None)
    transport, now = make(), time.monotonic
    news = transport.subscribe(address(path), Subscription("news", ""), handler)
    transport.publish(address(path), a_push(kind="event", topic="news"))
    assert handler.wait().topic == "news"
    leaving = threading.Thread(target=news.close, args=(HANG,))
    leaving.start()
    until(lambda: "draining" in repr(news))
    monkeypatch.setattr(time, "monotonic", lambda: now() + 3.0)  # more than a farewell takes
    gate.set()
    leaving.join(2 * HANG)
    with closing(sqlite3.connect(path, timeout=HANG)) as db:
        left = "SELECT (SELECT count(*) FROM consumer), (SELECT count(*) FROM queue)"
        assert db.execute(left).fetchone() == (0, 0)


def test_what_no_handler_was_begun_for_when_its_worker_ends_is_no_delivery(
    make: Make, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, gate = threading.Thread.start, threading.Event()

    def scarce(thread: threading.Thread) -> None:
        if thread.name == "fan-queue-1":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    leaving, staying = Handler(lambda request: gate.wait(HANG) and None), Handler()
    transport = make(workers=2)
    listener = serve(transport, leaving)
    send(transport, a_push("begun"))
    assert leaving.wait().method == "begun"
    send(transport, a_push("waits"))
    with closing(sqlite3.connect(path, timeout=HANG)) as db:
        claimed = "SELECT count(*) FROM message WHERE state = 1"
        until(lambda: db.execute(claimed).fetchone() == (2,))
    listener.close(0.0)
    serve(make(), staying)
    came: list[Request] = [staying.wait(), staying.wait()]
    assert {(one.method, one.attempt) for one in came} == {("begun", 1), ("waits", 0)}
    gate.set()
    transport.close()
    assert leaving.requests.empty()
