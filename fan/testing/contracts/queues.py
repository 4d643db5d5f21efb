"""The contract of a transport over a broker: what becomes of pushes and events, for sync and async
senders.

Subclass it in a test module, beside `TransportContract` where the transport can also call::

    class TestMyQueues(QueueContract):
        scheme = "mine"

        def broker(self, world):        # settings; no two worlds share a queue
            return {"mine_url": ...}

        def spoil(self, world, client, name):
            ...                         # put a message that nobody can read into a queue

The rest is said as for a `TransportContract`: `make`, `bind`, and `gates` for a behaviour that does
not apply, with its reason. `broker` is explained in `harness.Harness`, `spoil` and
`wait_noticed` in `queue_harness.QueueHarness`.

Needs pytest. All tests work on Apps: workers and senders with the registry in memory, and worker
processes on a registry file for the faults.
"""

from __future__ import annotations

from typing import ClassVar

from fan.testing.contracts.harness import needs
from fan.testing.contracts.queue_care import Answers, Care
from fan.testing.contracts.queue_drains import Drains
from fan.testing.contracts.queue_events import Events
from fan.testing.contracts.queue_faults import QueueFaults
from fan.testing.contracts.queue_harness import QueueHarness
from fan.testing.contracts.queue_pushes import Pushes
from fan.testing.contracts.queue_tries import Tries

__all__ = ["QueueContract", "QueueHarness", "needs"]

#: What each class of the suite holds, in the numbers of the list of behaviours in the README.
BEHAVIOURS: dict[type[QueueHarness], tuple[int, ...]] = {
    Pushes: (20, 26, 28),
    Tries: (18, 26),
    Drains: (28,),
    Events: (27,),
    QueueFaults: (10, 13, 29),
    Care: (26,),
    Answers: (20,),
}


class QueueContract(Pushes, Tries, Drains, Events, QueueFaults, Care, Answers):
    """All behaviours of queues."""

    gates: ClassVar[dict[str, str]] = {}

    def test_the_transport_is_one_over_a_broker(self) -> None:
        transport = self.transport_class()
        assert transport.scheme == self.scheme
        assert transport.is_shared
        assert {"push", "subscribe", "serve", "queue"} <= transport.can

    def test_no_gate_denies_an_ability_that_the_transport_has(self) -> None:
        for name in self.gates:
            needed: frozenset[str] = getattr(
                getattr(QueueContract, name), "__fan_needs__", frozenset()
            )
            assert not needed or not needed <= self.transport_class().can, name
