"""Places, names of keys, the fields of a request and the element of a reply."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan.errors import Internal, InvalidArgument
from fan.failures import error_response
from fan.message import Request, Response
from fan.model import QueueName
from fan.transports.redis_failures import GENERAL, REFUSALS, failure_of, refused
from fan.transports.redis_fields import (
    decode_anything,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
    fields_of,
)
from fan.transports.redis_keys import Keys, is_caller
from fan.transports.redis_place import place_of
from fan.transports.redis_resp import Refusal

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
NUMBER = st.integers(0, 2**53)


def sent(request: Request) -> list[bytes]:
    """The fields as Redis gives them back."""
    return [p if type(p) is bytes else str(p).encode() for p in encode_request(request)]


@given(
    st.builds(
        Request,
        id=TEXT, service=TEXT, method=TEXT, timeout_ms=NUMBER,
        kind=st.sampled_from(["call", "push"]), key=TEXT,
        want=TEXT, gen=NUMBER, deadline_ms=st.none() | NUMBER, ttl_ms=st.none() | NUMBER,
        topic=TEXT, traceparent=TEXT, baggage=st.dictionaries(TEXT.filter(bool), TEXT, max_size=3),
        headers=st.dictionaries(TEXT, TEXT, max_size=3), caller=TEXT, principal=TEXT,
        attempt=NUMBER, hops=NUMBER, content_type=TEXT, body=st.binary(max_size=50),
    )
)  # fmt: skip
def test_a_request_comes_back_from_its_fields(request: Request) -> None:
    assert decode_request(fields_of(sent(request))) == request


def test_what_holds_its_default_is_left_out() -> None:
    request = Request(id="1", service="shop", method="buy", timeout_ms=5)
    assert fields_of(sent(request)) == {
        b"id": b"1", b"service": b"shop", b"method": b"buy", b"timeout_ms": b"5",
    }  # fmt: skip


@given(
    st.builds(
        Response,
        id=TEXT, code=st.sampled_from(["ok", "unknown"]), reason=TEXT, message=TEXT,
        details=st.none() | st.lists(TEXT), served=TEXT, gen=NUMBER,
        headers=st.dictionaries(TEXT, TEXT, max_size=3), content_type=TEXT,
        body=st.binary(max_size=50),
    ).map(lambda r: r if r.code != "ok" else Response(id=r.id, served=r.served, body=r.body))
)  # fmt: skip
def test_a_reply_comes_back_from_its_element(response: Response) -> None:
    assert decode_reply(encode_reply(response)) == response


@pytest.mark.parametrize(
    ("line", "whose"),
    [
        (b'{"corr": "1", "executed": "later"}', "1"),
        (b'{"corr": "1", "gen": "x"}', "1"),
        (b'{"corr": 1}', ""),
        (b"[" * 10_000, ""),
        (b"", ""),
    ],
)
def test_what_is_no_reply_is_malformed_and_may_tell_whose_it_is(line: bytes, whose: str) -> None:
    with pytest.raises(Internal) as info:
        decode_reply(line + b"\nbody")
    assert (info.value.reason, info.value.executed) == ("malformed_reply", "maybe")
    assert info.value.details == {"id": whose}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {b"id": b"1"},
        {b"id": b"1", b"service": b"s", b"method": b"m", b"timeout_ms": b"soon"},
        {b"id": b"1", b"service": b"s", b"method": b"m", b"timeout_ms": b"9" * 5000},
        {b"id": b"\xff", b"service": b"s", b"method": b"m", b"timeout_ms": b"1"},
        {b"id": b"1", b"service": b"s", b"method": b"m", b"timeout_ms": b"1", b"kind": b"x"},
        {b"id": b"1", b"service": b"s", b"method": b"m", b"timeout_ms": b"1", b"headers": b"["},
    ],
)
def test_what_is_no_request_is_malformed_and_can_be_looked_at(fields: dict[bytes, bytes]) -> None:
    with pytest.raises(InvalidArgument) as info:
        decode_request(fields)
    assert info.value.reason == "malformed"
    shown = decode_anything(fields, "5-1", "shop")
    assert (shown.id, shown.service) == ("5-1", "shop")


def test_keys_have_the_documented_names() -> None:
    keys = Keys()
    assert keys.calls("shop", "1.0.0").stream == "fan:rq:shop:1.0.0"
    assert keys.calls("shop", "1.0.0", "shop-1").stream == "fan:rq:shop:1.0.0:shop-1"
    assert keys.pushes("shop").stream == "fan:pq:shop"
    assert keys.events("orders.created", "till").stream == "fan:ev:orders.created"
    assert keys.replies("me") == "fan:rp:me"
    assert Keys("other").pushes("shop").stream == "fan.other:pq:shop"


@pytest.mark.parametrize("name", ["shop", "shop@1.0.0"])
def test_a_queue_is_found_by_its_key(name: str) -> None:
    keys, parsed = Keys(), QueueName.parse(name)
    assert keys.name_of(keys.of(parsed).stream) == parsed


@pytest.mark.parametrize("name", ["shop", "orders.created/till"])
def test_a_queue_is_found_by_its_dead_letters(name: str) -> None:
    keys, parsed = Keys(), QueueName.parse(name)
    assert keys.name_of(keys.of(parsed).dead) == parsed


@pytest.mark.parametrize("caller", ["", "a b", "../x", "x\n", "x" * 200, "a:b"])
def test_a_request_cannot_have_its_answer_put_under_any_key(caller: str) -> None:
    assert not is_caller(caller)


def test_a_place_never_shows_its_credentials() -> None:
    place = place_of("redis://ada:s%40cret@h:1/2")
    assert (place.host, place.port, place.db) == ("h", 1, 2)
    assert place.url == "redis://h:1/2"
    assert "cret" not in repr(place)
    assert place_of("redis://h").url == "redis://h:6379/0"
    assert place_of("rediss://[::1]/3").url == "rediss://[::1]:6379/3"


def test_a_url_without_credentials_has_those_of_the_settings_for_the_same_database() -> None:
    home = place_of("redis://:secret@h:6379/0")
    assert place_of("redis://h/0", home).login == home.login
    assert not place_of("redis://h/1", home).has_credentials
    assert place_of("redis://:other@h/0", home).login == "redis://:other@h/0"


@pytest.mark.parametrize("url", ["redis:", "redis://", "redis://h:x", "redis://h/a", "http://h"])
def test_what_is_no_address_is_refused_without_its_password(url: str) -> None:
    secret = url.replace("//", "//:secret@")
    with pytest.raises(InvalidArgument) as info:
        place_of(secret)
    assert "secret" not in info.value.message


@pytest.mark.parametrize("line", [f"{code} some words" for code in REFUSALS])
def test_each_refusal_of_redis_has_its_code_and_nothing_ran(line: str) -> None:
    failure = failure_of(Refusal(line), "redis://h:1/0")
    assert failure.code != "internal"
    assert failure.executed == "no"
    assert failure.message.startswith("redis://h:1/0 ")


@pytest.mark.parametrize("text", [*GENERAL])
def test_each_general_refusal_is_told_by_its_words(text: str) -> None:
    failure = failure_of(Refusal(f"ERR {text} or so"), "redis://h:1/0")
    assert failure.code != "internal"
    assert failure.executed == "no"


def test_an_unknown_refusal_is_internal() -> None:
    assert failure_of(Refusal("ERR what"), "h").code == "internal"


def test_a_failure_travels_as_a_reply() -> None:
    request = Request(id="7", service="shop", method="buy", timeout_ms=5)
    response = decode_reply(encode_reply(error_response(request, refused("h", "why"))))
    assert (response.id, response.code, response.executed) == ("7", "unavailable", "no")
