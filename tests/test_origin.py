"""What the first implementation's tests asserted, and what was wrong with it, against this one.

The rest of it stands in the contract of a transport, where it holds for each of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import fan
from fan import App, Service, rpc

pytest_plugins = ["fan.testing.plugin"]

MakeApp = Callable[..., App]


class Dummy(Service):
    name = "dummy"

    @rpc
    def echo(self, message: Any) -> Any:
        return message

    @rpc
    def again(self, message: str, times: int) -> list[Any]:
        """Call itself through the context until `times` is used up."""
        context = fan.current()
        assert context is not None
        if not times:
            return [message, 0, [context.trace_id]]
        result = context.rpc.dummy.again(message, times - 1)
        return [*result[:2], [context.trace_id, *result[2]]]

    @rpc
    def chained_echo(self, message: str) -> list[str]:
        context = fan.current()
        assert context is not None
        return [context.trace_id, *context.rpc.dummy_tracer.echo(message)]


class Nested(Dummy):
    name = "nested.tree.dummy"


class DummyTracer(Service):
    name = "dummy_tracer"

    @rpc
    def echo(self, message: str) -> list[str]:
        context = fan.current()
        assert context is not None
        return [context.trace_id, message]


def test_a_service_echoes(fan_app: MakeApp) -> None:
    assert fan_app(Dummy()).rpc.dummy.echo("hello") == "hello"


def test_a_service_with_a_nested_name_echoes(fan_app: MakeApp) -> None:
    assert fan_app(Nested()).rpc.nested.tree.dummy.echo("hello") == "hello"


def test_a_service_calls_itself_seven_more_times_in_one_trace(fan_app: MakeApp) -> None:
    message, left, traces = fan_app(Dummy()).rpc.dummy.again("hello", 7)
    assert (message, left) == ("hello", 0)
    assert len(traces) == 8
    assert len(set(traces)) == 1


@pytest.mark.parametrize("transport", ["ipc", "http"])
def test_a_call_through_a_second_app_on_one_registry_is_one_trace(
    fan_app: MakeApp, transport: str
) -> None:
    fan_app(DummyTracer(), transports=(transport,))
    first = fan_app(Dummy(), transports=(transport,))
    outer, inner, message = first.call("dummy.chained_echo", "hello")
    assert message == "hello"
    assert outer == inner


@pytest.mark.parametrize("transport", ["ipc", "http"])
def test_what_is_registered_can_be_described_from_elsewhere(
    fan_app: MakeApp, transport: str
) -> None:
    fan_app(Dummy(), transports=(transport,))
    info = fan_app().discovery.service("dummy")
    method = info.interfaces["0.0.0"].method("echo")
    assert method is not None
    assert [p.name for p in method.params] == ["message"]


def test_the_argument_of_a_call_is_not_evaluated(fan_app: MakeApp) -> None:
    assert fan_app(Dummy()).call("dummy.echo", "__import__('os')") == "__import__('os')"


def test_two_apps_in_a_row_and_at_once_work(fan_app: MakeApp) -> None:
    one, two = fan_app(Dummy()), fan_app(DummyTracer())
    assert one.call("dummy.echo", 1) == 1
    assert asyncio.run(two.acall("dummy_tracer.echo", "x"))[1] == "x"
    assert one.call("dummy.echo", 2) == 2
