"""How a service is declared: names, `@rpc` in its forms, inheritance, what is registered of it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar

import msgspec
import pytest

from fan import Service, rpc
from fan.errors import FanError, InvalidArgument
from fan.interface import interface_of
from fan.service import method_names, method_table, service_name


class Item(msgspec.Struct):
    name: str
    price: float = 0.0


class SoldOut(FanError):
    type = "shop.sold_out"
    code = "failed_precondition"


class Shop(Service):
    """Sells things.

    More about it.
    """

    name = "shop"
    version = "1.2.3"
    depend: ClassVar[Any] = {"hard": ["users"], "soft": {"mail": ">=2"}}

    @rpc
    def buy(self, item: Item, amount: int = 1, *, gift: bool = False) -> Item:
        """Buy something."""
        return item

    @rpc()
    def look(self, *names: str, **filters: int) -> list[str]:
        return list(names)

    @rpc("sell-back")
    def sell_back(self, since: dt.date | None = None) -> None: ...

    @rpc(idempotent=True, timeout=1.5, raises=[SoldOut, KeyError], dedupe="shared")
    async def stock(self) -> dict[str, int]:
        return {}

    @rpc
    def each(self) -> Iterator[Item]:
        yield Item("tea")

    @rpc
    async def each_async(self) -> AsyncIterator[int]:
        yield 1

    def helper(self) -> None: ...


BUILT_IN = {"health", "info", "stats"}


def test_only_marked_methods_and_the_built_in_ones_are_in_the_table() -> None:
    own = {"buy", "look", "sell-back", "stock", "each", "each_async"}
    assert set(method_table(Shop())) == own | BUILT_IN


def test_what_is_built_in_is_described_by_its_first_line() -> None:
    built_in = [each for each in interface_of(Shop()).methods if each.name in BUILT_IN]
    assert len(built_in) == len(BUILT_IN)
    for method in built_in:
        assert method.doc.partition("\n")[0].endswith("."), method.name


def test_rpc_keeps_the_method_usable_in_python() -> None:
    assert Shop().look("a", "b") == ["a", "b"]


def test_the_options_of_rpc_are_kept() -> None:
    stock = method_table(Shop())["stock"]
    assert (stock.is_idempotent, stock.timeout, stock.dedupe) == (True, 1.5, "shared")
    assert stock.raises == (SoldOut, KeyError)


def test_options_default_to_nothing_promised() -> None:
    buy = method_table(Shop())["buy"]
    assert (buy.is_idempotent, buy.timeout, buy.raises, buy.dedupe) == (False, None, (), "memory")


@pytest.mark.parametrize(
    ("method", "kind", "is_stream"),
    [
        ("buy", "plain", False),
        ("stock", "async", False),
        ("each", "stream", True),
        ("each_async", "async_stream", True),
    ],
)
def test_the_kind_of_a_method_is_seen(method: str, kind: str, is_stream: bool) -> None:
    found = method_table(Shop())[method]
    assert (found.kind, found.is_stream) == (kind, is_stream)


def test_a_subclass_inherits_methods_and_may_override_them() -> None:
    class Outlet(Shop):
        name = "outlet"

        def buy(self, item: Item, amount: int = 1, *, gift: bool = False) -> Item:
            return Item("cheap")

        @rpc
        def haggle(self) -> str:
            return "no"

    table = method_table(Outlet())
    assert {"buy", "haggle", "stock"} <= set(table)
    assert table["buy"].fn(Item("tea")) == Item("cheap")
    assert table["stock"].timeout == 1.5


def test_an_override_with_rpc_has_options_of_its_own() -> None:
    class Outlet(Shop):
        @rpc(timeout=9.0)
        async def stock(self) -> dict[str, int]:
            return {"all": 0}

    stock = method_table(Outlet())["stock"]
    assert (stock.timeout, stock.is_idempotent) == (9.0, False)


def test_a_renamed_method_is_overridden_under_its_name() -> None:
    class Outlet(Shop):
        def sell_back(self, since: dt.date | None = None) -> None: ...

    assert "sell-back" in method_names(Outlet)
    assert "sell_back" not in method_names(Outlet)


def test_a_method_from_a_mixin_is_callable() -> None:
    class Pinging:
        @rpc
        def ping(self) -> str:
            return "pong"

    class Both(Pinging, Service):
        name = "both"

    assert method_table(Both())["ping"].fn() == "pong"


@pytest.mark.parametrize("name", ["a", "a.b.c", "tree-1.sub_2", "A9", ["nested", "tree"]])
def test_a_name_may_be_nested(name: Any) -> None:
    cls = type("Named", (Service,), {"name": name})
    assert service_name(cls) == (name if isinstance(name, str) else ".".join(name))


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a..b", ".a", "a.", "1a", "ä", "a/b", "x" * 300, None, 7]
)
def test_a_name_that_cannot_be_called_is_refused(name: Any) -> None:
    cls = type("Named", (Service,), {"name": name})
    with pytest.raises(ValueError, match="name"):
        service_name(cls)


@pytest.mark.parametrize("name", ["_private", "__init__", "a b", "1", "a.b"])
def test_a_method_name_that_cannot_be_called_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="method name"):
        rpc(name)


@pytest.mark.parametrize("version", ["", "one", "1.2.x", None])
def test_a_version_that_is_none_is_refused(version: Any) -> None:
    cls = type("Named", (Service,), {"name": "named", "version": version})
    with pytest.raises(ValueError, match="PEP 440"):
        interface_of(cls())


@pytest.mark.parametrize("name", ["_private", "__init__", "service_start", "service_stop"])
def test_a_private_method_or_a_hook_cannot_be_marked(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        method_table(type("Named", (Service,), {"name": "named", name: rpc(_nothing)})())
    with pytest.raises(ValueError, match="service_stop"):
        method_table(type("Named", (Service,), {"service_stop": rpc("end")(_nothing)})())


def _nothing(self: Any) -> None:
    """What a method of a class made by hand does."""


def test_two_methods_of_one_class_cannot_share_a_name() -> None:
    class Twins(Service):
        @rpc("same")
        def one(self) -> int:
            return 1

        @rpc("same")
        def other(self) -> int:
            return 2

    with pytest.raises(ValueError, match="two methods that are called 'same'"):
        method_table(Twins())


def test_static_and_class_methods_are_callable() -> None:
    class Tools(Service):
        @staticmethod
        @rpc
        def below(n: int) -> int:
            return n

        @rpc
        @staticmethod
        def above(n: int) -> int:
            return n

        @classmethod
        @rpc
        def of_class(cls, n: int) -> str:
            return f"{cls.__name__} {n}"

    table = method_table(Tools())
    assert [table[name].fn(1) for name in ("below", "above")] == [1, 1]
    assert table["of_class"].fn(1) == "Tools 1"


def test_a_place_for_replies_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="disk"):
        rpc(dedupe="disk")


def test_methods_called_log_and_name_can_be_declared() -> None:
    class Awkward(Service):
        name = "awkward"

        @rpc
        def log(self, text: str) -> str:
            return text

        @rpc("name")
        def its_name(self) -> str:
            return "x"

        @rpc
        def call(self) -> str:
            return "call"

    assert {"log", "name", "call"} <= set(method_table(Awkward()))


def test_the_interface_names_docs_and_dependencies() -> None:
    interface = interface_of(Shop())
    assert (interface.service, interface.version) == ("shop", "1.2.3")
    assert interface.doc == "Sells things.\n\nMore about it."
    assert interface.depend == {"hard": {"users": ""}, "soft": {"mail": ">=2"}}
    buy = interface.method("buy")
    assert buy is not None
    assert buy.doc == "Buy something."


def test_a_dependency_of_an_unknown_strength_is_refused() -> None:
    cls = type("Named", (Service,), {"name": "named", "depend": {"firm": ["users"]}})
    with pytest.raises(ValueError, match="firm"):
        interface_of(cls())


@pytest.mark.parametrize(
    "depend",
    [
        "users",
        {"hard": "users"},
        {"hard": 1},
        {"soft": {"mail": "banana"}},
        {"soft": {"mail": 2}},
        {"soft": [2]},
    ],
)
def test_a_dependency_that_makes_no_sense_is_refused(depend: Any) -> None:
    cls = type("Named", (Service,), {"name": "named", "depend": depend})
    with pytest.raises(ValueError, match="named: depend"):
        interface_of(cls())


def test_a_plain_list_of_dependencies_is_hard() -> None:
    cls = type("Named", (Service,), {"name": "named", "depend": ["users"]})
    assert interface_of(cls()).depend == {"hard": {"users": ""}}


def test_the_interface_has_the_schema_of_each_parameter() -> None:
    buy = interface_of(Shop()).method("buy")
    assert buy is not None
    item, amount, gift = buy.params
    assert (item.name, item.required, item.kind) == ("item", True, "positional_or_keyword")
    assert item.schema == {"$ref": "#/$defs/Item"}
    assert buy.definitions["Item"]["properties"]["price"] == {"type": "number", "default": 0.0}
    assert (amount.schema, amount.required, amount.default) == ({"type": "integer"}, False, 1)
    assert (gift.kind, gift.default) == ("keyword_only", False)
    assert buy.returns == {"$ref": "#/$defs/Item"}


def test_the_schema_of_a_stream_is_that_of_its_items() -> None:
    interface = interface_of(Shop())
    each, each_async = interface.method("each"), interface.method("each_async")
    assert each is not None
    assert each_async is not None
    assert each.is_stream
    assert each.returns == {"$ref": "#/$defs/Item"}
    assert each_async.returns == {"type": "integer"}


def test_var_parameters_are_described() -> None:
    look = interface_of(Shop()).method("look")
    assert look is not None
    assert [(p.name, p.kind, p.required) for p in look.params] == [
        ("names", "var_positional", False),
        ("filters", "var_keyword", False),
    ]


def test_declared_errors_are_in_the_interface_by_their_stable_names() -> None:
    stock = interface_of(Shop()).method("stock")
    assert stock is not None
    assert stock.raises == ("shop.sold_out", "KeyError")
    assert (stock.is_idempotent, stock.timeout) == (True, 1.5)


def test_the_interface_is_json() -> None:
    encoded = msgspec.json.encode(interface_of(Shop()))
    assert json.loads(encoded)["service"] == "shop"


def test_the_hash_changes_with_the_interface_and_with_nothing_else() -> None:
    class Other(Shop):
        @rpc
        def buy(self, item: Item, amount: int = 2, *, gift: bool = False) -> Item:
            return item

    assert interface_of(Shop()).hash == interface_of(Shop()).hash
    assert interface_of(Shop()).hash != interface_of(Other()).hash


def test_annotations_that_cannot_be_resolved_leave_the_method_callable() -> None:
    class Vague(Service):
        name = "vague"

        @rpc
        def take(self, thing: NotImported) -> None:  # type: ignore[name-defined]  # noqa: F821
            ...

    assert interface_of(Vague()).method("take") is not None
    assert method_table(Vague())["take"].signature.bind([1], {}) == ((1,), {})


def bound(method: str, *args: Any, **kwargs: Any) -> Any:
    return method_table(Shop())[method].signature.bind(list(args), kwargs)


def test_arguments_are_turned_into_their_types() -> None:
    args, kwargs = bound("buy", {"name": "tea", "price": 2}, amount=3, gift=True)
    assert (args, kwargs) == ((Item("tea", 2.0), 3), {"gift": True})
    assert bound("sell-back", since="2026-01-02") == ((dt.date(2026, 1, 2),), {})


def test_var_arguments_are_turned_into_their_types() -> None:
    assert bound("look", "a", "b", low=1) == (("a", "b"), {"low": 1})


@pytest.mark.parametrize(
    ("method", "args", "kwargs", "names"),
    [
        ("buy", (), {}, "item"),
        ("buy", ({"price": 1},), {}, "name"),
        ("buy", ({"name": "tea"}, "three"), {}, "amount"),
        ("buy", ({"name": "tea"},), {"gift": 1}, "gift"),
        ("buy", ({"name": "tea"},), {"item": {"name": "tea"}}, "item"),
        ("buy", ({"name": "tea"}, 1, True), {}, "positional"),
        ("buy", ({"name": "tea"},), {"colour": 1}, "colour"),
        ("look", ("a", 2), {}, "names"),
        ("look", ("a",), {"low": "x"}, "low"),
        ("sell-back", ("soon",), {}, "since"),
    ],
)
def test_a_bad_argument_is_named(method: str, args: Any, kwargs: Any, names: str) -> None:
    with pytest.raises(InvalidArgument, match=names) as info:
        bound(method, *args, **kwargs)
    assert (info.value.reason, info.value.executed) == ("bad_signature", "no")


def test_a_default_that_is_mutable_is_the_methods_own() -> None:
    class Keeper(Service):
        name = "keeper"

        @rpc
        def keep(self, items: list[int] = []) -> list[int]:  # noqa: B006
            return items

    signature = method_table(Keeper())["keep"].signature
    assert signature.bind([], {}) == (([],), {})


def test_positional_only_parameters_are_not_taken_by_name() -> None:
    class Strict(Service):
        name = "strict"

        @rpc
        def take(self, a: int, /, b: int = 2) -> int:
            return a + b

        @rpc
        def sweep(self, a: int, /, **rest: int) -> dict[str, int]:
            return rest

    table = method_table(Strict())
    assert table["take"].signature.bind([1], {"b": 3}) == ((1, 3), {})
    with pytest.raises(InvalidArgument):
        table["take"].signature.bind([], {"a": 1})
    assert table["sweep"].signature.bind([1], {"a": 5}) == ((1,), {"a": 5})
