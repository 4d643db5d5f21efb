"""Endpoints are told where they are called, whatever else goes on in the registry meanwhile."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from fan import App, Service, Settings, rpc
from fan.discovery import Discovery
from fan.errors import FanError
from fan.model import Instance, Interface
from fan.stores.base import Cut
from fan.stores.memory import MemoryStore

#: A bound on hangs.
BOUND = 10.0


class Desk(Service):
    name = "desk"
    version = "1.0.0"

    @rpc
    def add(self, n: int) -> int:
        return n + 1


class Shelf(Desk):
    name = "shelf"


class Meeting(MemoryStore):
    """A registry with a `shelf` and an `other`. The route of `other` changes while a thread looks
    up the shelf, and that look-up goes on when the App's mirror tells of the change."""

    def __init__(self) -> None:
        super().__init__()
        self.told = threading.Event()
        self.looker: threading.Thread | None = None
        self.elsewhere = Discovery(lambda: self, live=False)
        for name in ("shelf", "other"):
            one = Instance(id=f"{name}-1", service=name, version="1.0.0")
            self.elsewhere.register(one, Interface(service=name, version="1.0.0"))
            self.elsewhere.adopt(name, "1.0.0")

    def read(self, objects: Any = (), **how: Any) -> Cut:
        if "route/shelf" in objects and threading.current_thread() is self.looker:
            self.looker = None
            self.told.clear()
            self.elsewhere.adopt("other", "2.0.0", force=True)
            assert self.told.wait(BOUND)
        return super().read(objects, **how)

    def close(self) -> None:
        self.elsewhere.close()
        super().close()


def test_endpoints_are_bound_while_the_mirror_tells_of_a_change_and_neither_waits() -> None:
    store = Meeting()
    app = App(Desk(), settings=Settings(), store=store)
    add = app.bind("shelf.add")
    app.mirror.listen(lambda state: store.told.set())  # ahead of the App's own
    app.start(())
    app.discovery.service("other")
    adder = store.looker = threading.Thread(target=app.add, args=(Shelf(),), daemon=True)
    adder.start()
    adder.join(BOUND)
    assert not adder.is_alive(), "the binding and the mirror wait for each other"
    assert store.looker is None
    assert add(1) == 2
    app.close()
    store.close()


def test_what_is_hosted_later_is_not_called_where_its_route_leads_elsewhere() -> None:
    with Meeting() as store, App(Desk(), settings=Settings(), store=store) as app:
        add = app.bind("shelf.add")
        app.start(())
        store.elsewhere.adopt("shelf", "2.0.0", force=True)
        app.add(Shelf())
        with pytest.raises(FanError, match=r"2\.0\.0"):
            add(1)
