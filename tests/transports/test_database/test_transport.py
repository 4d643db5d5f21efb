"""The database transport by itself: addresses, what it cannot do, and how it answers handlers."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fan.app import App
from fan.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unimplemented,
)
from fan.message import Request, Response
from fan.model import Address, QueueName
from fan.settings import Settings
from fan.stores.memory import MemoryStore
from fan.testing.contracts.queue_probe import inbox
from fan.transports.base import Served, Stream, Subscription
from fan.transports.database import DatabaseTransport, path_of
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

SHOP = QueueName("shop")


def soon() -> float:
    return time.monotonic() + HANG


# Addresses


def test_its_address_is_the_database_of_the_settings(private: Path) -> None:
    named = DatabaseTransport(Settings(database_url=f"sqlite:{private}/other.db"))
    assert named.home().url == f"database:{private}/other.db"
    beside = DatabaseTransport(Settings(registry=f"sqlite:{private}/registry.db"))
    assert beside.home().url == f"database:{private}/queues.db"


def test_a_database_that_is_none_for_queues_is_refused() -> None:
    transport = DatabaseTransport(Settings(database_url="postgresql://ada:secret@host/db"))
    with pytest.raises(InvalidArgument, match="sqlite:PATH") as info:
        transport.home()
    assert "secret" not in str(info.value)


@pytest.mark.parametrize("url", ["database:", "database:/data/", "amqp://host", "/data/queues.db"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument, match="no address"):
        path_of(Address(url))


def test_the_default_databases_folder_is_made_and_no_other(private: Path, path: str) -> None:
    default = DatabaseTransport(Settings())
    send(default, a_push())
    assert os.path.dirname(path_of(default.home())).startswith(str(private))
    default.close()
    lost = DatabaseTransport(Settings(database_url=f"sqlite:{private}/no/where/queues.db"))
    with pytest.raises(FailedPrecondition, match="there is no folder"):
        send(lost, a_push())
    lost.close()


def test_looking_at_a_database_that_is_not_there_makes_none(make: Make, path: str) -> None:
    queues = make().queues(address(path))
    assert queues.list([SHOP], deadline=soon()) == []
    with pytest.raises(NotFound):
        queues.purge(SHOP, deadline=soon())
    assert not os.path.exists(path)


# What it does not do


def test_it_calls_nobody_and_says_what_it_is_for(make: Make, path: str) -> None:
    transport, request = make(), a_push(kind="call")
    for send_it in (transport.call, transport.submit):
        with pytest.raises(Unimplemented, match="pushes and events") as info:
            send_it(address(path), request)
        assert info.value.executed == "no"
    with pytest.raises(Unimplemented) as info:
        transport.stream(address(path), request)
    assert info.value.reason == "streaming_unsupported"


def test_an_app_that_is_served_over_it_alone_cannot_be_called(private: Path) -> None:
    store = MemoryStore("alone")
    settings = Settings(registry=f"sqlite:{private}/registry.db")
    with App(inbox(), settings=settings, store=store) as app:
        app.start(("database",))
        with App(settings=settings, store=store) as caller:
            with pytest.raises(Unimplemented, match=r"call inbox\.add over another transport"):
                caller.call("inbox.add", 1)
            with pytest.raises(Unimplemented, match="over another transport"):
                caller.submit("inbox.add", 1).result(HANG)
    store.close()


def test_what_is_too_large_is_refused(make: Make, path: str) -> None:
    transport = make(max_body=100)
    for carry in (transport.send, transport.publish):
        with pytest.raises(ResourceExhausted) as info:
            carry(address(path), a_push(body=b"x" * 101, topic="a"))
        assert (info.value.reason, info.value.executed) == ("payload_too_large", "no")
    assert not os.path.exists(path)


# Answers of handlers


def test_an_event_says_how_many_got_it(make: Make, path: str) -> None:
    transport = make()
    event = a_push(kind="event", topic="news", service="")
    assert transport.publish(address(path), event).details == {"groups": 0}
    for group in ("", "", "readers"):
        transport.subscribe(address(path), Subscription("news", group), Handler())
    assert transport.publish(address(path), event).details == {"groups": 3}


def test_an_event_is_handled_under_the_names_of_its_subscription(make: Make, path: str) -> None:
    transport, handler = make(), Handler()
    wanted = Subscription("news", "readers", "reader", "read")
    transport.subscribe(address(path), wanted, handler)
    transport.publish(address(path), a_push(kind="event", topic="news", service="", method=""))
    request = handler.wait()
    assert (request.topic, request.service, request.method) == ("news", "reader", "read")


def test_a_push_is_handled_by_the_instance_that_took_it(make: Make) -> None:
    transport, handler = make(), Handler()
    serve(transport, handler)
    send(transport, a_push())
    assert handler.wait().instance == "shop-1"


def test_a_refusal_without_a_try_counts_as_no_delivery(make: Make, path: str) -> None:
    refusals = iter(range(10))

    def answer(request: Request) -> Response | None:
        if next(refusals) < 6:
            return Response(id=request.id, code="unavailable", reason="no_instance", executed="no")
        return None

    transport, handler = make(deliveries=2), Handler(answer)
    serve(transport, handler)
    send(transport, a_push())
    assert [handler.wait().attempt for _ in range(7)] == [0] * 7
    until(lambda: transport.queues(address(path)).list([SHOP], deadline=soon())[0].in_flight == 0)
    assert transport.queues(address(path)).letters(SHOP, dead=True, deadline=soon()) == []


@pytest.mark.parametrize("kind", ["raises", "stream", "cancelled", "failed future"])
def test_a_handler_that_breaks_its_word_counts_as_a_failure(
    make: Make, path: str, kind: str
) -> None:
    def answer(request: Request) -> Any:
        if kind == "raises":
            raise ValueError("a bug")
        if kind == "stream":
            return Stream(chunks=iter(()), close=lambda: None)
        future: Future[Response] = Future()
        if kind == "cancelled":
            future.cancel()
            future.set_running_or_notify_cancel()
        else:
            future.set_exception(ValueError("a bug"))
        return future

    transport, handler = make(deliveries=2), Handler(answer)
    serve(transport, handler)
    send(transport, a_push())
    assert [handler.wait().attempt for _ in range(2)] == [0, 1]
    letters = transport.queues(address(path)).letters
    until(lambda: letters(SHOP, dead=True, deadline=soon()))
    send(transport, a_push("after"))
    assert handler.wait().method == "after"


def test_no_more_is_taken_than_there_are_workers(make: Make, path: str) -> None:
    gate = threading.Event()
    handler = Handler(lambda request: gate.wait(HANG) and None)
    transport = make(workers=2)
    serve(transport, handler)
    for n in range(5):
        send(transport, a_push(str(n)))
    assert {handler.wait().method, handler.wait().method} == {"0", "1"}
    (queue,) = transport.queues(address(path)).list([SHOP], deadline=soon())
    assert (queue.ready, queue.in_flight, queue.consumers) == (3, 2, 1)
    gate.set()
    assert [handler.wait().method for _ in range(3)] == ["2", "3", "4"]


def test_handlers_that_return_futures_hold_no_thread(make: Make) -> None:
    futures: list[Future[Response]] = []
    handler = Handler(lambda request: futures.append(Future()) or futures[-1])
    transport = make(workers=4)
    serve(transport, handler)
    for n in range(8):
        send(transport, a_push(str(n)))
    for _ in range(4):
        handler.wait()
    for future in futures[:4]:
        future.set_result(Response(id="x"))
    for _ in range(4):
        handler.wait()
    for future in futures[4:]:
        future.set_result(Response(id="x"))


def test_a_thousand_pushes_leave_no_row_behind(make: Make, path: str) -> None:
    transport = make()
    listener = serve(transport, Handler())
    ear = transport.subscribe(address(path), Subscription("news", "readers"), Handler())

    def rows() -> dict[str, int]:
        with closing(sqlite3.connect(path)) as db:
            tables = ("message", "answer", "queue", "consumer")
            return {t: db.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in tables}

    before = rows()
    assert before == {"message": 0, "answer": 0, "queue": 2, "consumer": 2}
    for n in range(1000):
        send(transport, a_push(str(n)))
        if n % 10 == 0:
            transport.publish(address(path), a_push(kind="event", topic="news"))
    until(lambda: rows() == before)
    listener.close()
    ear.close()
    until(lambda: not rows()["consumer"])


def test_a_stuck_queue_leaves_room_for_another(make: Make, path: str) -> None:
    gate = threading.Event()
    stuck, free = Handler(lambda request: gate.wait(HANG) and None), Handler()
    transport = make(workers=4)
    listener = transport.serve("", stuck)
    for n in range(20):
        send(transport, a_push(str(n)))
    transport.subscribe(address(path), Subscription("news", "readers"), free)
    for _ in range(3):
        transport.publish(address(path), a_push(kind="event", topic="news"))
    listener.update([Served("shop", "1.0.0", "shop-1")])
    for _ in range(3):
        free.wait()
    gate.set()


def test_a_version_that_loses_its_route_takes_nothing_new_and_ends_what_it_has(
    make: Make, path: str
) -> None:
    gate = threading.Event()
    handler = Handler(lambda request: gate.wait(HANG) and None)
    transport = make()
    listener = serve(transport, handler)
    send(transport, a_push("held"))
    handler.wait()
    listener.update([Served("shop", "1.0.0", "shop-1", is_routed=False)])
    send(transport, a_push("kept"))
    gate.set()

    def queue() -> Any:
        return transport.queues(address(path)).list([SHOP], deadline=soon())[0]

    until(lambda: (queue().in_flight, queue().consumers) == (0, 0))
    assert queue().ready == 1
    listener.update([Served("shop", "1.0.0", "shop-1")])
    assert handler.wait().method == "kept"


def test_a_subscriber_of_its_own_leaves_no_queue(make: Make, path: str) -> None:
    transport = make()
    for _ in range(3):
        transport.subscribe(address(path), Subscription("news"), Handler()).close()
    event = a_push(kind="event", topic="news")
    assert transport.publish(address(path), event).details == {"groups": 0}
    assert transport.queues(address(path)).list([], deadline=soon()) == []


def test_a_closed_transport_leaves_no_thread_and_no_lock_file(make: Make, path: str) -> None:
    before = threading.active_count()
    transport = make()
    serve(transport, Handler())
    send(transport, a_push())
    transport.close()
    transport.close()
    assert threading.active_count() == before
    assert os.listdir(f"{path}.locks") == []
