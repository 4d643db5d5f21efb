"""Rules for the way of calls, in a program that calls over Redis and otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

import fan
from fan.message import JSON
from fan.settings import Settings
from fan.stores.base import Change, Plan
from fan.stores.memory import MemoryStore
from fan.testing.contracts.probe import BOUND

#: As it was asked for, word for word but for what stands in the place of the dots.
PROGRAM = """\
from fan import Config, Routes
class AppRoutes(Routes): deployment = '{APP_CONFIG}'; routes = {'lightspeed.config_update': \
{'type': 'redis'}, 'lightspeed.run_sync': Config('lightspeed_config', default={'type': 'http'})}
"""


class LightSpeed(fan.Service):
    name = "lightspeed"
    version = "1.0.0"

    @fan.rpc
    def config_update(self) -> str:
        return "updated"

    @fan.rpc
    def run_sync(self, barcodes: list[str] = []) -> int:  # noqa: B006
        return len(barcodes)

    @fan.rpc
    def ping(self) -> str:
        return "pong"


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    with MemoryStore("routes") as store:
        yield store


@pytest.fixture
def way(
    url: str, private: Any, tmp_path: Any, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., str]]:
    """The transport that a call of a method took, from a program with `PROGRAM`'s routes."""
    monkeypatch.setenv("APP_CONFIG", "prod")
    (tmp_path / "lightspeed_routes.py").write_text(PROGRAM)
    routes = fan.load_routes(["lightspeed_routes"], str(tmp_path))
    settings = Settings(redis_url=url, queue="redis", runtime_dir=str(private))
    with (
        fan.App(LightSpeed(), settings=settings, store=store) as server,
        fan.App(settings=settings, store=store, routes=routes) as caller,
    ):
        server.start(("ipc", "http", "redis"))

        def way(method: str, kind: str = "call", **options: Any) -> str:
            client = caller.using(**options)
            return client.request("lightspeed", method, JSON, b"{}", kind=kind).transport

        yield way
        server.stop(BOUND)


def write(store: MemoryStore, key: str, value: Any) -> None:
    change = Change(object=f"config/{key}", body=msgspec.json.encode(value))
    store.commit(Plan(changes=(change,), verb="set"), deadline=time.monotonic() + BOUND)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BOUND
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_each_method_goes_its_own_way(way: Callable[..., str]) -> None:
    assert way("config_update") == "redis"
    assert way("config_update", kind="push") == "redis"
    assert way("run_sync") == "http"
    assert way("ping") == "ipc"  # there is no rule for it, and it is on the same host


def test_a_config_of_the_deployment_is_followed_live_and_no_other_s(
    way: Callable[..., str], store: MemoryStore
) -> None:
    write(store, "lightspeed_config", {"type": "redis"})
    write(store, "test/lightspeed_config", {"type": "redis"})
    write(store, "prod/lightspeed_config", {"type": "ipc"})
    until(lambda: way("run_sync") != "http")
    assert way("run_sync") == "ipc"
    write(store, "prod/lightspeed_config", {"type": "redis"})
    until(lambda: way("run_sync") == "redis")
    assert way("ping") == "ipc"


def test_what_a_call_names_itself_overrides_the_rules(way: Callable[..., str]) -> None:
    for transport in ("ipc", "http", "redis"):
        for method in ("config_update", "run_sync", "ping"):
            assert way(method, transport=transport) == transport
