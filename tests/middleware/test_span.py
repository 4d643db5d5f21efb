"""Spans around calls and requests, where the trace is sampled."""

from __future__ import annotations

import pytest

from fan import errors
from fan.context import Context
from fan.message import Request
from fan.middleware.span import ClientSpan, ServerSpan, is_sampled
from fan.testing.fakes import RecordingTracer

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = f"{SAMPLED[:-1]}0"


@pytest.fixture
def tracer(clock):
    return RecordingTracer(clock)


def test_a_root_call_has_the_first_span_of_its_trace(tracer, clock, callee, make_call):
    call = make_call(traceparent=SAMPLED)
    clock.drive(ClientSpan(tracer).on_call(call, callee()))
    (span,) = tracer.spans
    assert (span.name, span.kind, span.parent_id) == ("shop.buy", "client", "")
    assert (span.trace_id, span.span_id) == (SAMPLED[3:35], SAMPLED[36:52])
    assert call.traceparent == SAMPLED


def test_a_call_inside_another_gets_a_span_of_its_own_below_it(tracer, clock, callee, make_call):
    request = Request(id="1", service="a", method="b", timeout_ms=1, traceparent=SAMPLED)
    parent = Context.at(None, request=request)
    call = make_call(traceparent=parent.traceparent, parent=parent)
    clock.drive(ClientSpan(tracer).on_call(call, callee()))
    (span,) = tracer.spans
    assert span.parent_id == parent.span_id
    assert call.traceparent[36:52] == span.span_id != parent.span_id
    assert call.traceparent[53:] == "01"


def test_a_request_has_the_span_that_its_handler_sees(tracer, clock, callee, make_inbound):
    inbound = make_inbound(traceparent=SAMPLED)

    def work(seen):
        clock.now += 0.5
        from fan.message import Response

        return Response(id="r")

    clock.drive(ServerSpan(tracer).on_request(inbound, callee(work)))
    (span,) = tracer.spans
    assert (span.kind, span.parent_id) == ("server", SAMPLED[36:52])
    assert span.span_id == inbound.context.span_id
    assert (span.seconds, span.error) == (0.5, None)


def test_a_failure_is_the_error_of_its_span(tracer, clock, callee, make_inbound):
    error = errors.NotFound("no")
    with pytest.raises(errors.NotFound):
        clock.drive(ServerSpan(tracer).on_request(make_inbound(traceparent=SAMPLED), callee(error)))
    assert tracer.spans[0].error is error


def test_what_is_not_sampled_is_not_recorded(tracer, clock, callee, make_call, make_inbound):
    clock.drive(ClientSpan(tracer).on_call(make_call(traceparent=UNSAMPLED), callee()))
    clock.drive(ServerSpan(tracer).on_request(make_inbound(), callee()))
    assert tracer.spans == []


@pytest.mark.parametrize("text", ["", "garbage", SAMPLED[:53], f"{SAMPLED[:53]}zz"])
def test_a_trace_that_is_none_is_not_sampled(text):
    assert not is_sampled(text)
