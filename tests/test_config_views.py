"""Configs in a running App: at hand, kept fresh, typed, and in layers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fan import App, Configs, InvalidArgument, Unavailable
from fan.stores.base import Store
from tests.configs import PATIENCE, STORES, another, make_store


class Database(msgspec.Struct, frozen=True):
    host: str = "localhost"
    port: int = 5432


class Orders(msgspec.Struct, frozen=True):
    theme: str = "light"
    limit: int = 10
    db: Database = Database()


@dataclass
class Plain:
    theme: str = "light"
    tags: list[str] = field(default_factory=list)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, private: Path) -> Iterator[Store]:
    with make_store(request, private) as store:
        yield store


@pytest.fixture
def app(store: Store) -> Iterator[App]:
    with App(store=store) as app:
        yield app


@pytest.fixture
def elsewhere(store: Store) -> Iterator[Configs]:
    """The configs as another process changes them."""
    with another(store) as mine:
        yield Configs(lambda: mine, live=False)


def eventually(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.002)


def test_a_change_from_elsewhere_arrives(app: App, elsewhere: Configs) -> None:
    elsewhere.set("orders/theme", "dark")
    assert app.config["orders/theme"] == "dark"
    elsewhere.set("orders/theme", "blue")
    eventually(lambda: app.config["orders/theme"] == "blue")
    elsewhere.delete("orders/theme")
    eventually(lambda: "orders/theme" not in app.config)


def test_who_wrote_reads_what_was_written(app: App) -> None:
    for number in range(20):
        app.config.set("k", number)
        assert app.config["k"] == number


def test_what_is_in_use_stays_at_hand_while_the_registry_is_away(store: Store) -> None:
    is_away = threading.Event()

    def open() -> Store:
        if is_away.is_set():
            raise Unavailable("away", reason="connect_failed")
        return store

    config = Configs(open)
    try:
        config.set("k", 1)
        assert config["k"] == 1
        assert "missing" not in config
        is_away.set()
        assert config["k"] == 1
        assert "missing" not in config
        with pytest.raises(Unavailable):
            config["another"]
    finally:
        config.close()


def test_keys_that_change_together_are_seen_together(app: App, elsewhere: Configs) -> None:
    elsewhere.apply({"k/a": 0, "k/b": 0})
    app.config.values("k/")
    is_over = threading.Event()
    torn: list[Any] = []

    def poll() -> None:
        while not is_over.is_set():
            values = app.config.values("k/")
            if values["k/a"] != values["k/b"]:
                torn.append(dict(values))

    poller = threading.Thread(target=poll)
    poller.start()
    for number in range(1, 200):
        elsewhere.apply({"k/a": number, "k/b": number})
    eventually(lambda: app.config["k/a"] == elsewhere["k/a"])
    is_over.set()
    poller.join(PATIENCE)
    assert torn == []


def test_settings_are_filled_and_follow(app: App, elsewhere: Configs) -> None:
    elsewhere.apply({"orders/theme": "dark", "orders/db/port": 1})
    heard: list[Orders] = []
    view = app.config.bind("orders", Orders, heard.append)
    assert view.value == Orders("dark", 10, Database("localhost", 1))
    elsewhere.set("orders/limit", 3)
    eventually(lambda: view.value.limit == 3)
    eventually(lambda: bool(heard))
    assert heard == [Orders("dark", 3, Database("localhost", 1))]


def test_a_dataclass_will_do(app: App) -> None:
    app.config.apply({"orders": {"theme": "blue", "tags": ["a"]}})
    assert app.config.bind("orders", Plain).value == Plain("blue", ["a"])


def test_a_config_of_its_own_wins_over_a_member_of_the_document(app: App) -> None:
    app.config.apply(
        {"orders": {"theme": "blue", "db": {"host": "a", "port": 1}}, "orders/db/host": "b"}
    )
    assert app.config.bind("orders", Orders).value == Orders("blue", 10, Database("b", 1))


def test_an_invalid_change_leaves_the_last_good_value(app: App, elsewhere: Configs) -> None:
    elsewhere.set("orders/limit", 3)
    heard: list[Orders] = []
    view = app.config.bind("orders", Orders, heard.append)
    elsewhere.set("orders/limit", "many")
    eventually(lambda: view.error is not None)
    assert view.value.limit == 3
    assert "$.limit" in str(view.error)
    elsewhere.set("orders/limit", 4)
    eventually(lambda: view.value.limit == 4)
    assert view.error is None
    eventually(lambda: bool(heard))
    assert [each.limit for each in heard] == [4]


def test_settings_that_never_were_valid_are_an_error(app: App) -> None:
    app.config.set("orders/limit", "many")
    with pytest.raises(InvalidArgument, match="do not fit Orders"):
        app.config.bind("orders", Orders)


def test_a_callback_that_fails_harms_nobody(app: App) -> None:
    def fail(_: Orders) -> None:
        raise ValueError("no")

    heard: list[Orders] = []
    app.config.bind("orders", Orders, fail)
    app.config.bind("orders", Orders, heard.append)
    app.config.set("orders/limit", 1)
    eventually(lambda: bool(heard))
    assert heard[0].limit == 1


def test_a_closed_view_keeps_its_value(app: App) -> None:
    view = app.config.bind("orders", Orders)
    view.close()
    app.config.set("orders/limit", 1)
    assert view.value.limit == 10


def test_a_view_hears_of_a_change_that_another_reading_brought(
    app: App, elsewhere: Configs
) -> None:
    view = app.config.bind("orders", Orders)
    for number in range(50):
        elsewhere.set("orders/limit", number)
        app.config.get(f"other/{number}")  # reads all that is in use anew
    eventually(lambda: view.value.limit == 49)


def test_the_environment_wins_over_the_registry_and_that_over_defaults(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.config.defaults["orders/limit"] = 1
    assert app.config["orders/limit"] == 1
    view = app.config.bind("orders", Orders)
    assert view.value.limit == 1
    app.config.set("orders/limit", 2)
    assert (app.config["orders/limit"], view.value.limit) == (2, 2)
    monkeypatch.setenv("FAN_CONFIG_ORDERS_LIMIT", "3")
    monkeypatch.setenv("FAN_CONFIG_ORDERS_DB_HOST", "here")
    assert app.config["orders/limit"] == 3
    assert app.config.bind("orders", Orders).value == Orders("light", 3, Database("here", 5432))


def test_a_variable_is_read_as_the_type_of_what_it_replaces(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.config.apply({"text": "1", "number": 1, "list": [1]})
    for name, text in {"TEXT": "5", "NUMBER": "5", "LIST": "[5]", "NEW": "5"}.items():
        monkeypatch.setenv(f"FAN_CONFIG_{name}", text)
    found = [app.config[key] for key in ("text", "number", "list", "new")]
    assert found == ["5", 5, [5], "5"]


def test_an_app_that_is_not_live_reads_what_is_there(store: Store, elsewhere: Configs) -> None:
    with App(store=store, live=False) as app:
        elsewhere.set("orders/limit", 1)
        assert app.config["orders/limit"] == 1
        view = app.config.bind("orders", Orders)
        elsewhere.set("orders/limit", 2)
        assert (app.config["orders/limit"], view.value.limit) == (2, 1)


def test_a_damaged_config_hides_no_other(app: App, elsewhere: Configs, store: Store) -> None:
    from fan.stores.base import Change, Plan

    elsewhere.set("orders/limit", 1)
    view = app.config.bind("orders", Orders)
    plan = Plan(changes=(Change(object="config/orders/theme", body=b"{"),), verb="set")
    store.commit(plan, deadline=time.monotonic() + PATIENCE)
    elsewhere.set("orders/limit", 2)
    eventually(lambda: view.value.limit == 2)
