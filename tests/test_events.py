"""Pushes and events over a broker: who gets them, and what the handler knows of them."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

import fan
from fan.stores.memory import MemoryStore
from fan.testing.fakes import FakeBroker


class Shop(fan.Service):
    name = "shop"
    version = "1.0.0"

    def __init__(self) -> None:
        self.seen: list[Any] = []

    @fan.push(timeout=9.0)
    def order(self, item: str) -> None:
        context = fan.current()
        assert context is not None
        self.seen.append((item, round(context.remaining or 0), context.gen))
        if item == "nothing":
            raise ValueError("there is no nothing")

    @fan.subscribe("stock.changed")
    @fan.subscribe("stock.counted", broadcast=True)
    async def restock(self, item: str, count: int = 0) -> None:
        context = fan.current()
        assert context is not None
        assert context.request is not None
        self.seen.append((context.request.topic, item, count))


class NewShop(Shop):
    version = "2.0.0"


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def make(broker: FakeBroker) -> Any:
    store, apps = MemoryStore("events"), []

    def app(*services: fan.Service) -> fan.App:
        settings = fan.Settings(queue="fake")
        made = fan.App(*services, settings=settings, store=store, transports={"fake": broker})
        apps.append(made)
        return made

    yield app
    for one in apps:
        one.close()
    store.close()


def test_a_service_that_takes_pushes_is_served_over_the_queue_of_the_settings(
    make: Any, broker: FakeBroker
) -> None:
    app = make(Shop())
    app.start(())
    (instance,) = app.lifecycle.instances
    assert [a.url for a in instance.addresses] == ["fake:broker"]
    (served,) = broker.served
    assert (served.service, served.version, served.is_routed) == ("shop", "1.0.0", True)
    assert served.idempotent == {"health", "info", "stats"}


def test_a_queued_push_is_handled_before_it_is_answered_and_has_a_time_of_its_own(
    make: Any, broker: FakeBroker
) -> None:
    shop = Shop()
    make(shop).start(())
    make().using(transport="fake", timeout=4.0).push("shop.order", item="apple")
    assert shop.seen == [("apple", 9, 0)]
    assert [answer.code for answer in broker.answers] == ["ok"]


def test_a_queued_push_that_fails_says_so_to_the_queue(make: Any, broker: FakeBroker) -> None:
    make(Shop()).start(())
    make().using(transport="fake").push("shop.order", item="nothing")
    assert [(a.code, a.executed) for a in broker.answers] == [("unknown", "yes")]


def test_a_push_to_a_service_that_is_down_waits_in_its_queue(make: Any, broker: FakeBroker) -> None:
    app = make(Shop())
    app.start(())
    app.stop()
    broker.call = lambda address, request, **_: broker.requests.append(request)  # type: ignore
    make().using(transport="fake").push("shop.health")
    make().push("shop.order", item="apple")  # meant to be pushed: it needs no telling where
    assert [r.method for r in broker.requests] == ["health", "order"]
    with pytest.raises(fan.Unavailable):
        make().push("shop.health")


def test_an_event_reaches_who_subscribed_sync_and_async(make: Any, broker: FakeBroker) -> None:
    shop = Shop()
    make(shop).start(())
    caller = make()
    caller.publish("stock.changed", item="apple", count=3)
    asyncio.run(caller.apublish("stock.counted", "pear"))
    caller.publish("nobody.listens", "pear")
    for answer in broker.answers:
        answer.result(10.0)
    assert shop.seen == [("stock.changed", "apple", 3), ("stock.counted", "pear", 0)]
    assert {s.group for s in broker.subscriptions} == {"shop", ""}


def test_only_the_routed_version_takes_pushes_and_events(make: Any, broker: FakeBroker) -> None:
    old, shop = make(Shop()), NewShop()
    new = make(shop)

    def took() -> list[tuple[str, bool]]:
        return [(s.version, s.is_routed) for s in broker.served]

    old.start(())
    new.start(())
    assert _until(lambda: took() == [("2.0.0", False)], new)
    assert len(broker.subscriptions) == 2
    old.close()
    assert broker.subscriptions == []
    new.discovery.adopt("shop", "2.0.0", force=True)
    assert _until(lambda: len(broker.subscriptions) == 2, new)
    assert _until(lambda: took() == [("2.0.0", True)], new)


def test_a_call_over_a_broker_names_the_version_and_no_instance(
    make: Any, broker: FakeBroker
) -> None:
    make(Shop()).start(())
    caller = make()
    assert caller.call("shop.health") == "ok"
    instance = caller.discovery.service("shop").instances[0].id
    caller.using(instance=instance).call("shop.health")
    first, second = broker.requests
    assert (first.want, first.instance) == ("1.0.0", "")
    assert (second.want, second.instance) == ("1.0.0", instance)


def test_a_function_hears_of_a_topic_until_it_is_closed(make: Any, broker: FakeBroker) -> None:
    app, heard = make(), []

    def hear(*args: Any, **kwargs: Any) -> None:
        context = fan.current()
        assert context is not None
        heard.append((args, kwargs, dict(context.headers)))

    with app.subscribe("stock.changed", hear):
        app.using(headers={"x-one": "1"}).publish("stock.changed", 1, n=2)
    app.publish("stock.changed", 2)
    assert heard == [((1,), {"n": 2}, {"x-one": "1"})]


def test_what_a_draining_subscriber_is_given_goes_back_unhandled(
    make: Any, broker: FakeBroker
) -> None:
    app = make()
    heard: list[int] = []
    with app.subscribe("stock.changed", heard.append) as subscriber:
        app.publish("stock.changed", 1)
        subscriber.drain()
        app.publish("stock.changed", 2)
    refused = broker.answers[-1]
    assert heard == [1]
    assert (refused.code, refused.reason, refused.executed) == ("unavailable", "draining", "no")


def test_where_a_push_would_go_is_told_without_sending_it(make: Any, broker: FakeBroker) -> None:
    make(Shop()).start(("fake",))
    client = make().client
    choice = client.resolve("shop", "order", kind="push")
    assert (choice.address.url, choice.instance) == ("fake:broker", None)
    assert choice.why
    assert broker.requests == []


def test_the_interface_tells_what_a_method_subscribes_to(make: Any) -> None:
    make(Shop()).start(())
    interface = make().discovery.service("shop").interface_for()
    assert interface is not None
    restock, order = interface.method("restock"), interface.method("order")
    assert restock is not None
    assert order is not None
    assert restock.topics == ("stock.counted/", "stock.changed/shop")
    assert order.is_push


@pytest.mark.parametrize("topic", ["", "a b", "a..b", "x" * 300])
def test_what_is_no_topic_is_refused_at_once(make: Any, topic: str) -> None:
    app = make()
    with pytest.raises(ValueError, match="no topic"):
        app.publish(topic)
    with pytest.raises(ValueError, match="no topic"):
        app.subscribe(topic, print)
    with pytest.raises(ValueError, match="no topic"):
        fan.subscribe(topic)


@pytest.mark.parametrize("text", ["shop", "shop@1.0.0", "stock.changed/shop"])
def test_a_queue_has_one_name_on_every_broker(text: str) -> None:
    assert str(fan.QueueName.parse(text)) == text


@pytest.mark.parametrize("text", ["", "shop@", "@1", "a/", "/b"])
def test_what_is_no_queue_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no queue"):
        fan.QueueName.parse(text)


def _until(is_so: Any, app: fan.App) -> bool:
    """Whether it comes true. What an App does behind a change tells nobody when it is done."""
    changed, patience = threading.Event(), time.monotonic() + 10.0
    end = app.discovery.watch(changed.set)
    try:
        while not is_so() and time.monotonic() < patience:
            changed.wait(0.01)
    finally:
        end()
    return bool(is_so())
