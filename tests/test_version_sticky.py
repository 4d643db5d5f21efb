"""What calls stick to a version by, as the route says; and what happens to calls at a switch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import fan
from tests.configs import PATIENCE, STORES, another, make_store


class Shop(fan.Service):
    name = "shop"
    version = "1.0.0"

    @fan.rpc
    def who(self) -> str:
        return self.version


class NewShop(Shop):
    version = "2.0.0"


class Front(fan.Service):
    name = "front"
    version = "1.0.0"

    @fan.rpc
    def ask(self) -> str:
        found: str = self.app.call("shop.who")
        return found


@pytest.fixture(params=STORES)
def app(request: pytest.FixtureRequest, private: Path) -> Iterator[fan.App]:
    """A caller of `shop`, which is half at 1.0.0 and half at 2.0.0."""
    with ExitStack() as stack:
        store = stack.enter_context(make_store(request, private))

        def make(*services: fan.Service) -> fan.App:
            settings = fan.Settings(runtime_dir=str(private / "run"), timeout=PATIENCE)
            own = stack.enter_context(another(store))
            return stack.enter_context(fan.App(*services, settings=settings, store=own))

        for service in (Shop(), NewShop(), Front()):
            make(service).start()
        caller = make()
        caller.versions.switch({"shop": "2.0.0"}, weights={"2.0.0": 5_000})
        yield caller


USERS = [str(number) for number in range(16)]

BY: dict[str, Callable[[fan.App, str], Any]] = {
    "header:x-user": lambda app, user: app.using(headers={"X-User": user}),
    "baggage:user": lambda app, user: app.using(baggage={"user": user}),
    "principal": lambda app, user: app.using(principal=user),
}


@pytest.mark.parametrize("sticky", BY)
def test_a_user_stays_with_one_version(app: fan.App, sticky: str) -> None:
    app.versions.switch({"shop": "2.0.0"}, weights={"2.0.0": 5_000}, sticky=sticky)
    seen = {user: {BY[sticky](app, user).call("shop.who") for _ in range(4)} for user in USERS}
    assert {len(versions) for versions in seen.values()} == {1}
    assert set.union(*seen.values()) == {"1.0.0", "2.0.0"}


@pytest.mark.parametrize("sticky", BY)
def test_the_user_of_a_call_tree_is_that_of_its_entry(app: fan.App, sticky: str) -> None:
    app.versions.switch({"shop": "2.0.0"}, weights={"2.0.0": 5_000}, sticky=sticky)
    for user in USERS:
        via = BY[sticky](app, user)
        assert via.call("front.ask") == via.call("shop.who")


def test_who_has_no_user_goes_by_the_trace(app: fan.App) -> None:
    app.versions.switch({"shop": "2.0.0"}, weights={"2.0.0": 5_000}, sticky="header:x-user")
    assert {app.call("shop.who") for _ in range(64)} == {"1.0.0", "2.0.0"}


def test_a_canary_that_grows_takes_nobody_back(app: fan.App) -> None:
    app.versions.switch({"shop": "2.0.0"}, weights={"2.0.0": 500}, sticky="header:x-user")
    users = [str(number) for number in range(400)]
    on_canary: list[set[str]] = []
    for weight in (500, 1_000, 5_000, 1_000, 500, 0):
        app.versions.weight("shop", {"2.0.0": weight})
        now = {u for u in users if app.using(headers={"x-user": u}).call("shop.who") == "2.0.0"}
        on_canary.append(now)
    five, ten, half, ten_again, five_again, none = on_canary
    assert five < ten < half
    assert (ten_again, five_again, none) == (ten, five, set())


@pytest.mark.parametrize("app", ["memory"], indirect=True)  # soak/test_switches has the others
def test_no_call_fails_while_versions_are_switched_and_rolled_back(app: fan.App) -> None:
    stop = threading.Event()
    failures: list[BaseException] = []
    seen: set[str] = set()

    def load() -> None:
        while not stop.is_set():
            try:
                seen.add(app.using(transport="ipc").call("shop.who"))
            except fan.FanError as exc:
                failures.append(exc)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(25):
        app.versions.switch({"shop": "1.0.0"})
        app.versions.switch({"shop": "2.0.0"})
        app.versions.rollback()
    stop.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert failures == []
    assert seen == {"1.0.0", "2.0.0"}
