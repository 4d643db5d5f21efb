"""The public contract suites: what every transport, every queue and every store has to do.

Subclass one in a test module of your own::

    from fan.testing.contracts import TransportContract

    class TestMine(TransportContract):
        scheme = "mine"
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fan.testing.contracts.queues import QueueContract
    from fan.testing.contracts.store import StoreContract
    from fan.testing.contracts.transport import TransportContract

__all__ = ["QueueContract", "StoreContract", "TransportContract"]

# Before any of them is imported, so that a failing assert shows its values.
_SUITES = (
    "concurrency", "context", "deadlines", "errors", "faults", "fleet", "harness", "queue_care",
    "queue_events", "queue_faults", "queue_harness", "queue_pushes", "queues", "resilience",
    "store", "store_commits", "store_generations", "store_harness", "store_records",
    "store_watches", "streams", "transport", "values",
)  # fmt: skip
pytest.register_assert_rewrite(*(f"{__name__}.{suite}" for suite in _SUITES))

_HOMES = {
    "QueueContract": "queues",
    "StoreContract": "store",
    "TransportContract": "transport",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: testing a store needs nothing of the transports.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
