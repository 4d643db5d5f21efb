"""A call seen from its caller: its time, its end, and where it goes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from fan import App, Service, Settings, rpc
from fan.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    FanError,
    InvalidArgument,
    Unavailable,
    Unknown,
)
from fan.message import Request
from fan.model import WHOLE, Instance, Route, ServiceInfo, transport_of
from fan.picker import Picker
from fan.routing import by_weight
from fan.testing.fakes import RecordingTransport
from fan.versions import newest_last

#: A bound on hangs.
BOUND = 10.0


class Desk(Service):
    name = "desk"
    version = "1.0.0"

    def __init__(self) -> None:
        self.calls = 0
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.closed = threading.Event()

    @rpc
    def plain(self) -> int:
        self.calls += 1
        return self.calls

    @rpc
    async def count(self) -> int:
        self.calls += 1
        return self.calls

    @rpc
    async def hold(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.closed.set()

    @rpc
    async def ask_itself(self) -> Any:
        return self.app.call("desk.count")

    @rpc
    def drip(self) -> Iterator[int]:
        try:
            yield 1
            self.entered.set()
            self.gate.wait(BOUND)
            yield 2
        finally:
            self.closed.set()


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def app(desk: Desk) -> Iterator[App]:
    with App(desk, settings=Settings(), transports={"fake": RecordingTransport()}) as app:
        yield app
        desk.gate.set()


def sent(app: App) -> list[Any]:
    return app.transport("fake").requests  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("timeout", [0, 0.0, -1, float("-inf")])
@pytest.mark.parametrize("method", ["plain", "count"])
def test_no_time_is_no_time(app: App, desk: Desk, method: str, timeout: float) -> None:
    local = app.using(timeout=timeout)
    away = app.using(timeout=timeout, peers=("fake:x",))
    for client in (local, away):
        with pytest.raises(DeadlineExceeded) as caught:
            client.call(f"desk.{method}")
        assert caught.value.executed == "no"
        with pytest.raises(DeadlineExceeded):
            asyncio.run(client.acall(f"desk.{method}"))
    assert (desk.calls, sent(app)) == (0, [])


@pytest.mark.parametrize("timeout", [float("inf"), 1e300, 10**30, 2**31])
def test_a_time_without_end_is_cut_to_what_can_be_waited(app: App, timeout: float) -> None:
    assert app.using(timeout=timeout).call("desk.count") == 1
    app.using(timeout=timeout, peers=("fake:x",)).call("desk.count")
    assert 0 < sent(app)[0].timeout_ms < 2**31


@pytest.mark.parametrize("timeout", [float("nan"), "1", True, 1j])
def test_a_time_that_is_none_is_refused(app: App, timeout: Any) -> None:
    with pytest.raises(InvalidArgument, match="seconds"):
        app.using(timeout=timeout)
    with pytest.raises(InvalidArgument, match="seconds"):
        app.using(ttl=timeout)


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf")])
def test_a_method_has_some_time(timeout: float) -> None:
    with pytest.raises(ValueError, match="time"):
        rpc(timeout=timeout)


def test_an_async_method_of_the_same_app_ends_at_the_deadline(app: App, desk: Desk) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        app.using(timeout=1.0).call("desk.hold")
    assert caught.value.executed == "maybe"
    assert caught.value.target == "desk.hold"
    assert desk.closed.wait(BOUND)


def test_a_call_without_time_is_the_callers_own_time_out(app: App) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        app.using(timeout=0).call("desk.hold")
    assert (caught.value.reason, caught.value.executed) == ("client_timer", "no")


def test_a_call_that_would_wait_for_its_own_loop_is_refused(app: App) -> None:
    with pytest.raises(Exception, match="await acall") as caught:
        app.call("desk.ask_itself")
    assert caught.value.details["executed"] == "no"  # type: ignore[attr-defined]
    assert caught.value.details["code"] == FailedPrecondition.code  # type: ignore[attr-defined]


def test_a_stream_given_up_between_two_items_is_closed(app: App, desk: Desk) -> None:
    async def read() -> None:
        items: AsyncIterator[Any] = app.astream("desk.drip")
        assert await anext(items) == 1
        waiting = asyncio.ensure_future(anext(items))
        await asyncio.to_thread(desk.entered.wait, BOUND)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        desk.gate.set()

    asyncio.run(read())
    assert desk.closed.wait(BOUND)
    assert app.dispatcher.wait_idle(BOUND)


def test_a_stream_that_outlives_its_app_is_closed_all_the_same(app: App, desk: Desk) -> None:
    async def read() -> None:
        items: AsyncIterator[Any] = app.astream("desk.drip")
        assert await anext(items) == 1
        app.close()
        await items.aclose()  # type: ignore[attr-defined]

    asyncio.run(read())
    assert desk.closed.is_set()


class Two(Service):
    """Its handler lets out what is wrong with a call that it makes."""

    name = "two"
    version = "1.0.0"

    @rpc
    def ask(self, target: str, unsendable: bool) -> Any:
        return self.app.using(peers=("fake:x",)).call(target, object() if unsendable else 1)


@pytest.mark.parametrize("how", ["call", "acall", "submit", "push", "apush", "stream"])
def test_what_could_not_be_sent_names_its_target(app: App, how: str) -> None:
    client = app.using(peers=("fake:x",))

    def ask() -> None:
        found = getattr(client, how)("desk.plain", object())
        if how == "submit":
            found.result(BOUND)
        else:
            asyncio.run(found)

    with pytest.raises(InvalidArgument) as caught:
        ask()
    assert caught.value.target == "desk.plain"
    assert caught.value.executed == "no"


def test_what_a_handler_could_not_send_is_no_fault_of_its_caller(app: App) -> None:
    app.add(Two())
    with pytest.raises(Unknown) as caught:
        app.call("two.ask", "desk.plain", True)
    assert (caught.value.reason, caught.value.executed) == ("downstream_failed", "yes")
    assert caught.value.details["reason"] == "unserializable_args"


@pytest.mark.parametrize("transport", ["ipc", "http"])
@pytest.mark.parametrize("options", [{"headers": {"a": "\udcff"}}, {"caller": "\udcff"}])
def test_an_envelope_without_a_wire_form_is_refused_or_arrives(
    app: App, desk: Desk, tmp_path: Path, transport: str, options: dict[str, Any]
) -> None:
    settings = Settings(registry=f"sqlite:{tmp_path}/r.db", runtime_dir=str(tmp_path / "run"))
    with App(Desk(), settings=settings) as server, App(settings=settings) as client:
        server.start([transport])
        with contextlib.suppress(InvalidArgument):
            client.using(transport=transport, **options).call("desk.plain")
        assert client.using(transport=transport).call("desk.plain") in (1, 2)


# Routes


def test_a_canary_that_comes_and_goes_flips_none_of_100000_keys_back_and_forth() -> None:
    keys = [f"key-{number}" for number in range(100_000)]
    on_canary = []
    for weight in (0, 500, 1_000, 0):
        weights = {"1.0.0": WHOLE - weight, "2.0.0": weight}
        on_canary.append({key for key in keys if by_weight(weights, key, "shop") == "2.0.0"})
        assert abs(len(on_canary[-1]) - 10 * weight) <= 500  # half a percent of them
    before, five, ten, after = on_canary
    assert before == after == set()
    assert five < ten


def test_sticky_keys_spread_by_weight() -> None:
    weights = {"1.0.0": 2500, "1.9.0": 2500, "1.10.0": 5000}
    picks = [by_weight(weights, f"key-{i}", "a") for i in range(10_000)]
    for version, weight in weights.items():
        assert abs(picks.count(version) - weight) < 100


@pytest.mark.parametrize("versions", [("1.0.0", "2.0.0"), ("9.0", "10.0"), ("1.0", "1.0.0")])
def test_a_larger_canary_moves_only_what_it_gains(versions: tuple[str, str]) -> None:
    old, new = versions
    before, after = ({old: WHOLE - w, new: w} for w in (500, 1000))
    keys = [f"key-{i}" for i in range(10_000)]
    moved = [
        (by_weight(before, key, "a"), by_weight(dict(reversed(after.items())), key, "a"))
        for key in keys
    ]
    assert {pair for pair in moved if pair[0] != pair[1]} == {(old, new)}
    assert abs(sum(a != b for a, b in moved) - 500) < 100


def test_versions_that_are_equal_have_one_order() -> None:
    assert newest_last(["1.0.0", "1.0"]) == newest_last(["1.0", "1.0.0"])


@pytest.mark.parametrize("versions", [{"1.0.0": 0}, {"1.0.0": 0, "2.0.0": -5}])
def test_a_route_without_weight_is_unroutable(versions: dict[str, int]) -> None:
    instances = tuple(Instance(id=v, service="a", version=v) for v in versions)
    info = ServiceInfo("a", route=Route(versions=versions), instances=instances)

    class Fixed:
        def service(self, name: str, deadline: float) -> ServiceInfo:
            return info

    from fan.middleware.base import Options

    picker = Picker(Fixed(), ["ipc"])  # type: ignore[arg-type]
    with pytest.raises(Unavailable) as caught:
        picker.pick(picker.look("a", 0.0), "m", Options(), "key", set())
    assert (caught.value.reason, caught.value.executed) == ("unroutable", "no")


class Loops(Service):
    """Its `async def` methods need the loop on which it was started."""

    name = "loops"
    version = "1.0.0"

    async def service_start(self) -> None:
        self.lock = asyncio.Lock()
        self.loop = asyncio.get_running_loop()
        self.began, self.ended = threading.Event(), threading.Event()

    @rpc
    async def is_at_home(self) -> bool:
        async with self.lock:
            return asyncio.get_running_loop() is self.loop

    @rpc
    async def ask_twice(self) -> list[bool]:
        return [await self.app.acall("loops.is_at_home") for _ in range(2)]

    @rpc
    async def hold(self) -> None:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()

    @rpc
    async def hold_in_turn(self) -> Any:
        return await self.app.using(timeout=0.5).acall("loops.hold")

    @rpc
    async def ticks(self) -> Any:
        for number in range(3):
            yield number

    @rpc
    async def count(self) -> int:
        return sum(self.app.stream("loops.ticks"))

    @rpc
    async def acount(self) -> int:
        return sum([n async for n in self.app.astream("loops.ticks")])


@pytest.fixture
def loops() -> Loops:
    return Loops()


@pytest.fixture
def hosting(loops: Loops) -> Iterator[App]:
    with App(loops, settings=Settings(registry="memory:")) as app:
        app.start(["ipc"])
        yield app


def test_an_async_handler_runs_on_its_services_loop_whoever_awaits_it(hosting: App) -> None:
    assert asyncio.run(hosting.acall("loops.is_at_home"))
    assert asyncio.run(hosting.acall("loops.ask_twice")) == [True, True]
    assert hosting.call("loops.is_at_home")


@pytest.mark.parametrize("method", ["hold", "hold_in_turn"])
def test_an_awaited_handler_of_the_same_app_ends_at_its_deadline(
    hosting: App, loops: Loops, method: str
) -> None:
    with pytest.raises(FanError, match="did not end before its deadline"):
        asyncio.run(hosting.using(timeout=1.0).acall(f"loops.{method}"))
    assert loops.ended.wait(BOUND)


def test_giving_up_an_awaited_handler_of_the_same_app_cancels_it(
    hosting: App, loops: Loops
) -> None:
    async def give_up() -> None:
        call = asyncio.ensure_future(hosting.acall("loops.hold"))
        assert await asyncio.to_thread(loops.began.wait, BOUND)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(call, 0.05)

    asyncio.run(give_up())
    assert loops.ended.wait(BOUND)


def test_a_stream_that_would_block_its_own_loop_is_refused_and_the_loop_goes_on(
    hosting: App,
) -> None:
    with pytest.raises(FanError, match="read it by astream"):
        hosting.call("loops.count")
    assert hosting.call("loops.acount") == 3


@pytest.mark.parametrize("transport", ["ipc", "http"])
@pytest.mark.parametrize("method", ["outer", "aouter"])
def test_a_request_with_a_time_beyond_all_measure_is_handled_and_breaks_nothing(
    transport: str, method: str
) -> None:
    class Inner(Service):
        name = "inner"
        version = "1.0.0"

        @rpc
        def hi(self) -> str:
            return "hi"

    class Outer(Service):
        name = "outer"
        version = "1.0.0"

        @rpc
        def outer(self) -> Any:
            return self.app.using(transport="ipc").call("inner.hi")

        @rpc
        async def aouter(self) -> Any:
            return await self.app.using(transport="ipc").acall("inner.hi")

    with App(Inner(), Outer(), settings=Settings(registry="memory:")) as app:
        app.start(["ipc", "http"])
        addresses = app.lifecycle.instances[1].addresses
        address = next(a for a in addresses if transport_of(a) == transport)
        request = Request(
            id="far", service="outer", method=method, timeout_ms=9_999_999_999_999, caller="test"
        )
        for _ in range(2):
            assert app.transport(transport).submit(address, request).result(BOUND).body == b'"hi"'
