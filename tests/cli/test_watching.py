"""What is watched goes on over a registry that cannot be read for a moment."""

from __future__ import annotations

from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from fan import App, Settings, Unavailable
from fan.discovery import Discovery
from fan.model import Instance, Interface
from fancli.watching import _Teller, listings
from tests.shaky import Shaky


@pytest.fixture
def store() -> Iterator[Shaky]:
    with Shaky() as store:
        yield store


@pytest.fixture
def app(store: Shaky) -> Iterator[App]:
    with App(settings=Settings(), store=store, live=False) as app:
        yield app


def register(store: Shaky, service: str) -> None:
    one = Instance(id=f"{service}-1", service=service, version="1.0.0")
    interface = Interface(service=service, version="1.0.0")
    discovery = Discovery(lambda: store, live=False)
    discovery.register(one, interface, is_lasting=True)
    discovery.close()


def test_events_go_on_where_a_look_at_the_registry_failed(store: Shaky, app: App) -> None:
    news: SimpleQueue[Any] = SimpleQueue()
    register(store, "a")
    news.put(("look", None))
    events = _Teller(app, "", False).events(news, False)
    assert [next(events)["event"] for _ in range(2)] == ["present", "present"]
    register(store, "b")
    store.failing += ["list"] * 2
    news.put(("look", None))
    assert {(event := next(events))["event"], event["service"]} == {"came", "b"}
    assert not store.failing


def test_a_listing_goes_on_where_a_look_at_the_registry_failed(store: Shaky, app: App) -> None:
    changes: SimpleQueue[None] = SimpleQueue()
    changes.put(None)
    found = listings(app, changes)
    assert next(found) == []
    register(store, "a")
    store.failing += ["list"] * 2
    changes.put(None)
    assert [info.name for info in next(found)] == ["a"]
    assert not store.failing


def test_a_registry_that_could_never_be_read_is_a_failure(store: Shaky, app: App) -> None:
    news: SimpleQueue[Any] = SimpleQueue()
    changes: SimpleQueue[None] = SimpleQueue()
    store.failing += ["list"] * 2
    news.put(("look", None))
    changes.put(None)
    with pytest.raises(Unavailable):
        next(_Teller(app, "", False).events(news, False))
    with pytest.raises(Unavailable):
        next(listings(app, changes))
