"""Streams: order, credit, the end, and readers that leave."""

from __future__ import annotations

import time
from typing import Any

import pytest

from fan.errors import DeadlineExceeded
from fan.transports.ipc_frames import WINDOW


def test_chunks_come_in_order_and_then_one_end(place: Any) -> None:
    got = list(place.stream("count", b"100"))
    assert [response.body for response in got[:-1]] == [b"%d" % n for n in range(100)]
    assert [response.kind for response in got] == ["chunk"] * 100 + ["end"]


def test_an_empty_stream_is_an_end(place: Any) -> None:
    assert [response.kind for response in place.stream("count", b"0")] == ["end"]


def test_a_stream_that_was_read_leaves_its_connection_to_the_next_call(place: Any) -> None:
    for _ in range(5):
        list(place.stream("count", b"40"))
        place.call("echo")
    assert place.client._pool.count() == 1
    assert len(place.listener._sessions) == 1


def test_a_slow_reader_stops_the_generator(place: Any) -> None:
    stream = place.stream("count", b"1000000")
    next(stream)
    place.call("echo")
    assert place.handler.yielded <= WINDOW + 1
    for _ in range(100):
        next(stream)
    assert place.handler.yielded <= 101 + 2 * WINDOW
    stream.close()


def test_closing_the_reader_closes_the_generator(place: Any) -> None:
    stream = place.stream("count", b"1000000")
    next(stream)
    stream.close()
    assert place.handler.closed.wait(20)
    assert place.call("echo").code == "ok"


def test_an_error_in_mid_stream_comes_after_the_items_before_it(place: Any) -> None:
    got = list(place.stream("fail_after", b"5"))
    assert [response.code for response in got] == ["ok"] * 5 + ["unknown"]
    assert got[-1].kind == "end"


def test_a_refused_stream_is_an_end(place: Any) -> None:
    (end,) = list(place.stream("raise"))
    assert (end.kind, end.code) == ("end", "internal")


def test_a_plain_method_asked_for_as_a_stream_is_one_chunk(place: Any) -> None:
    got = list(place.stream("echo", b"1"))
    assert [(response.kind, response.body) for response in got] == [("chunk", b"1"), ("end", b"")]


def test_a_plain_call_of_a_stream_is_refused_and_its_generator_closed(place: Any) -> None:
    assert place.call("count", b"3").reason == "streaming_unsupported"
    assert place.submit("count", b"3").result(20).reason == "streaming_unsupported"
    assert place.handler.closed.wait(20)


def test_the_deadline_covers_the_first_item(place: Any) -> None:
    with pytest.raises(DeadlineExceeded):
        next(place.stream("stall_after", b"0", 0.1))


def test_the_deadline_is_the_idle_limit_of_the_rest(place: Any) -> None:
    stream = place.stream("stall_after", b"3", 1.5)
    for _ in range(3):
        next(stream)
        time.sleep(0.6)  # longer than the limit in all; a reader that is slow is not idle
    with pytest.raises(DeadlineExceeded):
        next(stream)


def test_a_server_that_stops_ends_a_stream_with_an_error(place: Any) -> None:
    stream = place.stream("count", b"1000000")
    next(stream)
    place.listener.close(0.1)
    with pytest.raises(Exception, match="lost"):
        list(stream)
    assert place.handler.closed.wait(20)
