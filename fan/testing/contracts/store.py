"""What every store must do: subclass `StoreContract` in your tests and give it your store.

::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self, server) -> Iterator[OpenStore]:
            with handles(lambda namespace: MyStore(server.url, namespace)) as open_store:
                yield open_store

The fixture `store` is a function: each `store()` is a new handle on one and the same namespace that
was empty when the test began, as another process would have it; `store("other")` is one on another
namespace of the same storage. `handles` closes them all.

A store that can give up a session by itself may override `lose`; the tests of that are skipped
otherwise. `retention` is False where a thousand commits take too long.
"""

from __future__ import annotations

from fan.testing.contracts.store_commits import Commits
from fan.testing.contracts.store_generations import Generations
from fan.testing.contracts.store_harness import (
    PATIENCE,
    Eventually,
    OpenStore,
    bodies,
    handles,
    names,
    plan,
    repin,
    soon,
    write,
)
from fan.testing.contracts.store_records import Records
from fan.testing.contracts.store_watches import Watches

__all__ = [
    "PATIENCE",
    "Eventually",
    "OpenStore",
    "StoreContract",
    "bodies",
    "handles",
    "names",
    "plan",
    "repin",
    "soon",
    "write",
]


class StoreContract(Generations, Commits, Records, Watches):
    """The behaviour of `fan.stores.base.Store`. See the module on how to use it."""
