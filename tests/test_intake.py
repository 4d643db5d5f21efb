"""What is taken from brokers follows the routes, whatever state the brokers are in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import fan
from fan.errors import Unavailable
from fan.message import Request
from fan.model import Address
from fan.stores.base import Cut
from fan.testing.fakes import FakeBroker
from fan.transports.base import Handler, Listener, Served, Subscription
from tests.shaky import BOUND, Shaky


class Shop(fan.Service):
    name = "shop"
    version = "1.0.0"

    def __init__(self) -> None:
        self.begun, self.go, self.handled = threading.Event(), threading.Event(), 0

    @fan.rpc
    def who(self) -> str:
        return self.version

    @fan.push
    def order(self) -> None:
        """Only the routed version takes it."""

    @fan.subscribe("stock.changed")
    def restock(self) -> None:
        self.begun.set()
        assert self.go.wait(BOUND)
        self.handled += 1


class NewShop(Shop):
    version = "2.0.0"


class Broker(FakeBroker):
    """A broker that can be in trouble."""

    def __init__(self) -> None:
        super().__init__()
        #: Times that it cannot be reached.
        self.refuses = 0
        #: While clear, telling it anything takes for ever.
        self.gate = threading.Event()
        self.gate.set()
        self.is_waited_for = threading.Event()
        self.closed: list[Subscription] = []

    def serve(self, bind: str, handler: Handler) -> Listener:
        return _Listener(self, super().serve(bind, handler))

    def subscribe(self, address: Address, subscription: Subscription, handler: Handler) -> Listener:
        self.meet()
        return _Listener(self, super().subscribe(address, subscription, handler), subscription)

    def meet(self) -> None:
        """What everything that is told to it begins with."""
        if not self.gate.is_set():
            self.is_waited_for.set()
            assert self.gate.wait(BOUND)
        if self.refuses:
            self.refuses -= 1
            raise Unavailable("the broker is away")


class _Listener(Listener):
    def __init__(
        self, broker: Broker, inner: Listener, subscription: Subscription | None = None
    ) -> None:
        self.address = inner.address
        self._broker = broker
        self._inner = inner
        self._subscription = subscription

    def update(self, served: Sequence[Served]) -> None:
        self._broker.meet()
        self._inner.update(served)

    def drain(self) -> None:
        self._inner.drain()

    def close(self, timeout: float = 5.0) -> None:
        if self._subscription is not None:
            self._broker.closed.append(self._subscription)
        self._inner.close(timeout)


class World:
    """A registry, and Apps each with a broker of its own."""

    def __init__(self, folder: Path) -> None:
        self.store = Shaky()
        self.settings = fan.Settings(queue="fake", runtime_dir=str(folder))
        self.apps: list[fan.App] = []
        self.brokers: list[Broker] = []

    def app(self, *services: fan.Service) -> tuple[fan.App, Broker]:
        broker = Broker()
        app = fan.App(
            *services, settings=self.settings, store=self.store, transports={"fake": broker}
        )
        self.apps.append(app)
        self.brokers.append(broker)
        return app, broker

    def serve(self, *services: fan.Service) -> tuple[fan.App, Broker]:
        app, broker = self.app(*services)
        app.start()
        return app, broker

    def switch(self, version: str) -> None:
        operator, _ = self.app()
        operator.discovery.adopt("shop", version, force=True)

    def close(self) -> None:
        for broker in self.brokers:
            broker.gate.set()
        self.store.gate.set()
        for app in self.apps:
            app.close()
        self.store.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "run")
    yield made
    made.close()


def eventually(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BOUND
    while not is_so():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.002)


def routed(broker: Broker) -> list[str]:
    return [one.version for one in broker.served if one.is_routed]


def test_a_route_that_changes_while_a_broker_is_away_is_followed_when_it_is_back(
    world: World,
) -> None:
    _, old = world.serve(Shop())
    _, new = world.serve(NewShop())
    eventually(lambda: (routed(old), routed(new)) == (["1.0.0"], []))
    for broker in (old, new):
        broker.refuses = 3
    world.switch("2.0.0")
    eventually(lambda: (routed(old), routed(new)) == ([], ["2.0.0"]))
    eventually(lambda: (len(old.subscriptions), len(new.subscriptions)) == (0, 1))


def test_a_broker_that_is_away_keeps_no_other_from_being_told(world: World) -> None:
    other = Broker()
    other.scheme = "other"  # type: ignore[misc]
    other.home = lambda: Address("other:broker")  # type: ignore[method-assign]
    app, broker = world.app(Shop())
    app._transports["other"] = other
    app.start(["fake", "other"])
    eventually(lambda: "idle" in repr(app.lifecycle._following))
    broker.refuses = 1_000_000
    world.switch("2.0.0")
    eventually(lambda: routed(other) == [] and other.subscriptions == [])
    assert routed(broker) == ["1.0.0"]
    broker.refuses = 0


def test_a_broker_that_does_not_answer_holds_up_neither_calls_nor_the_acknowledgement(
    world: World,
) -> None:
    app, broker = world.serve(Shop())
    world.serve(NewShop())
    eventually(lambda: "idle" in repr(app.lifecycle._following))
    broker.gate.clear()
    world.switch("2.0.0")
    assert broker.is_waited_for.wait(BOUND)
    head = world.store.head(deadline=time.monotonic() + BOUND)
    assert app.consumer is not None
    assert app.consumer.record.applied.gen == head.gen
    assert app.using(transport="ipc").call("shop.who") == "2.0.0"
    assert app.mirror.use("config/another/key", deadline=time.monotonic() + BOUND).gen == head.gen
    assert routed(broker) == ["1.0.0"]
    app.stop(timeout=0.0)  # nor its end
    broker.gate.set()


def test_an_event_in_hand_of_a_version_that_lost_its_route_comes_to_its_end(world: World) -> None:
    shop = Shop()
    _, old = world.serve(shop)
    _, new = world.serve(NewShop())
    request = Request(
        id="1", service="stock.changed", method="", topic="stock.changed", timeout_ms=10_000
    )
    tell = threading.Thread(target=old.publish, args=(old.home(), request))
    tell.start()
    assert shop.begun.wait(BOUND)
    world.switch("2.0.0")
    eventually(lambda: len(new.subscriptions) == 1 and routed(old) == [])
    eventually(lambda: bool(old.closed) or "idle" in repr(world.apps[0].lifecycle._following))
    assert old.closed == []  # it would go back to its queue, and be handled twice
    shop.go.set()
    tell.join(BOUND)
    eventually(lambda: len(old.closed) == 1)
    assert shop.handled == 1


def test_an_event_in_hand_is_waited_for_no_longer_than_an_end_takes(world: World) -> None:
    shop = Shop()
    app, old = world.serve(shop)
    world.serve(NewShop())
    request = Request(
        id="1", service="stock.changed", method="", topic="stock.changed", timeout_ms=10_000
    )
    tell = threading.Thread(target=old.publish, args=(old.home(), request))
    tell.start()
    assert shop.begun.wait(BOUND)
    world.switch("2.0.0")
    eventually(lambda: routed(old) == [] and "idle" in repr(app.lifecycle._following))
    app.stop(timeout=0.0)
    assert len(old.closed) == 1
    shop.go.set()
    tell.join(BOUND)


def test_pushes_and_events_that_a_broker_hands_over_once_its_worker_drains_are_not_begun(
    world: World,
) -> None:
    shop = Shop()
    app, broker = world.serve(shop)
    assert app.drain(BOUND)
    usual = {"service": "shop", "timeout_ms": 10_000}
    call = broker.call(broker.home(), Request(id="1", method="who", **usual))
    assert (call.code, call.body) == ("ok", b'"1.0.0"')  # its caller waits
    broker.send(broker.home(), Request(id="2", method="order", kind="push", **usual))
    event = Request(id="3", method="", kind="event", topic="stock.changed", **usual)
    broker.publish(broker.home(), event)
    refusal = ("unavailable", "draining", "no")
    assert [(one.code, one.reason, one.executed) for one in broker.answers] == [refusal] * 2
    assert not shop.begun.is_set()
    app.stop()
    app.start()
    answer = broker.call(broker.home(), Request(id="4", method="who", **usual))
    assert (answer.code, answer.body) == ("ok", b'"1.0.0"')


def test_what_the_registry_said_last_holds_while_it_cannot_be_read(world: World) -> None:
    world.serve(Shop())
    app, new = world.serve(NewShop())
    eventually(lambda: "idle" in repr(app.lifecycle._following))

    def fail(*args: Any, **how: Any) -> Cut:
        raise Unavailable("away")

    world.store.read = fail  # type: ignore[method-assign]
    app.mirror.drop()  # its session was lost
    app.lifecycle._intake.update()
    assert routed(new) == []
    assert new.subscriptions == []
    del world.store.read


def test_following_a_route_and_reading_the_registry_wait_for_each_other_for_no_good(
    world: World,
) -> None:
    app, _ = world.serve(Shop())
    world.serve(NewShop())
    eventually(lambda: "idle" in repr(app.lifecycle._following))
    store, looks = world.store, threading.Event()
    read = store.read

    def spy(*args: Any, **how: Any) -> Cut:
        if threading.current_thread().name == "follower":
            looks.set()
        return read(*args, **how)

    store.read = spy  # type: ignore[method-assign]
    store.gate.clear()
    world.switch("2.0.0")
    app.mirror.drop()
    reader = threading.Thread(target=app.mirror.refresh, daemon=True)
    follower = threading.Thread(target=app.lifecycle._intake.update, name="follower", daemon=True)
    reader.start()
    assert store.is_reached.wait(BOUND)
    follower.start()
    assert looks.wait(BOUND)  # and waits for the reader by now, or soon
    store.gate.set()
    for thread in (reader, follower):
        thread.join(BOUND)
        assert not thread.is_alive(), "they wait for each other"
    del store.read
