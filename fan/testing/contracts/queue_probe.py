"""The service that the queue contract pushes to and tells events, and how a test steers it."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any, NamedTuple

import fan
from fan import push, subscribe
from fan.testing.contracts.probe import BOUND, HELD, Broken, Probe, describe_call

#: Topics that an `Inbox` hears of: one of its service gets each event; each of them gets it; one
#: gets it, and fails.
SHARED, ALL, REFUSED = "contract.shared", "contract.all", "contract.refused"


class Seen(NamedTuple):
    """One delivery that reached a handler: which, of what, and the deliveries before it."""

    method: str
    tag: Any
    attempt: int


class Inbox(Probe):
    """A probe whose methods are pushed to; what reaches them it puts into `seen`."""

    name = "inbox"

    def __init__(self) -> None:
        super().__init__()
        self.seen: queue.SimpleQueue[Seen] = queue.SimpleQueue()
        #: What `tell` knew of its calls, and `claim` was answered.
        self.told: queue.SimpleQueue[Any] = queue.SimpleQueue()

    # Steering, for the test's side.

    def wait_seen(self) -> Seen:
        """The next delivery, waiting for it."""
        return self.seen.get(timeout=4 * BOUND)

    def wait_tags(self, n: int) -> list[Any]:
        """The tags of the next `n` deliveries, in the order in which they came."""
        return [self.wait_seen().tag for _ in range(n)]

    def _see(self, method: str, tag: Any) -> int:
        context = fan.current()
        attempt = context.attempt if context is not None else -1
        self._ran(method)
        self.seen.put(Seen(method, tag, attempt))
        return attempt

    # Pushes.

    @push
    def take(self, tag: Any = None) -> None:
        """Be seen."""
        self._see("take", tag)

    @push
    async def take_async(self, tag: Any = None) -> None:
        """Be seen, on the loop."""
        self._see("take_async", tag)

    @push
    def keep(self, tag: Any = None) -> None:
        """Be seen, and end once the gate of `tag` is open."""
        self._see("keep", tag)
        self.gate(tag).wait(HELD)

    @push
    async def keep_async(self, tag: Any = None) -> None:
        """The same on the loop."""
        self._see("keep_async", tag)
        await self.hold_async(tag)

    @push
    def gather(self, tag: Any = None) -> None:
        """End once as many run at the same time as the barrier has parties."""
        self.barrier.wait(BOUND)
        self._see("gather", tag)

    @push
    def refuse(self, tag: Any = None) -> None:
        """Fail at every delivery."""
        self._see("refuse", tag)
        raise Broken(f"there is no place for {tag}")

    @push
    async def refuse_async(self, tag: Any = None) -> None:
        """Fail at every delivery, on the loop."""
        self._see("refuse_async", tag)
        raise Broken(f"there is no place for {tag}")

    @push
    def falter(self, tag: Any, failures: int) -> None:
        """Fail at the first deliveries."""
        if self._see("falter", tag) < failures:
            raise Broken("not yet")

    @push(timeout=0.2)
    async def overrun(self, tag: Any = None) -> None:
        """Take longer than its time."""
        self._see("overrun", tag)
        await self.hold_async(tag)

    @push(timeout=0.2)
    def stall(self, tag: Any = None) -> None:
        """Be seen, and end once the gate of `tag` is open, however long that takes."""
        self._see("stall", tag)
        self.gate(tag).wait(HELD)

    @push
    def tell(self) -> None:
        """Put what it knows of its call into `told`."""
        self.told.put(describe_call())

    @push
    def claim(self, scheme: str, key: str, holder: str) -> None:
        """Claim a key of the shared ledger, and put what it was answered into `told`."""
        import time

        ledger = self.app.transport(scheme).ledger()
        answer = ledger.claim(key, holder, ttl=60.0, deadline=time.monotonic() + BOUND)
        self.told.put(None if answer is None else answer.decode())

    # Events.

    @subscribe(SHARED)
    def share(self, tag: Any = None) -> None:
        """Be seen."""
        self._see("share", tag)

    @subscribe(ALL, broadcast=True)
    def hear(self, tag: Any = None) -> None:
        """Be seen."""
        self._see("hear", tag)

    @subscribe(REFUSED)
    def refuse_event(self, tag: Any = None) -> None:
        """Fail at every delivery."""
        self._see("refuse_event", tag)
        raise Broken(f"there is no place for {tag}")


def inbox(name: str = "inbox", version: str = "1.0.0") -> Inbox:
    """An `Inbox` under another name or version."""
    made: type[Inbox] = type("Inbox", (Inbox,), {"name": name, "version": version})
    return made()


class Ear:
    """A function that hears of a topic, for `App.subscribe`: it keeps what it gets."""

    def __init__(self, fails: Callable[[int], bool] = lambda attempt: False) -> None:
        self.heard: queue.SimpleQueue[Seen] = queue.SimpleQueue()
        self._fails = fails

    def __call__(self, tag: Any = None) -> None:
        self._hear(tag)

    async def awaited(self, tag: Any = None) -> None:
        """The same as a coroutine."""
        self._hear(tag)

    def wait(self) -> Any:
        """The tag of the next event, waiting for it."""
        return self.wait_heard().tag

    def wait_heard(self) -> Seen:
        """The next delivery, waiting for it."""
        return self.heard.get(timeout=4 * BOUND)

    def _hear(self, tag: Any) -> None:
        context = fan.current()
        attempt = context.attempt if context is not None else -1
        self.heard.put(Seen("", tag, attempt))
        if self._fails(attempt):
            raise Broken(f"there is no place for {tag}")
