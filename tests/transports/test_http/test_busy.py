"""A server with more requests than threads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import as_completed, wait
from typing import Any

import pytest

from fan.errors import DeadlineExceeded, Unavailable
from fan.settings import Settings
from fan.transports.http import CONCURRENT_SUBMITS, HttpTransport
from fan.transports.http_protocol import Protocol
from fan.transports.http_server import HttpListener


@pytest.fixture
def narrow(site: Any) -> Iterator[Any]:
    """A site whose server has one thread, and room for one request more."""
    settings = Settings(registry="memory:", workers=1, bulkhead_requests=1)
    listener = HttpTransport(settings).serve("", site.methods)
    site.address = listener.address
    yield site
    site.methods.gate.set()
    listener.close()


def test_a_request_without_a_thread_or_room_to_wait_is_refused(narrow: Any) -> None:
    first = narrow.transport.submit(narrow.address, narrow.ask("hold"))
    assert narrow.methods.entered.wait(narrow.bound)
    waiting = [narrow.transport.submit(narrow.address, narrow.ask("hello")) for _ in range(8)]
    # One or two wait, as they come; the others are answered while the thread is held.
    answer = next(as_completed(waiting, narrow.bound)).result()
    assert (answer.code, answer.reason) == ("resource_exhausted", "bulkhead_full")
    assert answer.executed == "no"
    narrow.methods.gate.set()
    assert first.result(narrow.bound).code == "ok"


def test_a_request_whose_time_passed_while_it_waited_is_not_run(narrow: Any) -> None:
    first = narrow.transport.submit(narrow.address, narrow.ask("hold"))
    assert narrow.methods.entered.wait(narrow.bound)
    with narrow.connect() as connection:
        connection.sendall(
            b"POST /rpc/greeter/hello HTTP/1.1\r\nHost: " + narrow.address.url[7:].encode()
            + b"\r\nFan-Caller: test\r\nFan-Timeout-Ms: 1\r\nContent-Length: 0\r\n\r\n"
        )  # fmt: skip
        assert b"expired_in_queue" in connection.recv(65536)  # the one thread is still held
    narrow.methods.gate.set()
    assert first.result(narrow.bound).code == "ok"
    assert [seen.method for seen in narrow.methods.seen] == ["hold"]


def test_a_stream_that_says_nothing_for_now_keeps_no_call_waiting(narrow: Any) -> None:
    ask = narrow.ask("stall", b'{"n":1}', kind="stream")
    with contextlib.closing(narrow.transport.stream(narrow.address, ask)) as chunks:
        assert next(chunks).body == b"0"
        assert narrow.methods.entered.wait(narrow.bound)  # its generator waits
        assert narrow.call("hello").code == "ok"
        narrow.methods.gate.set()
        assert next(chunks).kind == "end"


@pytest.fixture
def crowded(site: Any) -> Iterator[Any]:
    """A client all of whose threads wait for a server, until the gate opens."""
    held = [
        site.transport.submit(site.address, site.ask("hold")) for _ in range(CONCURRENT_SUBMITS)
    ]
    assert site.methods.entered.wait(site.bound)
    yield site
    site.methods.gate.set()
    assert {future.result(site.bound).code for future in held} <= {"ok", "resource_exhausted"}


def test_a_call_that_finds_no_thread_ends_at_its_deadline_and_was_not_sent(crowded: Any) -> None:
    late = crowded.transport.submit(crowded.address, crowded.ask("hello", timeout_ms=50))
    with pytest.raises(DeadlineExceeded) as caught:  # while all the threads are still held
        late.result(crowded.bound)
    assert (caught.value.reason, caught.value.executed) == ("client_timer", "no")
    assert "hello" not in [seen.method for seen in crowded.methods.seen]


def test_deadlines_of_waiting_calls_are_kept_in_their_own_order(crowded: Any) -> None:
    patient = crowded.transport.submit(crowded.address, crowded.ask("hello"))
    ended: list[int] = []
    late = []
    for ms in (2500, 50, 800):
        late.append(crowded.transport.submit(crowded.address, crowded.ask("fail", timeout_ms=ms)))
        late[-1].add_done_callback(lambda _, ms=ms: ended.append(ms))
    assert not wait(late, crowded.bound).not_done
    assert ended == [50, 800, 2500]
    assert not patient.done()
    crowded.methods.gate.set()
    assert patient.result(crowded.bound).code == "ok"


def test_a_call_that_waits_for_a_thread_ends_with_the_transport(crowded: Any) -> None:
    waiting = crowded.transport.submit(crowded.address, crowded.ask("hello"))
    crowded.methods.gate.set()
    crowded.transport.close()
    with contextlib.suppress(Unavailable):  # a thread was quicker
        assert waiting.result(crowded.bound).code == "ok"


class Hasty(Protocol):
    greeting = patience = 1.0


@pytest.fixture
def hasty(site: Any) -> Iterator[Any]:
    """A site whose server waits for nobody."""
    listener = HttpListener("", site.methods, protocol=Hasty)
    site.address = listener.address
    yield site
    site.methods.gate.set()
    listener.close()


_HEAD = b"POST /rpc/greeter/hello HTTP/1.1\r\nHost: %b\r\nContent-Length: 2\r\n\r\n"


@pytest.mark.parametrize("what", ["nothing", "half a head", "half a body", "a second half head"])
def test_a_connection_over_which_no_request_comes_is_given_up(hasty: Any, what: str) -> None:
    head = _HEAD % hasty.address.url[7:].encode()
    sent = {
        "nothing": b"",
        "half a head": head[:-4],
        "half a body": head + b"{",
        "a second half head": head + b"{}" + head[:-4],
    }[what]
    with hasty.connect() as connection:
        connection.sendall(sent)
        while connection.recv(65536):  # the end, within the bound of the connection
            pass
    assert len(hasty.methods.seen) == (what == "a second half head")


def test_a_request_that_takes_long_is_answered_whatever_else_its_connection_brings(
    hasty: Any,
) -> None:
    head = _HEAD % hasty.address.url[7:].encode()
    with hasty.connect() as connection:
        connection.sendall(head.replace(b"hello", b"hold") + b"{}" + head[:-4])
        assert hasty.methods.entered.wait(hasty.bound)
        connection.settimeout(4.0)  # four times what an idle one has
        with pytest.raises(TimeoutError):
            connection.recv(1)
        hasty.methods.gate.set()
        connection.settimeout(hasty.bound)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
