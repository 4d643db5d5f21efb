"""Behaviours 1 to 3: what is sent is what arrives."""

from __future__ import annotations

import datetime as dt
import decimal
import math
import uuid
from typing import Any

import pytest

from fan.errors import FanError, InvalidArgument, ResourceExhausted
from fan.testing.contracts.callers import Caller
from fan.testing.contracts.harness import Harness
from fan.testing.contracts.probe import Probe

#: Values that JSON has a form for, the awkward ones among them.
JSON_VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**53,
    -(2**53),
    2**63 - 1,
    0.1,
    -0.0,
    1e300,
    5e-324,
    math.pi,
    "",
    "text",
    'Grüße, 世界, 👩‍💻, \u0000, \u2028, "quotes" and \\',
    [],
    {},
    [None, [True, [1, [2.5, ["deep"]]]]],
    {"a": {"b": {"c": [{"d": None}]}}, "": "an empty key", "ключ": "a key", "a.b": 1, "self": 2},
]


class Values(Harness):
    """Arguments and results."""

    @pytest.mark.parametrize("value", JSON_VALUES, ids=repr)
    def test_a_json_value_round_trips_exactly(self, caller: Caller, value: Any) -> None:
        got = caller.call("probe.echo", value, key=value)
        assert got == {"args": [value], "kwargs": {"key": value}}
        assert repr(got["args"][0]) == repr(value)  # -0.0, and True that is not 1

    def test_positional_arguments_arrive_in_order(self, caller: Caller) -> None:
        assert caller.call("probe.echo", 1, "two", None)["args"] == [1, "two", None]

    def test_keyword_arguments_arrive_by_name(self, caller: Caller) -> None:
        assert caller.call("probe.echo", a=1, method="m", service="s", self_="x", timeout=3) == {
            "args": [],
            "kwargs": {"a": 1, "method": "m", "service": "s", "self_": "x", "timeout": 3},
        }

    def test_both_kinds_of_argument_arrive(self, caller: Caller) -> None:
        assert caller.call("probe.echo", 1, 2, a=3) == {"args": [1, 2], "kwargs": {"a": 3}}

    def test_a_single_list_or_mapping_stays_one_argument(self, caller: Caller) -> None:
        assert caller.call("probe.echo", [1, 2])["args"] == [[1, 2]]
        assert caller.call("probe.echo", {"a": 1}) == {"args": [{"a": 1}], "kwargs": {}}

    def test_defaults_are_the_methods_own(self, caller: Caller) -> None:
        assert caller.call("probe.add", 41) == 42
        assert caller.call("probe.add", a=40, b=2) == 42

    def test_a_void_method_gives_none(self, caller: Caller, served: Probe) -> None:
        assert caller.call("probe.void") is None
        assert served.runs["void"] == 1

    def test_no_arguments_work(self, caller: Caller) -> None:
        assert caller.call("probe.echo") == {"args": [], "kwargs": {}}

    @pytest.mark.parametrize(
        "data", [b"", b"\x00\xff" * 100, b'{"a": 1}'], ids=["empty", "binary", "json"]
    )
    def test_bytes_arrive_as_bytes(self, caller: Caller, data: bytes) -> None:
        assert caller.call("probe.size", data) == len(data)
        assert caller.call("probe.size", data=data) == len(data)

    def test_annotated_parameters_get_their_types_back(self, caller: Caller) -> None:
        moment = dt.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=dt.UTC)
        amount, ident = decimal.Decimal("1.10"), uuid.uuid4()
        names = ["datetime", "Decimal", "UUID", "bytes"]
        assert caller.call("probe.typed", moment, amount, ident, b"\x00\xff") == names
        assert (
            caller.call("probe.typed", moment=moment, amount=amount, ident=ident, data=b"") == names
        )

    def test_rich_types_without_an_annotation_arrive_as_their_json_form(
        self, caller: Caller
    ) -> None:
        ident = uuid.UUID(int=1)
        moment = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
        got = caller.call("probe.echo", b"\x00\xff", moment, decimal.Decimal("1.10"), ident)
        assert got["args"] == ["AP8=", "2026-01-02T03:04:05Z", "1.10", str(ident)]

    @pytest.mark.parametrize(
        ("kind", "form"),
        [
            ("bytes", b"\x00\xff"),
            ("datetime", "2026-01-02T03:04:05Z"),
            ("Decimal", "1.10"),
            ("UUID", "00000000-0000-0000-0000-000000000001"),
        ],
    )
    def test_a_rich_result_is_its_documented_form(
        self, caller: Caller, kind: str, form: Any
    ) -> None:
        assert caller.call("probe.value", kind) == form

    @pytest.mark.parametrize(
        "value", [object(), 1 + 2j, lambda: None], ids=["object", "complex", "function"]
    )
    def test_an_argument_without_a_json_form_is_refused_before_sending(
        self, caller: Caller, served: Probe, value: Any
    ) -> None:
        failure = caller.failure("probe.echo", value)
        assert isinstance(failure, InvalidArgument)
        assert (failure.reason, failure.executed) == ("unserializable_args", "no")
        assert served.runs["echo"] == 0
        assert caller.call("probe.echo", 1)["args"] == [1]

    def test_an_argument_that_contains_itself_is_refused(self, caller: Caller) -> None:
        loop: list[Any] = []
        loop.append(loop)
        assert isinstance(caller.failure("probe.echo", loop), InvalidArgument)

    def test_ten_megabytes_go_both_ways(self, caller: Caller) -> None:
        size = 10 * 1024 * 1024
        assert caller.call("probe.size", b"x" * size) == size
        assert len(caller.call("probe.reply_of", size)) == size

    def test_a_payload_above_the_limit_is_refused_clearly(self, caller: Caller) -> None:
        failure = caller.failure("probe.size", b"x" * (40 * 1024 * 1024))
        assert isinstance(failure, ResourceExhausted)
        assert (failure.reason, failure.executed) == ("payload_too_large", "no")
        assert caller.call("probe.add", 1) == 2

    def test_a_reply_above_the_limit_is_an_error_and_the_next_call_works(
        self, caller: Caller
    ) -> None:
        failure = caller.failure("probe.reply_of", 40 * 1024 * 1024)
        assert isinstance(failure, FanError)
        assert failure.code in ("resource_exhausted", "internal")
        assert caller.call("probe.add", 1) == 2
