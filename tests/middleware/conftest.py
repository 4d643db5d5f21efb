"""Drives the layers' generators without threads, networks or waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fan.context import Context
from fan.message import Request, Response
from fan.middleware.base import Call, Inbound, Options, Send, Sleep, Steps
from fan.model import Address, Instance


class Clock:
    """A clock that stands still until somebody moves it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def drive(self, steps: Steps) -> Response:
        """Run to the end; a Sleep moves the clock."""
        try:
            while True:
                step = next(steps)
                assert isinstance(step, Sleep), step
                self.slept.append(step.seconds)
                self.now += step.seconds
        except StopIteration as stop:
            return stop.value


class Callee:
    """The innermost layer: does what `script` says, in turn, then answers ok for ever."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.seen: list[Any] = []

    def __call__(self, call: Any) -> Steps:
        self.seen.append(call)
        outcome = self.script.pop(0) if self.script else Response(id="r")
        if callable(outcome) and not isinstance(outcome, type):
            outcome = outcome(call)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome
        yield


def waiting(_: Any) -> Steps:
    """An innermost layer that is in the middle of its call until somebody sends it the answer."""
    request = Request(id="1", service="a", method="b", timeout_ms=1)
    return (yield Send(None, Address("ipc:"), request))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def callee() -> type[Callee]:
    return Callee


@pytest.fixture
def unfinished() -> Callable[[Any], Steps]:
    return waiting


@pytest.fixture
def make_call() -> Callable[..., Call]:
    def make(instance: str = "one", retries: int | None = None, **kwargs: Any) -> Call:
        picked = Instance(id=instance, service="shop", version="1.0.0") if instance else None
        how = {k: kwargs.pop(k) for k in ("retry_delay", "retries_all", "breaker") if k in kwargs}
        given = {"service": "shop", "method": "buy", "id": "id-1", "deadline": 1005.0, **kwargs}
        return Call(options=Options(retries=retries, **how), instance=picked, **given)

    return make


@pytest.fixture
def make_inbound() -> Callable[..., Inbound]:
    def make(**kwargs: Any) -> Inbound:
        own = {k: kwargs.pop(k) for k in ("is_idempotent", "peer") if k in kwargs}
        given = {"id": "id-1", "service": "shop", "method": "buy", "timeout_ms": 5000, **kwargs}
        request = Request(**given)
        context = Context.at(None, "shop", "buy", request=request)
        return Inbound(request=request, context=context, **own)

    return make
