"""A server with more requests than threads."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import as_completed
from typing import Any

import pytest

from fan.settings import Settings
from fan.transports.http import HttpTransport


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
