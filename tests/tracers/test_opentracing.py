"""Spans as OpenTracing has them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from opentracing.mocktracer import MockTracer

import fan
from fan.settings import Settings
from fan.stores.memory import MemoryStore
from fan.tracers.opentracing import OpenTracingTracer


class Alpha(fan.Service):
    name = "alpha"
    version = "1.0.0"

    @fan.rpc
    def go(self) -> str:
        return str(self.app.using(transport="ipc").call("beta.end"))

    @fan.rpc
    def fail(self) -> None:
        raise fan.NotFound("nothing", reason="gone")


class Beta(fan.Service):
    name = "beta"
    version = "1.0.0"

    @fan.rpc
    def end(self) -> str:
        return "done"


@pytest.fixture
def traced(tmp_path: Any) -> Any:
    mock = MockTracer()
    with MemoryStore("traces") as store:
        settings = Settings(runtime_dir=str(tmp_path / "run"))
        with fan.App(
            Alpha(), Beta(), settings=settings, store=store, tracer=OpenTracingTracer(tracer=mock)
        ) as app:
            app.start()
            yield app.using(transport="ipc"), mock


def test_calls_and_requests_are_children_of_each_other(traced: Any) -> None:
    app, mock = traced
    assert app.call("alpha.go") == "done"
    spans = {(s.operation_name, s.tags["span.kind"]): s for s in mock.finished_spans()}
    chain = [
        ("alpha.go", "client"), ("alpha.go", "server"),
        ("beta.end", "client"), ("beta.end", "server"),
    ]  # fmt: skip
    assert set(spans) == set(chain)
    for above, below in itertools.pairwise(chain):
        assert spans[below].parent_id == spans[above].context.span_id
        assert spans[below].tags["parent_id"] == spans[above].tags["span_id"]
    assert len({span.tags["trace_id"] for span in spans.values()}) == 1


def test_a_failure_is_tagged(traced: Any) -> None:
    app, mock = traced
    with pytest.raises(fan.NotFound):
        app.call("alpha.fail")
    server = next(s for s in mock.finished_spans() if s.tags["span.kind"] == "server")
    assert server.tags["error"] is True
    assert (server.tags["fan.code"], server.tags["fan.reason"]) == ("not_found", "gone")


def test_a_tracer_that_fails_fails_no_call(tmp_path: Any, caplog: Any) -> None:
    class Broken:
        def start_span(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("no spans today")

    with MemoryStore("traces") as store:
        settings = Settings(runtime_dir=str(tmp_path / "run"))
        tracer = OpenTracingTracer(tracer=Broken())
        with fan.App(Beta(), settings=settings, store=store, tracer=tracer) as app:
            app.start()
            assert app.using(transport="ipc").call("beta.end") == "done"
    assert "no spans today" in caplog.text


def test_it_is_chosen_by_a_setting(tmp_path: Any) -> None:
    settings = Settings(registry="memory:", tracer="opentracing")
    with fan.App(settings=settings) as app:
        assert isinstance(app.tracer, OpenTracingTracer)
    with fan.App(settings=Settings(registry="memory:")) as app:
        assert app.tracer is None
