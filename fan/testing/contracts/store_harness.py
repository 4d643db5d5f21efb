"""What the suites of the contract of a store share: the handles, short words for what is done with
them, and what waits for a watch."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import pytest

from fan.stores.base import Change, Committed, Hint, Plan, Session, Store

#: Seconds after which something that should happen counts as never happening.
PATIENCE = 20.0


class OpenStore(Protocol):
    """Opens handles on the storage of one test."""

    def __call__(self, namespace: str = "default") -> Store: ...


@contextlib.contextmanager
def handles(make: Callable[[str], Store]) -> Iterator[OpenStore]:
    """An `OpenStore` whose handles are closed at the end, the newest first."""
    with contextlib.ExitStack() as stack:

        def open_store(namespace: str = "default") -> Store:
            store = make(namespace)
            stack.callback(store.close)
            return store

        yield open_store


def soon() -> float:
    """A deadline that a working store does not reach."""
    return time.monotonic() + PATIENCE


def write(store: Store, **bodies: str | None) -> Committed:
    """Commit one generation that sets `config/<name>` to each body, None deleting it."""
    return store.commit(plan(**bodies), deadline=soon())


def plan(**bodies: str | None) -> Plan:
    """What `write` commits."""
    changes = [
        Change(object=f"config/{name}", body=None if body is None else body.encode())
        for name, body in bodies.items()
    ]
    return Plan(changes=tuple(changes), verb="set", who="ada", reason="because")


def repin(name: str, rev: int, from_rev: int | None = None) -> Plan:
    """A plan that pins an old revision of `config/<name>` again."""
    change = Change(object=f"config/{name}", to_rev=rev, from_rev=from_rev)
    return Plan(changes=(change,), verb="rollback")


def bodies(store: Store, gen: int | None = None) -> dict[str, str]:
    """What is pinned, without `config/`."""
    cut = store.read(prefix="config/", gen=gen, deadline=soon())
    return {
        name.removeprefix("config/"): revision.body.decode()
        for name, revision in cut.objects.items()
        if revision.body is not None
    }


def names(store: Store, kind: str, prefix: str = "") -> list[str]:
    """The names of the live records of a kind."""
    return [record.name for record in store.list(kind, prefix, deadline=soon())]


class Eventually:
    """A watch callback: waits until what the store says in a call is as expected."""

    def __init__(self, ask: Callable[[], object]) -> None:
        self.hints: list[Hint] = []
        self._ask = ask
        self._answers: list[object] = []
        self._news = threading.Condition()

    def __call__(self, hint: Hint) -> None:
        answer = self._ask()
        with self._news:
            self.hints.append(hint)
            self._answers.append(answer)
            self._news.notify_all()

    def sees(self, expected: object) -> bool:
        """Whether a call saw `expected` in the end."""
        with self._news:
            return self._news.wait_for(lambda: expected in self._answers, PATIENCE)


class StoreHarness:
    """What the suites of a store are given. See `fan.testing.contracts.store` on how to use it."""

    #: Whether the test of trimming (a thousand commits) runs.
    retention = True

    @pytest.fixture
    def store(self) -> Iterator[OpenStore]:
        """Override: the handles on an empty storage."""
        raise NotImplementedError("give StoreContract a fixture named store")

    def lose(self, store: Store, session: Session) -> None:
        """Override: make the store give up a session without its owner's doing."""
        pytest.skip("this store does not say how to lose a session")
