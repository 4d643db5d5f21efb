"""What the tests of versions share: services that are registered, and Apps that use them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

import fan
from fan.consumer import registered
from fan.model import WHOLE, Consumer, Instance, Interface, MethodInfo, Route
from fan.registration import put_interface
from fan.stores.base import Change, Plan, Session, Store
from tests.configs import PATIENCE, another


class World:
    """One registry, an operator who changes it, and those who use it."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.versions = fan.Versions(lambda: store, timeout=PATIENCE)
        self._folder = folder
        self._stores: list[Store] = []
        self._apps: list[fan.App] = []
        self._session = store.open_session(deadline=self.deadline())

    @staticmethod
    def deadline() -> float:
        return time.monotonic() + PATIENCE

    def register(
        self,
        service: str,
        *versions: str,
        depend: Mapping[str, Mapping[str, str]] | None = None,
        methods: tuple[str, ...] = ("hello",),
        live: bool = True,
        timeout: float | None = None,
    ) -> None:
        """Register versions of a service, each with a live instance."""
        for version in versions:
            interface = Interface(
                service=service, version=version, depend={k: dict(v) for k, v in
                (depend or {}).items()},
                methods=tuple(MethodInfo(m, timeout=timeout) for m in methods),
            )  # fmt: skip
            put_interface(self.store, interface, self.deadline())
            if live:
                self.start(service, version)

    def start(self, service: str, version: str, number: int = 1) -> None:
        id = f"{service}-{version}-{number}"
        instance = Instance(id=id, service=service, version=version)
        self.put("inst", f"{service}/{id}", instance, self._session)

    def stop(self, service: str, version: str, number: int = 1) -> None:
        name = f"{service}/{service}-{version}-{number}"
        self.store.delete("inst", name, deadline=self.deadline())

    def put(self, kind: str, name: str, body: Any, session: Session | None = None) -> None:
        self.store.put(
            kind, name, msgspec.json.encode(body), session=session, deadline=self.deadline()
        )

    def adopt(self, service: str, version: str) -> int:
        change = Change(
            object=f"route/{service}", body=msgspec.json.encode(Route(versions={version: WHOLE}))
        )
        plan = Plan(changes=(change,), verb="adopt")
        return self.store.commit(plan, deadline=self.deadline()).gen

    def routed(self, service: str) -> dict[str, int]:
        """The weights in force; none where there is no route."""
        route = self.versions.status(service).routes.get(service)
        return route.versions if route is not None else {}

    def route(self, service: str) -> Route:
        return self.versions.status(service).routes[service]

    def gen(self) -> int:
        return self.store.head(deadline=self.deadline()).gen

    def app(self, *uses: str, **settings: Any) -> fan.App:
        """A consumer of these services."""
        store = another(self.store)
        self._stores.append(store)
        made = fan.App(
            settings=fan.Settings(runtime_dir=str(self._folder / "run"), **settings), store=store
        )
        self._apps.append(made)
        for service in uses:
            made.discovery.service(service)
        return made

    def consumer(
        self, *uses: str, applied: Any = None, votes: Any = None, id: str = "silent"
    ) -> Session:
        """A consumer that says what the test wants, and no more."""
        session = self.store.open_session(deadline=self.deadline())
        found = Consumer(
            id=id, uses=uses, app=id, host="there", pid=7, votes=votes or {},
            **({"applied": applied} if applied is not None else {}),
        )  # fmt: skip
        self.put("subs", id, found, session)
        return session

    def consumers(self) -> list[Consumer]:
        found = map(registered, self.store.list("subs", deadline=self.deadline()))
        return [c for c in found if c is not None]

    def until(self, kind: str, is_so: Callable[[], bool]) -> None:
        """Wait for what somebody else is about to write."""
        changed = threading.Event()
        watch = self.store.watch(kind, lambda hint: changed.set())
        try:
            while not is_so():
                assert changed.wait(PATIENCE)
                changed.clear()
        finally:
            watch.close()

    def close(self) -> None:
        for app in self._apps:
            app.close()
        for store in self._stores:
            store.close()
