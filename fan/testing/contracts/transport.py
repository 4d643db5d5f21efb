"""The contract of a transport: every behaviour of the README's list, for sync and async callers.

Subclass it in a test module, and say what the transport is::

    class TestMine(TransportContract):
        scheme = "mine"                 # a plug-in, or give `make`
        drip = b"the beginning of a reply of mine"
        gates = {"test_a_push_returns_once_accepted_and_is_handled_once": "mine cannot push"}

`scheme`, `bind`, `make`, `is_authenticated`, `drip` and the hooks `broker`, `connect` and `listen`
are explained in `harness.Harness`. A behaviour that does not apply stands in `gates` with its
reason: nothing is skipped silently, a gate without a test of that name is an error, and so is one
for an ability that the transport claims to have (`Transport.can`). A behaviour with a form of its
own is overridden instead.

Needs pytest. All tests work on Apps: servers and clients with the registry in memory, and server
processes on a registry file for the faults.
"""

from __future__ import annotations

from typing import ClassVar

from fan.testing.contracts.concurrency import Concurrency
from fan.testing.contracts.context import Contexts
from fan.testing.contracts.deadlines import Deadlines
from fan.testing.contracts.errors import Errors
from fan.testing.contracts.faults import Faults
from fan.testing.contracts.fleet import Fleet
from fan.testing.contracts.harness import Harness, needs
from fan.testing.contracts.resilience import Resilience
from fan.testing.contracts.streams import Streams
from fan.testing.contracts.values import Values

__all__ = ["Harness", "TransportContract", "needs"]

#: What each class of the suite holds, in the numbers of the list of behaviours in the README.
BEHAVIOURS: dict[type[Harness], tuple[int, ...]] = {
    Values: (1, 2, 3),
    Errors: (4, 5, 6, 7, 8, 9, 10),
    Deadlines: (11, 12, 13, 14, 15),
    Concurrency: (16, 17, 18),
    Resilience: (19, 20, 22),
    Contexts: (23, 24, 25, 26),
    Fleet: (21, 28, 30),
    Faults: (29,),
    Streams: (31,),
}


class TransportContract(
    Values, Errors, Deadlines, Concurrency, Resilience, Contexts, Fleet, Faults, Streams
):
    """All behaviours of a transport."""

    gates: ClassVar[dict[str, str]] = {}

    def test_the_transport_has_the_scheme_that_it_serves(self) -> None:
        assert self.transport_class().scheme == self.scheme
        assert "call" in self.transport_class().can

    def test_no_gate_denies_an_ability_that_the_transport_has(self) -> None:
        for name in self.gates:
            needed: frozenset[str] = getattr(
                getattr(TransportContract, name), "__fan_needs__", frozenset()
            )
            assert not needed or not needed <= self.transport_class().can, name
