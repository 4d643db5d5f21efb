"""The service that tests of a dispatcher ask, what its handlers may raise, and how it is asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from typing import Any, Literal

import msgspec

import fan
from fan import Service, rpc
from fan.errors import FailedPrecondition, NotFound
from fan.message import Request, Response
from fan.transports.base import Stream

Kind = Literal["call", "stream", "push", "event"]

#: A bound on hangs.
BOUND = 10.0


class Refused(FailedPrecondition):
    type = "desk.refused"


class Odd(Exception):
    pass


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class Picky(Exception):
    def __init__(self, item: Any, amount: int) -> None:
        super().__init__(item, amount)
        self.amount = amount


class Unfinished(NotFound):
    """Does not call the `__init__` of its base."""

    type = "desk.unfinished"

    def __init__(self) -> None:
        self.item = "tea"


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)

FAILURES: dict[str, Any] = {
    "interrupt": KeyboardInterrupt,
    "exit": SystemExit,
    "leave": GeneratorExit,
    "mute": Mute,
    "surrogate": lambda: ValueError("\udcff"),
    "circle": lambda: NotFound("x", details=CIRCLE),
    "huge": lambda: NotFound("x", details={"n": 2**70}),
    "keys": lambda: NotFound("x", details={(1, 2): 3}),
    "message": lambda: NotFound(ValueError("x")),  # type: ignore[arg-type]
    "fraction": lambda: NotFound("x", retry_after_ms=0.5),  # type: ignore[arg-type]
    "unfinished": Unfinished,
    "picky": lambda: Picky(object(), 2),
}


def failure(how: str) -> BaseException:
    made: BaseException = FAILURES[how]()
    return made


def elsewhere(work: Callable[[], Any]) -> Any:
    """What `work` gives in a thread of its own, as a transport runs it."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join(BOUND)
    return found[0]


class Desk(Service):
    name = "desk"
    version = "1.0.0"

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.closed = threading.Event()
        self.seen: list[Any] = []

    @rpc
    def add(self, a: int, b: int = 1) -> int:
        self.seen.append((a, b))
        return a + b

    @rpc
    async def add_async(self, a: int, b: int = 1) -> int:
        await asyncio.sleep(0)
        return a + b

    @rpc
    def echo(self, /, *args: Any, **kwargs: Any) -> Any:
        return [args, kwargs]

    @rpc
    def raw(self, data: bytes) -> bytes:
        return data[::-1]

    @rpc
    def log(self, text: str) -> str:
        return text

    @rpc
    def refuse(self) -> None:
        raise Refused("not today", reason="closed", details={"until": 9}, retry_after_ms=50)

    @rpc(raises=[Odd])
    def odd(self) -> None:
        raise Odd("a", 1)

    @rpc
    def crash(self) -> None:
        raise KeyError("gone")

    @rpc
    async def crash_async(self) -> None:
        raise KeyError("gone")

    @rpc
    def exit(self) -> None:
        raise SystemExit(3)

    @rpc(raises=[Picky])
    def fail(self, how: str) -> None:
        raise failure(how)

    @rpc
    async def fail_async(self, how: str) -> None:
        raise failure(how)

    @rpc
    def fail_midway(self, how: str) -> Iterator[int]:
        yield 1
        raise failure(how)

    @rpc
    async def fail_midway_async(self, how: str) -> AsyncIterator[int]:
        yield 1
        raise failure(how)

    @rpc
    async def kwargs_async(self, **kwargs: Any) -> Any:
        return kwargs

    @rpc
    def kwargs_stream(self, **kwargs: Any) -> Iterator[Any]:
        yield kwargs

    @rpc
    async def hold_stream(self) -> AsyncIterator[int]:
        yield 1
        try:
            await asyncio.Event().wait()
        finally:
            self.closed.set()

    @rpc
    def time_left(self) -> Iterator[float]:
        context = fan.current()
        assert context is not None
        for _ in range(3):
            yield context.remaining or 0.0

    @rpc
    def fail_at_close(self) -> Iterator[int]:
        try:
            yield 1
        finally:
            raise ValueError("cannot close")

    @rpc
    def downstream(self) -> None:
        exc = NotFound("no such user", reason="no_such_user")
        exc.target = "users.get"
        raise exc

    @rpc
    def strange_details(self) -> None:
        raise Refused("x", details=object())

    @rpc
    def hold(self) -> str:
        self.entered.set()
        self.gate.wait(BOUND)
        return "held"

    @rpc
    async def hold_async(self) -> None:
        self.entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.closed.set()

    @rpc
    def context(self) -> dict[str, Any]:
        context = fan.current()
        assert context is not None
        return {"principal": context.principal, "cancelled": context.cancelled}

    @rpc
    def count(self, n: int) -> Iterator[int]:
        try:
            yield from range(n)
        finally:
            self.closed.set()

    @rpc
    async def count_async(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    @rpc
    def unsendable(self) -> Any:
        return {"x": object()}


def request(method: str, body: Any = None, *, kind: Kind = "call", **fields: Any) -> Request:
    encoded = body if isinstance(body, bytes) else msgspec.json.encode(body or {})
    usual: dict[str, Any] = {"service": "desk", "id": "r1", "timeout_ms": 5000, "body": encoded}
    return Request(method=method, kind=kind, **{**usual, **fields})


def answered(answer: Any) -> Response:
    if isinstance(answer, Future):
        answer = answer.result(BOUND)
    assert isinstance(answer, Response)
    return answer


def value(answer: Any) -> Any:
    response = answered(answer)
    assert response.code == "ok", response
    return fan.decode_result(response)


def opened(answer: Any) -> Stream:
    assert isinstance(answer, Stream), answer
    return answer
