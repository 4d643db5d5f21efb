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
from fan.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, Unavailable, Unknown
from fan.model import WHOLE, Instance, Route, ServiceInfo
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
        app.using(timeout=0.3).call("desk.hold")
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
