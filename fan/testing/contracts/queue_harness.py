"""What the suites on queues stand on: looking at a broker's queues, and waiting for what they
show."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from fan.app import App
from fan.model import Letter, Queue, QueueName
from fan.testing.contracts.callers import Caller
from fan.testing.contracts.harness import Harness, World
from fan.testing.contracts.probe import BOUND
from fan.testing.contracts.queue_probe import Inbox, inbox
from fan.transports.base import Queues

T = TypeVar("T")

#: The queue of the pushes to an `Inbox`.
PUSHES = QueueName("inbox")


class QueueHarness(Harness):
    """What a subclass says about its transport. See `QueueContract` for how to use it."""

    def spoil(self, world: World, client: App, name: QueueName) -> None:
        """Put a message into a queue that nobody can read, as a foreign program might: no
        envelope of fan's."""
        raise NotImplementedError(f"say how garbage comes into {name} of {self.scheme}")

    @pytest.fixture
    def box(self, world: World) -> Inbox:
        """The service that `sender` pushes to, delivered three times at most."""
        service = inbox()
        world.serve(service, deliveries=3)
        return service

    @pytest.fixture
    def client(self, world: World) -> App:
        """An App that only sends, and looks."""
        return world.client()

    @pytest.fixture
    def sender(self, client: App, box: Inbox, face: Callable[[Any], Caller]) -> Caller:
        """Pushes over the transport under test."""
        return self.sender_of(face, client)

    def sender_of(self, face: Callable[[Any], Caller], client: App) -> Caller:
        """The face of a client that pushes over the transport under test."""
        return face(client).using(transport=self.scheme)

    def queues(self, client: App) -> Queues:
        """The broker's queues."""
        transport = client.transport(self.scheme)
        return transport.queues(transport.home())

    def look(self, client: App, name: QueueName = PUSHES) -> Queue:
        """How a queue stands."""
        found = self.queues(client).list([name], deadline=soon())
        return next(queue for queue in found if queue.name == name)

    def letters(self, client: App, name: QueueName = PUSHES, *, dead: bool = False) -> list[Letter]:
        """What is in a queue."""
        return self.queues(client).letters(name, dead=dead, deadline=soon())

    def dead(self, client: App, n: int = 1, name: QueueName = PUSHES) -> list[Letter]:
        """The dead letters of a queue, waiting until there are `n`."""
        return until(lambda: _if(self.letters(client, name, dead=True), n))

    def settle(self, client: App, name: QueueName = PUSHES) -> None:
        """Wait until a queue has nothing that waits or is in hand."""

        def is_idle() -> bool:
            found = self.look(client, name)
            return not found.ready and not found.in_flight

        until(is_idle)


    def wait_noticed(self, client: App, left: int = 0) -> None:
        """Wait until the broker knows that a worker was killed, and that `left` take pushes.

        To one that it does not know to be dead it may give a push, which counts as a delivery.
        Override it where nothing is given to a worker that does not ask, and a dead one counts for
        longer.
        """
        until(lambda: (self.look(client).consumers or 0) <= left)


def until(ask: Callable[[], T]) -> T:
    """Ask again and again until the answer counts as true, and give it."""
    end = time.monotonic() + 9 * BOUND
    while not (answer := ask()):
        assert time.monotonic() < end, "it did not come to that"
        threading.Event().wait(0.005)
    return answer


def soon() -> float:
    """The deadline of one look at a broker."""
    return time.monotonic() + BOUND


def _if(letters: list[Letter], n: int) -> list[Letter]:
    return letters if len(letters) >= n else []
