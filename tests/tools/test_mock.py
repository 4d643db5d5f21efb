"""Stand-ins: their answers, the arguments that they refuse, and what is wrong with them."""

from __future__ import annotations

import datetime
import decimal
import enum
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import msgspec
import pytest

from fan import App, InvalidArgument, Service, Settings, Trouble, Unavailable, Unknown, rpc
from fan.errors import DeadlineExceeded, FailedPrecondition, NotFound, RemoteError
from fan.interface import interface_of
from fan.stores.memory import MemoryStore
from fan.tools.mock import mock_recorded, mock_samples, mock_service, sample, type_of
from fan.tools.replay import Recorded


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Item(msgspec.Struct):
    name: str
    price: decimal.Decimal
    at: Annotated[datetime.datetime, msgspec.Meta(tz=True)]
    tags: list[str] = []
    inside: "Item | None" = None  # noqa: UP037  a forward reference


class Shop(Service):
    """The real one."""

    name = "shop"
    version = "2.1.0"

    @rpc
    def find(self, name: str, limit: int = 10, *, colour: Colour = Colour.RED) -> list[Item]:
        """Find items."""
        raise NotImplementedError

    @rpc
    def add(self, item: Item, prices: dict[str, float] | None = None) -> bool:
        raise NotImplementedError

    @rpc
    def ticks(self, n: int) -> Iterator[int]:
        raise NotImplementedError
        yield 1


SHOP = interface_of(Shop())


@pytest.fixture
def hosted() -> Iterator[Callable[[Service], App]]:
    apps: list[App] = []
    store = MemoryStore("test")

    def host(service: Service) -> App:
        apps.append(App(service, settings=Settings(retries=0, breaker_failures=0), store=store))
        return apps[-1]

    yield host
    for app in apps:
        app.close()
    store.close()


Hosted = Callable[[Service], App]


def test_it_answers_what_it_is_told_to(hosted: Hosted) -> None:
    app = hosted(mock_service("a.b", "1.0.0", {"c": lambda args, kwargs: {"args": list(args)}}))
    assert app.call("a.b.c", 1, 2) == {"args": [1, 2]}
    assert app.call("a.b.c", x=1) == {"args": []}
    assert app.call("a.b.health") == "ok"


def test_with_the_real_interface_it_is_registered_as_that_and_checks_arguments(
    hosted: Hosted,
) -> None:
    service = mock_samples(SHOP, SHOP.methods)
    assert interface_of(service) is SHOP
    app = hosted(service)
    assert len(app.call("shop.find", name="x", colour="blue")) == 1
    for arguments in ({}, {"name": 3}, {"name": "x", "colour": "pink"}, {"name": "x", "y": 1}):
        with pytest.raises(InvalidArgument):
            app.using(transport="local").request(
                "shop", "find", "application/json", msgspec.json.encode(arguments)
            )


def test_samples_fit_the_types_that_the_real_one_returns(hosted: Hosted) -> None:
    app = hosted(mock_samples(SHOP, SHOP.methods))
    (item,) = msgspec.convert(app.call("shop.find", name="x"), list[Item], strict=True)
    assert item.inside is None or isinstance(item.inside, Item)
    assert list(app.stream("shop.ticks", n=1)) == [0, 0, 0]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (str, "text"), (int, 0), (float, 0), (bool, False), (None, None), (Colour, "blue"),
        (list[int], [0]), (dict[str, int], {}), (int | None, 0), (tuple[int, str], [0, "text"]),
    ],
)  # fmt: skip
def test_a_sample_of_a_type(kind: Any, value: Any) -> None:
    schema = msgspec.json.schema(kind)
    assert sample(schema, {}) == value
    msgspec.convert(sample(schema, {}), kind)


def test_a_type_that_holds_itself_ends() -> None:
    assert sample(msgspec.json.schema(Item), {})["name"] == "text"
    assert type_of({"$ref": "#/$defs/x"}, {"x": {"$ref": "#/$defs/x"}}) is Any


def test_trouble_is_late_and_fails_as_often_as_it_is_told(hosted: Hosted) -> None:
    answers = {"c": lambda args, kwargs: 1}
    late = hosted(mock_service("late", "1", answers, trouble=Trouble(delay=0.05)))
    began = time.monotonic()
    assert late.call("late.c") == 1
    assert time.monotonic() - began >= 0.05
    with pytest.raises(DeadlineExceeded):
        hosted(mock_service("later", "1", answers, trouble=Trouble(delay=50.0))).using(
            timeout=0.05, transport="local"
        ).request("later", "c", "application/json", b"")
    broken = hosted(mock_service("broken", "1", answers, trouble=Trouble(code="unavailable")))
    with pytest.raises(Unavailable):
        broken.call("broken.c")
    rare = hosted(mock_service("rare", "1", answers, trouble=Trouble(code="unknown", rate=0.5)))
    outcomes = set()
    for _ in range(200):  # all alike once in 2**199 times
        try:
            outcomes.add(rare.call("rare.c"))
        except Unknown:
            outcomes.add("failed")
    assert outcomes == {1, "failed"}


def recorded(method: str, body: Any, **reply: Any) -> Recorded:
    raw = msgspec.Raw(msgspec.json.encode(body))
    return Recorded(v=1, target=f"shop.{method}", body=raw, reply=reply)


def fails(code: str, **more: Any) -> dict[str, Any]:
    return {"ok": False, "error": {"code": code, "message": "no", **more}}


CALLS = [
    recorded("find", {"name": "a"}, ok=True, result=[1]),
    recorded("find", ["b"], ok=True, result=[2]),
    recorded("find", {"name": "b"}, ok=True, result=[3]),
    recorded("find", {"name": "gone"}, **fails("not_found", reason="no_item", details={"x": 1})),
    recorded("find", {"name": "odd"}, **fails("unknown", type="KeyError")),
    recorded("find", {"nom": "a"}, **fails("invalid_argument")),
    recorded("ticks", {"n": 2}, ok=True, kind="end", result=[7, 8]),
]


def test_a_recorded_call_is_answered_by_its_arguments(hosted: Hosted) -> None:
    app = hosted(mock_recorded("shop", "2.1.0", CALLS, interface=SHOP))
    assert app.call("shop.find", name="a") == [1]
    assert app.call("shop.find", "a", limit=10) == [1], "a default is as good as its value"
    found = [app.call("shop.find", name="b") for _ in range(3)]
    assert found == [[2], [3], [3]], "in order, and the last from then on"
    assert list(app.stream("shop.ticks", n=2)) == [7, 8]


def test_a_recorded_failure_fails_again(hosted: Hosted) -> None:
    app = hosted(mock_recorded("shop", "2.1.0", CALLS, interface=SHOP))
    with pytest.raises(NotFound) as failure:
        app.call("shop.find", name="gone")
    assert (failure.value.reason, failure.value.details) == ("no_item", {"x": 1})
    with pytest.raises(RemoteError) as odd:
        app.call("shop.find", name="odd")
    assert odd.value.type == "KeyError"
    with pytest.raises(InvalidArgument):
        app.call("shop.find", nom="a")
    with pytest.raises(FailedPrecondition, match="not recorded"):
        app.call("shop.find", name="never")


def test_without_an_interface_a_recording_is_answered_as_it_was_asked(hosted: Hosted) -> None:
    service = mock_recorded("shop", "3", CALLS)
    app = hosted(service)
    assert app.call("shop.find", name="a") == [1]
    assert app.call("shop.find", "b") == [2]
    assert list(app.stream("shop.ticks", n=2)) == [7, 8]
    assert {m.name for m in interface_of(service).methods} > {"find", "ticks"}
