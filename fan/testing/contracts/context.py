"""Behaviours 23 to 26: what travels with a call, and what does not; pushes."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import fan
from fan.errors import FanError, InvalidArgument, NotFound
from fan.testing.contracts.callers import Caller, Planned
from fan.testing.contracts.deadlines import serve_three
from fan.testing.contracts.harness import Harness, World, needs
from fan.testing.contracts.probe import BOUND, Probe, probe
from fan.testing.contracts.queue_harness import until
from fan.testing.fakes import RecordingTracer

Face = Callable[[Any], Caller]
RELAYS = pytest.mark.parametrize("relay", ["relay", "relay_async"])

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Contexts(Harness):
    """Trace, baggage, caller and principal."""

    @RELAYS
    def test_one_trace_goes_through_all_hops_with_the_right_parents(
        self, world: World, face: Face, relay: str
    ) -> None:
        serve_three(world)
        hops = face(world.client()).call(f"alpha.{relay}", ["beta", "gamma"])
        assert [hop["service"] for hop in hops] == ["alpha", "beta", "gamma"]
        assert len({hop["trace_id"] for hop in hops}) == 1
        assert len(hops[0]["trace_id"]) == 32
        assert len({hop["span_id"] for hop in hops}) == 3
        assert [hop["parent"] for hop in hops[1:]] == [hop["span_id"] for hop in hops[:-1]]
        assert [hop["hops"] for hop in hops] == [0, 1, 2]

    def test_two_calls_are_two_traces(self, caller: Caller) -> None:
        first, second = (caller.call("probe.relay", [])[0]["trace_id"] for _ in range(2))
        assert first != second

    def test_the_callers_own_trace_and_sampled_flag_are_kept(
        self, world: World, face: Face
    ) -> None:
        serve_three(world)
        client = world.client()
        with fan.Context.at(client, own_traceparent=SAMPLED):
            hops = face(client).call("alpha.relay", ["beta"])
        assert {hop["trace_id"] for hop in hops} == {SAMPLED[3:35]}
        assert {hop["flags"] for hop in hops} == {"01"}

    @RELAYS
    def test_spans_are_finished_with_the_right_parents_and_real_times(
        self, world: World, face: Face, relay: str
    ) -> None:
        tracer = world.tracer = RecordingTracer()
        serve_three(world)
        hops = face(world.client()).call(f"alpha.{relay}", ["beta"])
        chain = [(s.name, s.kind) for s in tracer.spans]
        assert chain == [
            (f"{service}.{relay}", kind)
            for service in ("alpha", "beta")
            for kind in ("client", "server")
        ]
        assert [s.parent_id for s in tracer.spans] == ["", *(s.span_id for s in tracer.spans[:-1])]
        assert {s.trace_id for s in tracer.spans} == {hop["trace_id"] for hop in hops}
        assert [hop["span_id"] for hop in hops] == [tracer.spans[i].span_id for i in (1, 3)]
        seconds = [s.seconds for s in tracer.spans]
        assert None not in seconds
        assert seconds == sorted(seconds, reverse=True)  # type: ignore[type-var]

    def test_a_failure_is_the_error_of_its_spans(self, world: World, face: Face) -> None:
        tracer = world.tracer = RecordingTracer()
        world.serve(probe())
        face(world.client()).failure("probe.fail")
        assert [(s.kind, getattr(s.error, "code", None)) for s in tracer.spans] == [
            ("client", "unknown"),
            ("server", "unknown"),
        ]

    @RELAYS
    def test_baggage_goes_through_all_hops_and_headers_only_one(
        self, world: World, face: Face, relay: str
    ) -> None:
        serve_three(world)
        baggage = {"tenant": "Zoë & co, 100%", "empty": ""}
        caller = face(world.client()).using(baggage=baggage, headers={"x-one": "1"})
        hops = caller.call(f"alpha.{relay}", ["beta", "gamma"])
        assert [hop["baggage"] for hop in hops] == [baggage] * 3
        assert hops[0]["headers"].get("x-one") == "1"
        assert all("x-one" not in hop["headers"] for hop in hops[1:])

    def test_a_header_arrives_under_its_name_in_lower_case(self, caller: Caller) -> None:
        hops = caller.using(headers={"X-One": "Zoë"}).call("probe.relay", [])
        assert hops[0]["headers"]["x-one"] == "Zoë"

    @pytest.mark.parametrize(
        "options",
        [
            {"headers": {"x-one": "1\r\nx-two: 2"}},
            {"headers": {"x one": "1"}},
            {"headers": {"x-one": 1}},
            {"baggage": {f"key-{n}": "1" for n in range(65)}},
            {"baggage": {"key": "x" * 8192}},
            {"baggage": {"key": 1}},
        ],
    )
    def test_what_one_transport_could_not_send_none_takes(
        self, caller: Caller, options: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidArgument):
            caller.using(**options)

    def test_baggage_that_grew_beyond_its_limit_is_refused(
        self, caller: Caller, served: Probe
    ) -> None:
        grown = {f"key-{n}": "1" for n in range(65)}
        with fan.Context.at(caller.client, own_baggage=grown):
            failure = caller.failure("probe.add", 1)
        assert isinstance(failure, InvalidArgument)
        assert failure.executed == "no"
        assert served.runs["add"] == 0

    def test_the_caller_is_named(self, world: World, face: Face) -> None:
        alpha, *_ = serve_three(world)
        hops = face(world.client()).using(caller="the-test").call("alpha.relay", ["beta"])
        assert [hop["caller"] for hop in hops] == ["the-test", "alpha"]
        assert hops[1]["caller_instance"] == alpha.instance_id

    def test_a_principal_arrives_where_the_peer_is_authenticated(
        self, world: World, face: Face
    ) -> None:
        serve_three(world)
        hops = face(world.client()).using(principal="ada").call("alpha.relay", ["beta", "gamma"])
        expected = "ada" if self.is_authenticated else ""
        assert [hop["principal"] for hop in hops] == [expected] * 3

    @RELAYS
    def test_nothing_leaks_between_concurrent_calls(
        self, world: World, face: Face, relay: str
    ) -> None:
        serve_three(world)
        caller = face(world.client()).using(timeout=4 * BOUND)
        calls: list[tuple[Caller, Planned]] = [
            (
                caller.using(baggage={"n": str(n)}, caller=f"c{n}"),
                (f"alpha.{relay}", (["beta"],), {}),
            )
            for n in range(50)
        ]
        for n, hops in enumerate(caller.together(calls)):
            assert [hop["baggage"] for hop in hops] == [{"n": str(n)}] * 2
            assert [hop["caller"] for hop in hops] == [f"c{n}", "alpha"]

    def test_nothing_is_left_after_a_call(self, caller: Caller) -> None:
        caller.using(baggage={"a": "1"}).call("probe.relay", [])
        assert fan.current() is None
        assert caller.call("probe.relay", [])[0]["baggage"] == {}

    def test_a_loop_of_calls_is_refused(self, world: World, face: Face) -> None:
        world.serve(probe("loop"))
        caller = face(world.client()).using(timeout=4 * BOUND)
        failure = caller.failure("loop.relay_async", ["loop"] * 40)
        assert isinstance(failure, FanError)
        inner: dict[str, Any] = {"code": failure.code, "reason": failure.reason}
        inner["details"] = failure.details
        while isinstance(inner["details"], dict) and inner["reason"] == "downstream_failed":
            inner = inner["details"]
        assert (inner["code"], inner["reason"]) == ("failed_precondition", "max_hops")

    @pytest.mark.parametrize("method", ["in_executor", "in_wrapped_thread", "in_task"])
    def test_the_context_follows_into_threads_and_tasks(self, caller: Caller, method: str) -> None:
        outside, inside = caller.call(f"probe.{method}")
        assert inside == outside
        assert len(inside) == 32

    def test_a_foreign_librarys_log_line_carries_the_trace(self, caller: Caller) -> None:
        with collected_logs("a.foreign.library") as records:
            trace_id = caller.call("probe.log_from_a_library")
        (record,) = records
        assert record.__dict__["trace_id"] == trace_id
        assert record.__dict__["service"] == "probe"

    @needs("push")
    def test_a_push_returns_once_accepted_and_is_handled_once(
        self, caller: Caller, served: Probe
    ) -> None:
        assert caller.push("probe.hold", "pushed") is None
        assert served.wait_entered() == "pushed"
        served.release()
        assert caller.call("probe.add", 1) == 2
        assert served.runs["hold"] == 1

    @needs("push")
    def test_a_push_that_fails_harms_nobody(self, caller: Caller, served: Probe) -> None:
        caller.push("probe.fail")
        caller.push("probe.hold", "after")
        assert served.wait_entered() == "after"
        assert caller.call("probe.add", 1) == 2

    @needs("push")
    def test_what_a_push_does_has_the_time_of_its_delivery_not_of_its_sender(
        self, world: World, face: Face
    ) -> None:
        service = probe()
        world.serve(service, push_timeout=70.0)
        face(world.client()).using(timeout=5.0).push("probe.note_context")
        assert service.wait_entered()["remaining"] > 60.0

    @needs("push")
    @pytest.mark.parametrize("method", ["fail", "fail_async"])
    def test_a_push_that_fails_for_good_stands_in_the_log_of_who_accepted_it(
        self, world: World, face: Face, method: str
    ) -> None:
        world.serve(probe(), deliveries=1)
        caller = face(world.client())

        def told() -> list[str]:
            return [one.getMessage() for one in records if one.levelno == logging.ERROR]

        with collected_logs("fan") as records:
            caller.push(f"probe.{method}")
            until(told)
        (line,) = told()
        assert line.endswith("unknown: it broke")
        assert "probe" in line

    @needs("push")
    def test_a_push_carries_baggage_and_trace(self, caller: Caller, served: Probe) -> None:
        caller.using(baggage={"a": "b"}).push("probe.note_context")
        assert served.wait_entered()["baggage"] == {"a": "b"}

    @needs("push")
    def test_a_push_to_nobody_is_refused(self, caller: Caller) -> None:
        with pytest.raises(NotFound):
            caller.push("nobody.hold")

    @needs("push")
    def test_a_push_to_an_unknown_method_is_refused(self, caller: Caller) -> None:
        with pytest.raises(FanError) as info:
            caller.push("probe.nothing")
        assert info.value.reason == "unknown_method"

    @needs("push")
    def test_a_push_with_arguments_that_do_not_fit_is_refused(
        self, caller: Caller, served: Probe
    ) -> None:
        with pytest.raises(InvalidArgument) as info:
            caller.push("probe.add", "no number")
        assert info.value.reason == "bad_signature"
        assert served.runs["add"] == 0

    @needs("push")
    def test_a_push_goes_on_when_whoever_pushed_is_gone(self, world: World, face: Face) -> None:
        service = probe()
        world.serve(service)
        client = world.client()
        face(client).push("probe.until_cancelled", "pushed")
        assert service.wait_entered() == "pushed"
        client.transport(self.scheme).close()
        assert not service.closed.wait(0.1)  # the handler looks every 5 ms

    @needs("push")
    def test_pushes_that_were_accepted_survive_a_drain(self, world: World, face: Face) -> None:
        service = probe()
        app = world.serve(service)
        caller = face(world.client())
        for n in range(5):
            caller.push("probe.note", n)
        app.stop(timeout=BOUND)
        assert service.runs["note"] == 5


@contextlib.contextmanager
def collected_logs(name: str) -> Iterator[list[logging.LogRecord]]:
    """The records of one logger."""
    records: list[logging.LogRecord] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logger, collector = logging.getLogger(name), Collector()
    logger.addHandler(collector)
    try:
        yield records
    finally:
        logger.removeHandler(collector)
