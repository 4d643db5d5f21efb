"""Behaviours 4 to 10: errors say what happened, and the next call works."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from fan.errors import (
    FanError,
    Internal,
    InvalidArgument,
    NotFound,
    RemoteError,
    Unimplemented,
    Unknown,
)
from fan.testing.contracts.bare import answering
from fan.testing.contracts.callers import Caller
from fan.testing.contracts.harness import Harness, World
from fan.testing.contracts.probe import BOUND, OutOfStock, Probe, TooShort, probe

#: What no method table holds, each a way in that somebody tried somewhere.
NOT_CALLABLE = [
    "nothing",
    "__init__",
    "__class__",
    "_private",
    "not_for_callers",
    "service_start",
    "service_stop",
    "runs",
    "app",
    "version",
]

#: Arguments that do not fit `add(a: int, b: int = 1)`.
BAD_ARGUMENTS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((1, 2, 3), {}),
    ((), {"a": 1, "c": 2}),
    ((1,), {"a": 1}),
]

#: Arguments of the right number and the wrong type.
BAD_TYPES: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    (("one",), {}),
    ((), {"a": 1.5}),
    ((None,), {}),
    ((1,), {"b": [2]}),
]

#: What a port may receive that is no request of any protocol.
GARBAGE = [
    b"\x00",
    b"\xff" * 64,
    b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"POST /rpc/probe/add HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\nhalf",
    b"\x00\x00\x00\x10",
    b"\x00\x00\x00\x08\x01\x00\x00",
    b"\x10\x00\x00\x00\x01" + b"\xc1" * 4,
    b"\xff\xff\xff\xff\x01\x00\x00\x00\x01" + b"x" * 100,
    b"\x7f\xff\xff\xff" * 1000,
    random.Random(4096).randbytes(4096),  # the same in every process of a run
]


class Errors(Harness):
    """Bad input, and handlers that fail."""

    def test_an_unknown_service_is_not_found_at_once(self, caller: Caller) -> None:
        patient = caller.using(timeout=100 * BOUND)  # result() waits less
        started = patient.start("prob.echo")  # a failure comes out of the future, not of submit()
        with pytest.raises(NotFound, match="probe") as info:
            started.result()
        assert (info.value.reason, info.value.executed) == ("no_such_service", "no")
        assert info.value.target == "prob.echo"

    @pytest.mark.parametrize("method", NOT_CALLABLE)
    def test_what_is_no_rpc_method_is_unimplemented(self, caller: Caller, method: str) -> None:
        failure = caller.failure(f"probe.{method}")
        assert isinstance(failure, Unimplemented)
        assert (failure.reason, failure.executed) == ("unknown_method", "no")
        assert failure.target == f"probe.{method}"

    def test_methods_called_log_and_name_are_callable(self, caller: Caller) -> None:
        assert caller.call("probe.log", "x") == "log x"
        assert caller.call("probe.name", text="x") == "name x"

    def test_the_built_in_methods_answer(self, caller: Caller) -> None:
        assert caller.call("probe.health") == "ok"
        info = caller.call("probe.info")
        assert (info["name"], info["version"]) == ("probe", "1.0.0")
        assert "echo" in info["methods"]
        assert isinstance(caller.call("probe.stats"), dict)

    @pytest.mark.parametrize(("args", "kwargs"), BAD_ARGUMENTS, ids=repr)
    def test_arguments_that_do_not_fit_are_refused_before_the_handler(
        self, caller: Caller, served: Probe, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        failure = caller.failure("probe.add", *args, **kwargs)
        assert isinstance(failure, InvalidArgument)
        assert (failure.reason, failure.executed) == ("bad_signature", "no")
        assert served.runs["add"] == 0
        assert caller.call("probe.add", 1) == 2

    @pytest.mark.parametrize(("args", "kwargs"), BAD_TYPES, ids=repr)
    def test_arguments_of_the_wrong_type_are_refused_before_the_handler(
        self, caller: Caller, served: Probe, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        failure = caller.failure("probe.add", *args, **kwargs)
        assert isinstance(failure, InvalidArgument)
        assert (failure.reason, failure.executed) == ("bad_signature", "no")
        assert served.runs["add"] == 0

    def test_a_registered_error_comes_back_as_its_class(self, caller: Caller) -> None:
        failure = caller.failure("probe.out_of_stock", item="tea")
        assert type(failure) is OutOfStock
        assert (failure.message, failure.reason) == ("no tea left", "sold_out")
        assert failure.details == {"item": "tea"}
        assert (failure.code, failure.executed) == ("failed_precondition", "yes")
        assert failure.target == "probe.out_of_stock"

    def test_a_registered_plain_exception_comes_back_as_its_class(self, caller: Caller) -> None:
        failure = caller.failure("probe.too_short")
        assert type(failure) is TooShort
        assert failure.args == ("abc", 8)

    def test_an_unregistered_exception_is_a_remote_error(self, caller: Caller) -> None:
        failure = caller.failure("probe.fail")
        assert isinstance(failure, RemoteError)
        assert (failure.code, failure.type, failure.message) == ("unknown", "Broken", "it broke")
        assert failure.executed == "yes"
        assert failure.target == "probe.fail"

    def test_an_unregistered_exception_does_no_harm_to_later_calls(
        self, caller: Caller, served: Probe
    ) -> None:
        for n in range(1, 4):  # below the breaker's threshold
            caller.failure("probe.fail")
            assert caller.call("probe.add", n) == n + 1
        assert served.runs["fail"] == 3

    def test_no_traceback_crosses_the_wire(self, caller: Caller) -> None:
        failure = caller.failure("probe.fail")
        assert isinstance(failure, FanError)
        text = repr([failure.message, failure.details, str(failure)])
        assert "Traceback" not in text
        assert ".py" not in text

    def test_a_traceback_comes_where_the_server_allows_it(self, world: World, face: Any) -> None:
        world.serve(probe(), allow_tracebacks=True)
        failure = face(world.client()).failure("probe.fail")
        assert "Broken: it broke" in json.dumps(failure.details)

    def test_an_error_of_a_call_inside_the_handler_is_downstream_failed(
        self, world: World, face: Any
    ) -> None:
        world.serve(probe("front"))
        caller = face(world.client())
        failure = caller.failure("front.down", "nobody.echo")
        assert type(failure) is Unknown
        assert (failure.reason, failure.executed) == ("downstream_failed", "yes")
        assert failure.details["code"] == "not_found"
        assert failure.details["executed"] == "no"

    def test_a_registered_error_let_out_by_a_caller_in_the_middle_is_downstream_failed(
        self, world: World, face: Any
    ) -> None:
        world.serve(probe("front"))
        world.serve(probe("back"))
        failure = face(world.client()).failure("front.down", "back.too_short")
        assert type(failure) is Unknown
        assert failure.details["type"] == "TooShort"

    def test_an_unserializable_result_is_internal_and_the_next_call_works(
        self, caller: Caller
    ) -> None:
        failure = caller.failure("probe.unserializable")
        assert isinstance(failure, Internal)
        assert (failure.reason, failure.executed) == ("unserializable_result", "yes")
        assert caller.call("probe.add", 1) == 2

    def test_a_body_that_is_no_json_is_malformed(
        self, world: World, served: Probe, caller: Caller
    ) -> None:
        response = world.send(caller.client, world.request("probe.add", b'{"a": 1'))
        assert (response.code, response.executed) == ("invalid_argument", "no")
        assert response.reason == "malformed"
        assert served.runs["add"] == 0

    def test_a_request_for_a_service_that_is_not_here_is_answered(
        self, world: World, served: Probe, caller: Caller
    ) -> None:
        address = caller.client.client.resolve("probe", "add").address
        request = world.request("other.add")
        response = caller.client.transport(self.scheme).call(address, request)
        assert response.code in ("not_found", "unavailable", "failed_precondition")
        assert response.executed == "no"

    @pytest.mark.parametrize("garbage", GARBAGE, ids=lambda g: repr(g[:12]))
    def test_the_server_lives_through_garbage(self, caller: Caller, garbage: bytes) -> None:
        assert caller.call("probe.add", 1) == 2
        address = caller.client.client.resolve("probe", "add").address
        with self.connect(address) as raw:
            try:
                raw.sendall(garbage)
                assert caller.call("probe.add", 2) == 3
            except (BrokenPipeError, ConnectionResetError):  # refused before all was sent
                pass
        assert caller.call("probe.add", 3) == 4

    def test_a_server_that_answers_garbage_fails_the_call_within_its_deadline(
        self, world: World, caller: Caller
    ) -> None:
        listener, address = self.listen(world)
        with listener, answering(listener, b"\xff\xfe garbage \x00" * 1000):
            there = caller.using(peers=(address.url,), timeout=1.0, retries=0)
            failure = there.failure("probe.add", 1)
        assert isinstance(failure, FanError)
        assert failure.code in ("internal", "unavailable", "deadline_exceeded")
