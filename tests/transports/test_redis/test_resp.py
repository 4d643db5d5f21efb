"""Bytes to replies, however they come in."""

from __future__ import annotations

from typing import Any

import pytest

from fan.transports.redis_resp import Garbage, Parser, Refusal, pack

#: Bytes, and the replies in them.
STREAM = (
    b"+OK\r\n:-12\r\n$5\r\na\r\nbc\r\n$0\r\n\r\n$-1\r\n*-1\r\n*0\r\n"
    b"*2\r\n$3\r\nkey\r\n*2\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n$-1\r\n"
)
REPLIES: list[Any] = [
    b"OK", -12, b"a\r\nbc", b"", None, None, [],
    [b"key", [[b"1-1", [b"f", b"v"]], None]],
]  # fmt: skip


def test_a_command_is_an_array_of_strings() -> None:
    assert pack("GET", b"\x00\xff", 7, "ü") == (
        b"*4\r\n$3\r\nGET\r\n$2\r\n\x00\xff\r\n$1\r\n7\r\n$2\r\n\xc3\xbc\r\n"
    )


def test_replies_are_read_at_once() -> None:
    assert Parser().feed(STREAM) == REPLIES


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_replies_are_read_in_pieces(size: int) -> None:
    parser, got = Parser(), []
    for at in range(0, len(STREAM), size):
        got += parser.feed(STREAM[at : at + size])
    assert got == REPLIES


def test_an_error_is_a_reply_like_others() -> None:
    refusal, after = Parser().feed(b"-WRONGTYPE Operation against a key\r\n:1\r\n")
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.text, after) == ("WRONGTYPE", "Operation against a key", 1)


def test_a_large_string_in_many_pieces_is_put_together_once() -> None:
    body = bytes(range(256)) * 40_000
    data, parser, got = b"$%d\r\n%b\r\n" % (len(body), body), Parser(), []
    for at in range(0, len(data), 65_536):
        got += parser.feed(data[at : at + 65_536])
    assert got == [body]


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\x15\x03\x01\x00\x02\x02\x28\r\n",
        b"$x\r\n",
        b":1_000x\r\n",
        b"*99999999999\r\n",
        b"*4294967295\r\n",
        b"x" * 100_000,
        b"*1\r\n" * 50_000,
    ],
    ids=lambda data: repr(data[:12]),
)
def test_what_is_no_reply_is_garbage(data: bytes) -> None:
    with pytest.raises(Garbage):
        Parser().feed(data)


@pytest.mark.parametrize("begun", [b"$99999999999\r\n", b"+", b"-"])
def test_what_does_not_end_is_garbage_when_it_is_too_long(begun: bytes) -> None:
    parser = Parser(most=100_000)
    assert parser.feed(begun + b"x" * 90_000) == []
    with pytest.raises(Garbage):
        parser.feed(b"x" * 20_000)


def test_many_replies_are_no_long_one() -> None:
    parser = Parser(most=1_000)
    assert parser.feed(b"$3\r\nabc\r\n" * 1_000) == [b"abc"] * 1_000
    assert parser.feed(b"*3\r\n" + b"$600\r\n%b\r\n" % (b"x" * 600) * 2) == []
    assert parser.feed(b":1\r\n") == [[b"x" * 600] * 2 + [1]]
