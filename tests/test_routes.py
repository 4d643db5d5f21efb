"""Which way calls take: rules in code, and in the registry."""

from __future__ import annotations

import threading
import time
from typing import Any, ClassVar

import msgspec
import pytest

import fan
from fan.errors import InvalidArgument
from fan.settings import Settings
from fan.stores.base import Change, Plan
from fan.stores.memory import MemoryStore
from fan.testing.fakes import FakeBroker, RecordingTransport


class Shop(fan.Service):
    name = "shop"
    version = "1.0.0"

    @fan.rpc
    def price(self) -> str:
        return "local"

    @fan.rpc
    def stock(self) -> str:
        return "local"


@pytest.fixture
def sent() -> RecordingTransport:
    return RecordingTransport(lambda request: "recorded")


@pytest.fixture
def store() -> Any:
    with MemoryStore("routes") as store:
        yield store


@pytest.fixture
def make(store: MemoryStore, sent: RecordingTransport) -> Any:
    apps = []

    def app(*services: fan.Service, routes: Any, **more: Any) -> fan.App:
        transports = {"http": sent, **more}
        made = fan.App(*services, routes=routes, store=store, transports=transports,
                       settings=Settings(queue="database"))  # fmt: skip
        apps.append(made)
        return made

    yield app
    for one in apps:
        one.close()


def write(store: MemoryStore, key: str, value: Any) -> None:
    change = Change(object=f"config/{key}", body=msgspec.json.encode(value))
    store.commit(Plan(changes=(change,), verb="set"), deadline=time.monotonic() + 10)


def rules(**routes: Any) -> type[fan.Routes]:
    named = {name.replace("__", "."): rule for name, rule in routes.items()}
    return type("AppRoutes", (fan.Routes,), {"routes": named})


def test_a_rule_for_a_method_sends_it_elsewhere_and_leaves_the_others(make: Any) -> None:
    app = make(Shop(), routes=rules(shop__price={"type": "http", "url": "http://elsewhere"}))
    assert (app.call("shop.price"), app.call("shop.stock")) == ("recorded", "local")


def test_a_rule_for_a_service_holds_for_its_methods_and_a_methods_own_wins(make: Any) -> None:
    both = rules(shop={"type": "http", "url": "http://elsewhere"}, shop__stock={"type": "local"})
    app = make(Shop(), routes=both)
    assert (app.call("shop.price"), app.call("shop.stock")) == ("recorded", "local")


def test_what_a_call_names_itself_wins(make: Any, sent: RecordingTransport) -> None:
    app = make(Shop(), routes=rules(shop={"type": "http", "url": "http://elsewhere"}))
    assert app.using(transport="local").call("shop.price") == "local"
    app.using(peers=("http://another",)).call("shop.price")
    assert [a.url for a in sent.addresses] == ["http://another"]


def test_an_event_takes_the_way_of_its_topic(make: Any) -> None:
    broker = FakeBroker()
    app = make(routes=rules(stock__changed={"type": "fake"}), fake=broker)
    app.publish("stock.changed", 1)
    assert [r.topic for r in broker.requests] == ["stock.changed"]


def test_a_config_is_followed_live_and_has_a_default(make: Any, store: MemoryStore) -> None:
    class AppRoutes(fan.Routes):
        routes: ClassVar[Any] = {"shop.price": fan.Config("way", default={"type": "local"})}

    app = make(Shop(), routes=AppRoutes)
    price = app.bind("shop.price")
    assert price() == "local"
    changed = threading.Event()
    end = app.discovery.watch(changed.set)
    write(store, "way", {"type": "http", "url": "http://elsewhere"})
    while price() == "local":
        assert changed.wait(10.0)
        changed.clear()
    end()
    assert price() == "recorded"


def test_a_config_is_followed_though_nothing_else_changes(make: Any, store: MemoryStore) -> None:
    app = make(routes=rules(users=fan.Config("way", default={"type": "local"})))
    assert app.routes.find("users", "get").type == "local"
    changed = threading.Event()
    app.mirror.listen(lambda _: changed.set())
    for way in ("http", "local"):
        changed.clear()
        write(store, "way", {"type": way})
        assert changed.wait(10.0)
        assert app.routes.find("users", "get").type == way


def test_a_deployment_comes_before_the_keys(
    make: Any, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class AppRoutes(fan.Routes):
        deployment = "{APP_CONFIG}"
        routes: ClassVar[Any] = {"shop.price": fan.Config("way")}

    write(store, "blue/way", {"type": "http", "url": "http://elsewhere"})
    monkeypatch.setenv("APP_CONFIG", "blue")
    assert make(Shop(), routes=AppRoutes).call("shop.price") == "recorded"
    monkeypatch.setenv("APP_CONFIG", "green")
    assert make(Shop(), routes=AppRoutes).call("shop.price") == "local"


def test_a_config_that_cannot_be_meant_leaves_what_was(
    make: Any, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    write(store, "way", {"type": "pigeon"})
    app = make(Shop(), routes=rules(shop=fan.Config("way", default={"type": "local"})))
    assert app.call("shop.price") == "local"
    assert "there is no transport 'pigeon'" in caplog.text


@pytest.mark.parametrize(
    "rule", [{"type": "pigeon"}, {"typ": "http"}, 3, {"type": 4}, {"url": "pigeon://x"}]
)
def test_a_rule_that_cannot_be_meant_is_refused_at_once(make: Any, rule: Any) -> None:
    with pytest.raises(InvalidArgument, match="the route of shop is") as caught:
        make(routes=rules(shop=rule))
    assert caught.value.reason == "bad_route"


def test_a_program_with_routes_is_served_with_them(tmp_path: Any) -> None:
    (tmp_path / "routed_shop.py").write_text(
        "import fan\n\n\n"
        "class AppRoutes(fan.Routes):\n"
        '    routes = {"users": {"type": "http"}}\n'
    )
    (tmp_path / "twice_routed.py").write_text(
        "import fan\n\n\nclass A(fan.Routes):\n    pass\n\n\nclass B(fan.Routes):\n    pass\n"
    )
    (tmp_path / "not_routed.py").write_text("import fan\n")
    found = fan.load_routes(["routed_shop"], str(tmp_path))
    assert found is not None
    assert found.routes == {"users": {"type": "http"}}
    assert fan.load_routes(["not_routed"], str(tmp_path)) is None
    with pytest.raises(InvalidArgument, match="several Routes: A, B"):
        fan.load_routes(["twice_routed"], str(tmp_path))
