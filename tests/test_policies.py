"""How single services and methods are treated: declared in code and in the registry, live."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

import msgspec
import pytest

import fan
from fan.consumer import registered
from fan.errors import InvalidArgument
from fan.policies import Policies
from fan.settings import Settings
from fan.stores.base import Change, Plan
from fan.stores.memory import MemoryStore
from fan.testing.fakes import RecordingTransport


class Shop(fan.Service):
    name = "shop"
    version = "1.0.0"

    def __init__(self) -> None:
        self.runs = 0

    @fan.rpc(idempotent=True)
    def fail(self) -> None:
        self.runs += 1
        raise ValueError("no")

    @fan.rpc
    def budget(self) -> float:
        context = fan.current()
        assert context is not None
        return context.remaining or 0.0


@pytest.fixture
def store() -> Any:
    with MemoryStore("policies") as store:
        yield store


@pytest.fixture
def make(store: MemoryStore, tmp_path: Any) -> Any:
    apps = []

    def app(*services: fan.Service, **options: Any) -> fan.App:
        settings = Settings(runtime_dir=str(tmp_path / "run"), retry_delay=0.0)
        apps.append(fan.App(*services, settings=settings, store=store, **options))
        return apps[-1]

    yield app
    for one in apps:
        one.close()


def write(store: MemoryStore, policy: Any) -> None:
    """The config `shop/policy`, as `fan config set` writes it."""
    change = Change(object="config/shop/policy", body=msgspec.json.encode(policy))
    store.commit(Plan(changes=(change,), verb="set"), deadline=time.monotonic() + 10)


def fails(app: fan.App) -> None:
    with pytest.raises(fan.FanError):
        app.call("shop.fail")


def test_a_caller_treats_one_service_otherwise(make: Any) -> None:
    shop = Shop()
    make(shop).start()
    fails(make(policies={"shop": {"retries": 0}}))
    assert shop.runs == 1
    fails(make(policies={"shop": {"retries": 4}}))
    assert shop.runs == 6


def test_a_method_wins_over_its_service(make: Any) -> None:
    shop = Shop()
    make(shop).start()
    fails(make(policies={"shop": {"retries": 4, "methods": {"fail": {"retries": 1}}}}))
    assert shop.runs == 2


def test_a_service_says_itself_how_it_wants_to_be_called(make: Any) -> None:
    class Shy(Shop):
        policy: ClassVar[Any] = {"methods": {"fail": {"retries": 0}, "budget": {"timeout": "1m"}}}

    shop = Shy()
    make(shop).start()
    caller = make()
    fails(caller)
    assert shop.runs == 1
    assert caller.call("shop.budget") > 50


def test_the_registry_wins_and_is_followed_live(make: Any, store: MemoryStore) -> None:
    shop = Shop()
    make(shop).start()
    caller = make(policies={"shop": {"retries": 0}})
    fails(caller)
    assert shop.runs == 1
    changed = threading.Event()
    end = caller.discovery.watch(changed.set)
    write(store, {"retries": 3})
    while caller.discovery.service("shop").policy != {"retries": 3}:
        assert changed.wait(10.0)
        changed.clear()
    end()
    fails(caller)
    assert shop.runs == 5


def test_what_the_registry_cannot_mean_is_left_out(
    make: Any, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop()
    make(shop).start()
    write(store, {"retrys": 3})
    fails(make(policies={"shop": {"retries": 0}}))
    assert shop.runs == 1
    assert "there is no field 'retrys': did you mean 'retries'?" in caplog.text
    write(store, ["no", "mapping"])
    fails(make(policies={"shop": {"retries": 0}}))
    assert shop.runs == 2


def test_a_policy_that_cannot_be_meant_is_told_once_by_an_app(
    make: Any, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    write(store, {"retrys": 3})
    app = make(Shop())
    app.start()  # follows it for each of the methods
    told = [record for record in caplog.records if "it is left out" in record.getMessage()]
    assert len(told) == 1


def test_a_policy_that_cannot_be_meant_is_refused_where_it_is_written(make: Any) -> None:
    configs = make().config
    refusals = {
        "shop/policy": ({"retrys": 3}, "there is no field 'retrys': did you mean 'retries'?"),
        "mail/policy": ({"methods": {"send": {"timeout": "soon"}}}, "send: timeout"),
        "jobs/policy": ([1], "is no mapping"),
    }
    for key, (value, said) in refusals.items():
        writes = (
            lambda key=key, value=value: configs.set(key, value),
            lambda key=key, value=value: configs.apply({"shop/theme": "dark", key: value}),
            lambda key=key, value=value: configs.check(key, value),
        )
        for write_it in writes:
            with pytest.raises(InvalidArgument) as info:
                write_it()
            assert info.value.reason == "bad_policy"
            assert said in str(info.value)
    configs.set("shop/policy", {"retries": 3})
    with pytest.raises(InvalidArgument):
        configs.patch("shop/policy", {"retries": "many"})
    assert configs["shop/policy"] == {"retries": 3}
    assert "shop/theme" not in configs
    configs.set("shop/more/policy", "of no service, and anything")


def test_an_app_keeps_the_good_policy_that_it_has_and_refuses_the_generation(
    make: Any, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop()
    make(shop).start()
    caller = make(name="caller")
    write(store, {"retries": 0})
    fails(caller)
    assert shop.runs == 1
    for bad in ({"retrys": 3}, ["no", "mapping"]):
        write(store, bad)
        caller.mirror.refresh()
        fails(caller)
        assert until(lambda: nack_of("caller", store) is not None)
        assert nack_of("caller", store).error.startswith("invalid_argument: the policy of shop")
    assert shop.runs == 3
    told = [each for each in caplog.records if "retrys" in each.getMessage()]
    assert len(told) in (1, 2)  # once by an App, and the serving one is another
    write(store, {"retries": 1})
    caller.mirror.refresh()
    fails(caller)
    assert shop.runs == 5
    assert until(lambda: nack_of("caller", store) is None)


def until(is_so: Callable[[], bool]) -> bool:
    """Whether it comes true: an App tells the registry behind a change what it made of it."""
    patience = time.monotonic() + 20.0
    while not is_so() and time.monotonic() < patience:
        threading.Event().wait(0.01)
    return is_so()


def nack_of(app: str, store: MemoryStore) -> Any:
    """What an App has told the registry of a generation that it refused, None for nothing."""
    found = [registered(record) for record in store.list("subs", deadline=time.monotonic() + 10)]
    (nack,) = (one.nack for one in found if one is not None and one.app == app)
    return nack


def test_the_serving_side_follows_too(make: Any, store: MemoryStore) -> None:
    server = make(Shop())
    server.start()
    (hosted,) = server.services
    assert hosted.chains == {}
    changed = threading.Event()
    end = server.discovery.watch(changed.set)
    write(store, {"methods": {"fail": {"bulkhead_requests": 1}}})
    while set(hosted.chains) != {"fail"}:
        assert changed.wait(10.0)
        changed.clear()
    end()


def test_options_of_the_call_win_over_a_policy(make: Any) -> None:
    make(Shop()).start()
    caller = make(policies={"shop": {"timeout": 60}})
    assert caller.call("shop.budget") > 50
    assert caller.using(timeout=7).call("shop.budget") <= 7


def test_a_breaker_can_be_switched_off_for_one_service(make: Any) -> None:
    shop = Shop()
    make(shop).start()
    caller = make(policies={"shop": {"breaker_failures": 0, "retries": 0}})
    for _ in range(20):
        fails(caller)
    assert shop.runs == 20


def test_a_call_without_a_policy_goes_through_the_usual_layers(make: Any) -> None:
    sent = RecordingTransport()
    app = make(policies={"other": {"retries": 0}}, transports={"fake": sent})
    app.using(peers=("fake:x",)).call("shop.fail")
    assert "in_use=0" in repr(app.policies)


def test_the_same_fields_are_the_same_layers() -> None:
    policies = Policies(Settings(), {"a": {"retries": 1}, "b": {"retries": 1}}, lambda s: [])
    first, second = policies.of("a", "x", None), policies.of("b", "y", None)
    assert first == second == (("retries", 1),)
    assert policies.layers(first) is policies.layers(second)
    policies.close()


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({"retrys": 1}, "no field 'retrys': did you mean 'retries'"),
        ({"retries": "many"}, "retries: "),
        ({"retries": -1}, "below 0"),
        ({"methods": 3}, "methods maps the name of a method"),
        ({"methods": {"x": {"registry": "memory:"}}}, "no field 'registry'"),
        ([], "is no mapping"),
    ],
)
def test_a_policy_in_code_that_cannot_be_meant_is_refused(policy: Any, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says) as caught:
        fan.App(settings=Settings(registry="memory:"), policies={"shop": policy})
    assert caught.value.reason == "bad_policy"
