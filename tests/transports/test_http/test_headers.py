"""The text form of the envelope, which HTTP and AMQP share."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan import codec
from fan.codec import TextForm, decode_baggage, encode_baggage, header_name
from fan.errors import InvalidArgument
from fan.message import Request, Response

FORM = TextForm(Request, names={"key": "idempotency-key"}, less=("service",), own=("host", "x-"))


@pytest.mark.parametrize("cls", [Request, Response])
def test_every_number_of_the_envelope_is_read_as_one(cls: Any) -> None:
    hints = get_type_hints(cls)
    numbers = {f for f in cls.__struct_fields__ if int in (hints[f], *get_args(hints[f]))}
    assert numbers == set(cls.__struct_fields__) & codec._INTEGERS


def test_defaults_stay_away() -> None:
    sent = Request(id="1", service="s", method="m", timeout_ms=5)
    assert FORM.encode(sent) == [("fan-id", "1"), ("fan-method", "m"), ("fan-timeout-ms", "5")]


def test_names_are_fan_and_dashes_but_w3cs_own() -> None:
    assert header_name("caller_instance") == "fan-caller-instance"
    assert header_name("traceparent") == "traceparent"


def test_what_belongs_to_the_protocol_is_not_the_users() -> None:
    sent = Request(
        id="1", service="s", method="m", timeout_ms=5, key="k",
        headers={"Host": "a", "X-Y": "b", "fan-id": "2", "Own": "c"},
    )  # fmt: skip
    fields, users = FORM.decode(FORM.encode(sent))
    assert (fields["id"], fields["key"], users) == ("1", "k", {"own": "c"})


@given(st.text(), st.dictionaries(st.text(min_size=1, max_size=9), st.text(max_size=9), max_size=9))
def test_any_text_survives(caller: str, baggage: dict[str, str]) -> None:
    sent = Request(id="1", service="s", method="m", timeout_ms=5, caller=caller, baggage=baggage)
    headers = FORM.encode(sent)
    assert all(value.isascii() and "\n" not in value for _, value in headers)
    fields, _ = FORM.decode(headers)
    assert fields.get("caller", "") == caller
    assert fields.get("baggage", {}) == baggage


def test_baggage_of_others_is_read() -> None:
    assert decode_baggage("a=1 ; p=2 , b = x%20y,, c,=3, d=%zz") == {
        "a": "1",
        "b": "x y",
        "d": "%zz",
    }


@pytest.mark.parametrize("baggage", [{str(n): "" for n in range(65)}, {"a": "x" * 8192}])
def test_too_much_baggage_is_refused_and_cut(baggage: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument):
        encode_baggage(baggage)
    assert len(decode_baggage(",".join(f"{k}=" for k in baggage))) <= 64


def test_a_traceparent_that_breaks_the_line_is_refused() -> None:
    sent = Request(id="1", service="s", method="m", timeout_ms=5, traceparent="00\r\nhost: x")
    with pytest.raises(InvalidArgument):
        FORM.encode(sent)
