"""From a Request to its answer: what a transport hands over, and what it gets back."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

import fan
from fan import App, Service, Settings
from fan.dispatch import Dispatcher
from fan.gate import Gate
from fan.message import BYTES, FAN_JSON
from fan.testing.fakes import FakeClock
from tests.desks import BOUND, Desk, Refused, answered, opened, request, value


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def dispatcher(desk: Desk) -> Iterator[Dispatcher]:
    with App(desk, settings=Settings(), errors=[Refused]) as app:
        yield app.dispatcher
        desk.gate.set()


@pytest.mark.parametrize("method", ["add", "add_async"])
@pytest.mark.parametrize("body", [[2], [2, 1], {"a": 2}, {"b": 1, "a": 2}])
def test_arguments_by_position_and_by_name(dispatcher: Dispatcher, method: str, body: Any) -> None:
    assert value(dispatcher(request(method, body))) == 3


def test_both_kinds_of_argument(dispatcher: Dispatcher) -> None:
    body = {"args": [2], "kwargs": {"b": 5}}
    assert value(dispatcher(request("add", body, content_type=FAN_JSON))) == 7


def test_var_arguments(dispatcher: Dispatcher) -> None:
    body = {"args": [1, None], "kwargs": {"self": 2, "x y": 3}}
    got = value(dispatcher(request("echo", body, content_type=FAN_JSON)))
    assert got == [[1, None], {"self": 2, "x y": 3}]


def test_bytes_travel_as_they_are(dispatcher: Dispatcher) -> None:
    response = answered(dispatcher(request("raw", b"\x00\x01", content_type=BYTES)))
    assert (response.content_type, response.body) == (BYTES, b"\x01\x00")


def test_the_answer_names_the_request_and_who_served_it(dispatcher: Dispatcher, desk: Desk) -> None:
    response = answered(dispatcher(request("add", [1], gen=7)))
    assert (response.id, response.version, response.instance, response.gen) == (
        "r1", "1.0.0", desk.instance_id, 7,
    )  # fmt: skip


@pytest.mark.parametrize(
    "method",
    ["nothing", "", "__init__", "service_start", "service_stop", "seen", "entered", "app", "add.x"],
)
def test_what_is_not_in_the_table_is_unimplemented(dispatcher: Dispatcher, method: str) -> None:
    response = answered(dispatcher(request(method)))
    assert (response.code, response.reason) == ("unimplemented", "unknown_method")
    assert response.executed == "no"


def test_a_request_leaves_nothing_for_the_cycle_collector(dispatcher: Dispatcher) -> None:
    def serve() -> None:
        for _ in range(100):
            assert answered(dispatcher(request("add", {"a": 1, "b": 2}))).code == "ok"

    def left() -> int:
        gc.collect()
        gc.disable()
        try:
            serve()
            return gc.collect()
        finally:
            gc.enable()

    serve()
    # Other threads may leave something at any time; what a request leaves is there each time.
    assert min(left() for _ in range(3)) < 100


def test_a_misspelt_method_is_told_with_the_right_one(dispatcher: Dispatcher) -> None:
    assert "add" in answered(dispatcher(request("ad"))).message


def test_a_method_called_log_is_callable(dispatcher: Dispatcher) -> None:
    assert value(dispatcher(request("log", {"text": "x"}))) == "x"


def test_a_service_that_is_not_hosted_is_refused(dispatcher: Dispatcher) -> None:
    response = answered(dispatcher(request("add", [1], service="other")))
    assert response.code in ("not_found", "unavailable")
    assert response.executed == "no"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (["x"], "bad_signature"),
        ({"a": 1, "c": 2}, "bad_signature"),
        ([1, 2, 3], "bad_signature"),
        ({}, "bad_signature"),
        (b"{", "malformed"),
        (b"1", "malformed"),
        (b"\xff", "malformed"),
        (b"[" * 100_000, "malformed"),
    ],
)
def test_bad_arguments_are_refused_before_the_handler(
    dispatcher: Dispatcher, desk: Desk, body: Any, reason: str
) -> None:
    response = answered(dispatcher(request("add", body)))
    assert (response.code, response.reason, response.executed) == ("invalid_argument", reason, "no")
    assert desk.seen == []


def test_an_async_handler_ends_at_its_deadline(dispatcher: Dispatcher, desk: Desk) -> None:
    response = answered(dispatcher(request("hold_async", timeout_ms=500)))
    assert (response.code, response.reason, response.executed) == (
        "deadline_exceeded", "server_timer", "maybe",
    )  # fmt: skip
    assert desk.closed.wait(BOUND)
    assert dispatcher.wait_idle(BOUND)


def test_an_async_stream_whose_item_does_not_come_ends(dispatcher: Dispatcher, desk: Desk) -> None:
    stream = opened(dispatcher(request("hold_stream", timeout_ms=500, kind="stream")))
    chunk, end = list(stream.chunks)
    assert (chunk.kind, end.code, end.reason) == ("chunk", "deadline_exceeded", "server_timer")
    assert desk.closed.wait(BOUND)


def test_each_item_of_a_stream_has_a_deadline_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, left = FakeClock(), []
    app = App(Desk(), settings=Settings(), middleware=[])
    with app, monkeypatch.context() as patched:
        patched.setattr("time.monotonic", clock)
        asked = request("time_left", timeout_ms=1000, kind="stream")
        for chunk in opened(app.dispatcher(asked)).chunks:
            clock.advance(0.75)
            if chunk.kind == "chunk":
                left.append(fan.decode_result(chunk))
    assert left == [1.0, 1.0, 1.0]


def test_a_generator_that_fails_as_it_is_closed_is_logged(
    dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    stream = opened(dispatcher(request("fail_at_close", kind="stream")))
    next(stream.chunks)
    stream.close()
    assert "failed as it was closed" in caplog.text
    assert dispatcher.in_flight == 0


@pytest.mark.parametrize("method", ["add", "add_async"])
def test_a_push_that_comes_after_the_end_is_refused(method: str) -> None:
    with App(Desk(), settings=Settings()) as app:
        app.pool.shutdown()
        response = answered(app.dispatcher(request(method, [1], kind="push")))
        assert (response.code, response.reason, response.executed) == (
            "unavailable", "draining", "no",
        )  # fmt: skip
        assert app.dispatcher.in_flight == 0


def test_a_principal_counts_only_from_an_authenticated_peer(dispatcher: Dispatcher) -> None:
    asked = request("context", principal="ada")
    assert value(dispatcher(asked))["principal"] == ""
    assert value(dispatcher(asked, peer="uid:0"))["principal"] == "ada"


def test_the_handler_sees_that_its_caller_gave_up(dispatcher: Dispatcher) -> None:
    assert value(dispatcher(request("context"), is_cancelled=lambda: True))["cancelled"]
    assert not value(dispatcher(request("context"), is_cancelled=lambda: False))["cancelled"]


def test_cancelling_the_answer_cancels_an_async_handler(dispatcher: Dispatcher, desk: Desk) -> None:
    answer = dispatcher(request("hold_async"))
    assert isinstance(answer, Future)
    assert desk.entered.wait(BOUND)
    answer.cancel()
    assert desk.closed.wait(BOUND)
    assert dispatcher.wait_idle(BOUND)


def test_an_envelope_of_another_version_is_refused(dispatcher: Dispatcher, desk: Desk) -> None:
    answer = answered(dispatcher(request("echo", [1], v=2)))
    assert (answer.code, answer.reason, answer.executed) == ("invalid_argument", "malformed", "no")
    assert "version 2" in answer.message


def test_a_request_that_is_too_late_never_runs(dispatcher: Dispatcher, desk: Desk) -> None:
    response = answered(dispatcher(request("add", [1], deadline_ms=1)))
    assert (response.code, response.reason, response.executed) == (
        "deadline_exceeded", "expired_in_queue", "no",
    )  # fmt: skip
    assert desk.seen == []


def test_what_is_in_flight_is_waited_for(dispatcher: Dispatcher, desk: Desk) -> None:
    outcome: list[Any] = []
    thread = threading.Thread(target=lambda: outcome.append(dispatcher(request("hold"))))
    thread.start()
    assert desk.entered.wait(BOUND)
    assert dispatcher.in_flight == 1
    assert not dispatcher.wait_idle(0.0)
    desk.gate.set()
    assert dispatcher.wait_idle(BOUND)
    thread.join(BOUND)
    assert value(outcome[0]) == "held"


def test_the_requested_instance_answers_where_versions_share_an_app() -> None:
    new = type("Desk", (Desk,), {"version": "2.0.0"})()
    old = Desk()
    with App(old, new, settings=Settings()) as app:
        for service in (old, new):
            response = answered(app.dispatcher(request("add", [1], instance=service.instance_id)))
            assert (response.version, response.instance) == (service.version, service.instance_id)
        assert answered(app.dispatcher(request("add", [1], want=">=2"))).version == "2.0.0"
        assert answered(app.dispatcher(request("add", [1], want="<2"))).version == "1.0.0"


@pytest.mark.parametrize("want", ["2", ">=2", "1.0.0rc1", "1.1"])
def test_a_version_that_is_not_hosted_is_not_answered_by_another(
    dispatcher: Dispatcher, desk: Desk, want: str
) -> None:
    response = answered(dispatcher(request("add", [1], want=want)))
    assert (response.code, response.reason, response.executed) == (
        "failed_precondition", "version_missing", "no",
    )  # fmt: skip
    assert response.details == {"wanted": want, "available": ["1.0.0"]}
    assert desk.seen == []
    for near in ("1", "~=1.0", "canary"):
        assert value(dispatcher(request("add", [1], want=near))) == 2


def test_two_apps_in_one_process_do_not_see_each_other() -> None:
    with App(Desk(), settings=Settings()) as one, App(settings=Settings()) as two:
        assert value(one.dispatcher(request("add", [1]))) == 2
        assert answered(two.dispatcher(request("add", [1]))).code != "ok"


# Streams


@pytest.mark.parametrize("method", ["count", "count_async"])
def test_a_stream_is_chunks_and_one_end(dispatcher: Dispatcher, method: str) -> None:
    stream = opened(dispatcher(request(method, [3], kind="stream")))
    *chunks, end = list(stream.chunks)
    assert [(c.kind, c.seq, fan.decode_result(c)) for c in chunks] == [
        ("chunk", 0, 0), ("chunk", 1, 1), ("chunk", 2, 2),
    ]  # fmt: skip
    assert (end.kind, end.code) == ("end", "ok")
    stream.close()
    assert dispatcher.wait_idle(BOUND)


def test_closing_a_stream_closes_the_generator(dispatcher: Dispatcher, desk: Desk) -> None:
    stream = opened(dispatcher(request("count", [1000], kind="stream")))
    next(stream.chunks)
    assert dispatcher.in_flight == 1
    stream.close()
    assert desk.closed.is_set()
    assert dispatcher.in_flight == 0


def test_a_stream_closed_before_its_first_item_is_not_in_flight(dispatcher: Dispatcher) -> None:
    for method in ("count", "count_async"):
        stream = opened(dispatcher(request(method, [3], kind="stream")))
        stream.close()
    assert dispatcher.in_flight == 0


def test_bad_arguments_of_a_stream_are_an_end(dispatcher: Dispatcher) -> None:
    response = answered(dispatcher(request("count", ["x"], kind="stream")))
    assert (response.kind, response.code) == ("end", "invalid_argument")


def test_a_stream_is_no_call_and_a_call_no_stream(dispatcher: Dispatcher) -> None:
    for asked in (request("count", [3]), request("add", [1], kind="stream")):
        response = answered(dispatcher(asked))
        assert (response.code, response.reason) == ("unimplemented", "streaming_unsupported")
        assert response.executed == "no"


# What is built in


def test_health_is_ok_unless_overridden(dispatcher: Dispatcher) -> None:
    class Ill(Service):
        name = "ill"

        def health(self) -> str:
            return "no database"

    assert value(dispatcher(request("health"))) == "ok"
    with App(Ill(), settings=Settings()) as app:
        assert value(app.dispatcher(request("health", service="ill"))) == "no database"


def test_info_tells_what_answers(dispatcher: Dispatcher, desk: Desk) -> None:
    info = value(dispatcher(request("info")))
    assert (info["name"], info["version"], info["instance"]) == ("desk", "1.0.0", desk.instance_id)
    assert "add" in info["methods"]


def test_stats_count_calls_and_errors(dispatcher: Dispatcher) -> None:
    for asked in (request("add", [1]), request("add", ["x"]), request("crash")):
        answered(dispatcher(asked))
    methods = value(dispatcher(request("stats")))["methods"]
    assert (methods["add"]["calls"], methods["add"]["errors"]) == (2, 1)
    assert (methods["crash"]["calls"], methods["crash"]["errors"]) == (1, 1)


def test_what_a_transport_brought_is_waited_for_before_it_is_in_flight(
    dispatcher: Dispatcher,
) -> None:
    entered = dispatcher.enter()
    assert dispatcher.wait_idle(0.0) is False
    waiting = threading.Thread(target=dispatcher.wait_idle, args=(100 * BOUND,), daemon=True)
    waiting.start()
    dispatcher.leave(entered)
    waiting.join(BOUND)
    assert not waiting.is_alive()


def test_who_shuts_the_gate_waits_for_those_in_it_or_they_see_that_it_is_shut() -> None:
    class Turning(Dispatcher):
        def enter(self) -> list[None]:
            gate.shut()  # in this very moment
            return super().enter()

    desk = Desk()
    with App(desk, settings=Settings()) as app:
        app.dispatcher.__class__ = Turning
        gate = Gate(app.dispatcher, set())
        refused = answered(gate(request("add", [1])))
        assert (refused.code, refused.reason, refused.executed) == ("unavailable", "draining", "no")


def test_a_service_that_lost_its_place_behind_the_gate_begins_nothing(
    dispatcher: Dispatcher, desk: Desk
) -> None:
    (hosted,) = dispatcher.hosting
    hosted.is_ousted = True
    refused = answered(dispatcher(request("hold", [])))
    assert (refused.code, refused.reason, refused.executed) == ("unavailable", "no_instance", "no")
    assert not desk.entered.is_set()
    assert dispatcher.wait_idle(0.0) is True
