"""An App: what it hosts may change while it is used, and a fork starts it over."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fan.app
from fan import App, Service, Settings, rpc
from fan.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted, Unavailable
from fan.middleware.base import Middleware

#: A bound on hangs.
BOUND = 10.0


class Desk(Service):
    name = "desk"
    version = "1.0.0"

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.gate = threading.Event()

    @rpc
    def add(self, a: int, b: int = 1) -> int:
        return a + b

    @rpc
    def count(self, n: int) -> Iterator[int]:
        yield from range(n)

    @rpc
    def hold(self) -> None:
        self.entered.set()
        self.gate.wait(BOUND)


def test_what_is_hosted_may_change_while_others_bind() -> None:
    failures: list[BaseException] = []
    is_over = threading.Event()

    def bind(app: App) -> None:
        try:
            while not is_over.is_set():
                app.using(timeout=1.0).bind("desk.add")
        except BaseException as exc:
            failures.append(exc)

    with App(settings=Settings()) as app:
        threads = [threading.Thread(target=bind, args=(app,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(100):
                app.remove(app.add(Desk()).instance_id)
        finally:
            is_over.set()
            for thread in threads:
                thread.join(BOUND)
    assert failures == []


def test_an_endpoint_bound_while_its_service_leaves_does_not_keep_it() -> None:
    desk = Desk()
    with App(desk, settings=Settings()) as app:
        client, found = app.client, list[Any]()
        rebind = client.rebind

        def late(endpoint: Any) -> None:
            rebind(endpoint)
            if not found:
                found.append(endpoint)
                leaving.start()
                leaving.join(0.05)  # it has to wait for this binding, or else it is done by now

        leaving = threading.Thread(target=app.remove, args=(desk.instance_id,))
        client.rebind = late  # type: ignore[method-assign]
        client.bind("desk.add")
        leaving.join(BOUND)
        assert found[0].local is None


def test_a_constraint_that_is_none_breaks_no_other_endpoint() -> None:
    with App(Desk(), settings=Settings()) as app:
        wrong = app.bind("desk.add@~garbage")
        app.add(type("Other", (Desk,), {"name": "other"})())
        with pytest.raises(InvalidArgument):
            wrong(1)
        assert app.call("other.add", 1) == 2


def test_an_app_that_is_gone_leaves_nothing_behind() -> None:
    with App(Desk(), settings=Settings()) as app:
        ref = weakref.ref(app)
    del app
    gc.collect()
    assert ref() is None
    assert ref() not in tuple(fan.app._APPS)


def test_a_child_forked_in_mid_call_has_nothing_in_flight() -> None:
    desk = Desk()
    with App(desk, settings=Settings(), middleware=[]) as app:
        thread = threading.Thread(target=app.dispatcher, args=(_request("hold"),))
        thread.start()
        assert desk.entered.wait(BOUND)
        pid = os.fork()
        if not pid:
            is_right = app.dispatcher.in_flight == 0 and app.call("desk.add", 1) == 2
            os._exit(0 if is_right else 1)
        desk.gate.set()
        thread.join(BOUND)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork with threads
def test_forked_children_serve_as_instances_of_their_own(private: Path) -> None:
    settings = Settings(registry=f"sqlite:{private}/registry.db", runtime_dir=str(private / "run"))
    with App(Desk(), settings=settings) as app, App(settings=settings) as caller:
        (before,) = app.services
        ids, pipes = {before.instance_id}, []
        for _ in range(2):
            heard, said = os.pipe()
            go_on, told = os.pipe()
            if os.fork() == 0:
                try:
                    os.close(told)
                    app.start()
                    served = app.services[0].instance_id, app.services[0].service.instance_id
                    os.write(said, " ".join(served).encode())
                    os.read(go_on, 1)  # until the parent closes its end
                    app.close()
                finally:
                    os._exit(0)
            os.close(said)
            os.close(go_on)
            pipes.append(told)
            of_app, _, of_service = os.read(heard, 200).decode().partition(" ")
            os.close(heard)
            assert of_app == of_service
            ids.add(of_app)
        assert len(ids) == 3
        found = caller.discovery.service("desk").instances
        assert {instance.id for instance in found} == ids - {before.instance_id}
        assert caller.call("desk.add", 1) == 2
        for told in pipes:
            os.close(told)
        for _ in pipes:
            os.wait()


def test_a_given_instance_id_stays_in_a_forked_child() -> None:
    with App(settings=Settings()) as app:
        app.add(Desk(), "desk-one")
        pid = os.fork()
        if pid == 0:
            os._exit([one.instance_id for one in app.services] != ["desk-one"])
        assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("transport", ["ipc", "http"])
def test_a_stream_that_a_forked_child_drops_goes_on_in_its_parent(
    tmp_path: Path, transport: str
) -> None:
    settings = Settings(registry=f"sqlite:{tmp_path}/r.db", runtime_dir=str(tmp_path / "run"))
    with App(Desk(), settings=settings) as server, App(settings=settings) as client:
        server.start(["ipc", "http"])
        items = client.using(transport=transport).stream("desk.count", 500)
        assert next(items) == 0
        pid = os.fork()
        if not pid:
            items.close()  # type: ignore[attr-defined]
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert list(items) == list(range(1, 500))


def _request(method: str) -> Any:
    from fan.message import Request

    return Request(id="r", service="desk", method=method, timeout_ms=5000)


class Greeting(fan.Service):
    name = "greeting"
    version = "1.0.0"

    @fan.rpc
    def hi(self) -> str:
        return "hi"


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("has_worked", [True, False])
def test_a_closed_app_calls_nobody_and_opens_nothing(private: Path, has_worked: bool) -> None:
    settings = fan.Settings(registry=f"sqlite:{private}/registry.db", runtime_dir=str(private))
    with fan.App(Greeting(), settings=settings) as host:
        host.start(["ipc", "http"])
        app = fan.App(Greeting(), settings=settings)
        if has_worked:
            app.start()
            assert app.call("greeting.hi") == "hi"
        bound = app.bind("greeting.hi")
        before = threads()
        app.close()
        ways: list[Callable[[], object]] = [
            bound,
            lambda: app.call("greeting.hi"),
            lambda: app.submit("greeting.hi").result(20),
            lambda: asyncio.run(app.acall("greeting.hi")),
            lambda: app.using(transport="http").call("greeting.hi"),
            lambda: app.push("greeting.hi"),
            lambda: asyncio.run(app.apush("greeting.hi")),
            lambda: app.transport("amqp"),
            lambda: list(app.stream("greeting.hi")),
        ]
        for way in ways:
            with pytest.raises(fan.FanError, match="closed") as caught:
                way()
            assert caught.value.executed == "no"
        assert threads() <= before


def test_what_fails_as_an_app_closes_leaves_nothing_else_open(private: Path) -> None:
    class Failing(Middleware):
        def close(self) -> None:
            raise RuntimeError("this layer does not close")

    settings = fan.Settings(registry=f"sqlite:{private}/registry.db", runtime_dir=str(private))
    before = threads()
    app = fan.App(Greeting(), settings=settings, middleware=[Failing()])
    app.start()
    with pytest.raises(RuntimeError, match="does not close"):
        app.close()
    assert threads() == before


def test_services_with_errors_of_one_name_are_hosted_together() -> None:
    def service(number: int) -> fan.Service:
        own = type("OutOfStock", (Exception,), {})

        class Shop(fan.Service):
            name = "shop"
            version = f"{number}.0.0"

            @fan.rpc(raises=[own])
            def take(self) -> None:
                raise own(number)

        return Shop()

    with fan.App(service(1), service(2)) as app:
        for number in (1, 2):
            with pytest.raises(Exception, match=str(number)) as caught:
                app.call(f"shop.take@{number}")
            assert type(caught.value).__name__ == "OutOfStock"


def test_an_instance_whose_socket_cannot_be_reached_is_called_over_what_else_it_offers(
    private: Path,
) -> None:
    settings = fan.Settings(registry=f"sqlite:{private}/registry.db", runtime_dir=str(private))
    with fan.App(Greeting(), settings=settings) as host, fan.App(settings=settings) as app:
        host.start(["ipc", "http"])
        assert app.using().request("greeting", "hi", "", b"").transport == "ipc"
        for address in host.lifecycle.instances[0].addresses:
            if address.scheme == "unix":
                os.unlink(address.url.removeprefix("unix://"))
        app.transport("ipc").close()  # what was connected stays so, whatever becomes of the file
        first, second = (app.using().request("greeting", "hi", "", b"") for _ in range(2))
        assert (first.transport, first.value) == ("http", "hi")
        assert (second.transport, second.attempts) == ("http", 1)
        with pytest.raises(fan.Unavailable):
            app.using(transport="ipc", retries=0).call("greeting.hi")


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork with threads
def test_a_child_forked_in_mid_call_has_all_places_and_no_probe_under_way(private: Path) -> None:
    settings = Settings(
        registry=f"sqlite:{private}/registry.db", runtime_dir=str(private / "run"),
        bulkhead_calls=1, breaker_failures=1, breaker_reset=0.05, retries=0,
    )  # fmt: skip
    desk = Desk()
    with App(desk, settings=settings) as server, App(settings=settings) as client:
        server.start(["ipc"])
        client.call("desk.add", 1)  # the registry is read, so that the budget is the handler's
        with pytest.raises(DeadlineExceeded):
            client.using(timeout=1.0).call("desk.hold")
        assert desk.entered.wait(BOUND)
        desk.entered.clear()
        threading.Event().wait(0.1)  # the breaker's own time
        probe = client.submit("desk.hold")
        assert desk.entered.wait(BOUND)
        with pytest.raises(Unavailable):
            client.call("desk.hold")
        with pytest.raises(ResourceExhausted):
            client.call("desk.add", 1)
        pid = os.fork()
        if not pid:
            desk.gate.set()
            status = 1
            try:
                is_right = client.call("desk.add", 1) == 2
                client.using(timeout=0.2).call("desk.hold")
            except DeadlineExceeded:  # it was not refused
                status = 0 if is_right else 2
            finally:
                os._exit(status)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        desk.gate.set()
        probe.result(BOUND)
        assert code == 0
