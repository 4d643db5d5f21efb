"""Whatever a handler raises or gives is an answer that can be sent."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from fan import App, Settings
from fan.dispatch import Dispatcher
from fan.error_types import ErrorTypes
from fan.message import Response
from tests.desks import (
    FAILURES,
    Desk,
    Kind,
    Picky,
    Refused,
    answered,
    elsewhere,
    opened,
    request,
    value,
)  # fmt: skip


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def dispatcher(desk: Desk) -> Iterator[Dispatcher]:
    with App(desk, settings=Settings(), errors=[Refused]) as app:
        yield app.dispatcher
        desk.gate.set()


def test_a_registered_error_travels_with_its_name_and_details(dispatcher: Dispatcher) -> None:
    response = answered(dispatcher(request("refuse")))
    assert (response.code, response.type) == ("failed_precondition", "desk.refused")
    assert (response.reason, response.message) == ("closed", "not today")
    assert (response.details, response.retry_after_ms) == ({"until": 9}, 50)
    assert response.executed == "yes"


def test_a_declared_plain_exception_travels_with_its_arguments(dispatcher: Dispatcher) -> None:
    response = answered(dispatcher(request("odd")))
    assert (response.type, response.details) == ("Odd", {"args": ["a", 1]})


@pytest.mark.parametrize("method", ["crash", "crash_async"])
def test_any_other_exception_is_unknown_with_its_class_name(
    dispatcher: Dispatcher, method: str
) -> None:
    response = answered(dispatcher(request(method)))
    assert (response.code, response.type, response.executed) == ("unknown", "KeyError", "yes")
    assert "Traceback" not in repr(response)


def test_a_handler_that_exits_is_an_error_of_that_call_alone(dispatcher: Dispatcher) -> None:
    response = answered(dispatcher(request("exit")))
    assert (response.code, response.type, response.executed) == ("unknown", "SystemExit", "yes")
    assert value(dispatcher(request("add", [1]))) == 2
    assert dispatcher.in_flight == 0


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize("method", ["fail", "fail_async"])
def test_whatever_a_handler_raises_is_an_answer_that_can_be_sent(
    dispatcher: Dispatcher, method: str, how: str
) -> None:
    response = elsewhere(lambda: answered(dispatcher(request(method, [how]))))
    assert response.code in ("unknown", "not_found", "failed_precondition")
    assert response.executed == "yes"
    packed = msgspec.msgpack.encode(response)
    assert msgspec.msgpack.decode(packed, type=Response) == response
    msgspec.json.encode(response)
    assert value(dispatcher(request("add_async", [1]))) == 2  # the next one runs
    assert dispatcher.in_flight == 0


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize("method", ["fail_midway", "fail_midway_async"])
def test_whatever_a_generator_raises_is_an_end_after_its_items(
    dispatcher: Dispatcher, method: str, how: str
) -> None:
    stream = opened(dispatcher(request(method, [how], kind="stream")))
    chunk, end = elsewhere(lambda: list(stream.chunks))
    assert (chunk.kind, end.kind, end.executed) == ("chunk", "end", "yes")
    assert end.code in ("unknown", "not_found", "failed_precondition")
    assert dispatcher.in_flight == 0


def test_a_plain_exception_comes_back_with_its_own_attributes(dispatcher: Dispatcher) -> None:
    types = ErrorTypes()
    types.register(Picky)
    response = answered(dispatcher(request("fail", ["picky"])))
    exc = types.arriving(response, "desk.fail")
    assert isinstance(exc, Picky)
    assert exc.amount == 2
    assert "object object" in exc.args[0]


@pytest.mark.parametrize(
    ("method", "kind"), [("kwargs_async", "call"), ("kwargs_stream", "stream")]
)
def test_arguments_that_only_the_call_itself_refuses_are_a_bad_signature(
    dispatcher: Dispatcher, method: str, kind: Kind
) -> None:
    response = answered(dispatcher(request(method, {"self": 1}, kind=kind)))
    assert (response.code, response.reason, response.executed) == (
        "invalid_argument", "bad_signature", "no",
    )  # fmt: skip
    assert dispatcher.in_flight == 0


def test_an_error_of_a_call_that_the_handler_made_is_downstream_failed(
    dispatcher: Dispatcher,
) -> None:
    response = answered(dispatcher(request("downstream")))
    assert (response.code, response.reason) == ("unknown", "downstream_failed")
    assert response.executed == "yes"
    assert response.details["reason"] == "no_such_user"
    assert response.details["executed"] == "no"


def test_details_that_cannot_be_sent_do_not_hide_the_error(dispatcher: Dispatcher) -> None:
    response = answered(dispatcher(request("strange_details")))
    assert response.type == "desk.refused"
    msgspec.json.encode(response.details)


def test_a_result_that_cannot_be_sent_is_internal(dispatcher: Dispatcher) -> None:
    response = answered(dispatcher(request("unsendable")))
    assert (response.code, response.reason) == ("internal", "unserializable_result")
    assert response.executed == "yes"
