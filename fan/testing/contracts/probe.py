"""The services that the transport contract calls, and how a test steers them.

Server and test share a process, so a test waits for a handler (`entered`) and lets it go on
(`release`) by objects, not by time.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import logging
import queue
import threading
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import fan
from fan import rpc
from fan.errors import FailedPrecondition

#: Seconds after which a wait inside the suite gives up: a bound on hangs, ten times what is needed.
BOUND = 10.0
#: Seconds that a handler is held at most: meanwhile another process may be started.
HELD = 6 * BOUND


class OutOfStock(FailedPrecondition):
    """An application's own error, registered on both sides."""

    type = "probe.out_of_stock"


class Broken(Exception):
    """An exception that nobody registers."""


class TooShort(Exception):
    """A plain exception class that both sides register."""


class Probe(fan.Service):
    """A service with one method for each thing that can happen to a call."""

    name = "probe"
    version = "1.0.0"

    def __init__(self) -> None:
        super().__init__()
        #: How often each method ran.
        self.runs: Counter[str] = Counter()
        #: What handlers put when they have started.
        self.entered: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.closed = threading.Event()
        self.yielded: list[int] = []
        self.barrier = threading.Barrier(1)
        self.failures_left = 0
        #: What `work` does: fail, or wait for `release`.
        self.is_broken = False
        self.is_held = False
        self._gates: dict[Any, threading.Event] = {}
        self._is_over = False
        self._lock = threading.Lock()

    # Steering, for the test's side.

    def wait_entered(self) -> Any:
        """What the next handler to start says, waiting for it."""
        return self.entered.get(timeout=4 * BOUND)

    def gate(self, tag: Any) -> threading.Event:
        """What handlers called with `tag` wait for."""
        with self._lock:
            gate = self._gates.setdefault(tag, threading.Event())
            if self._is_over:
                gate.set()
            return gate

    def release(self) -> None:
        """Let every handler go on, now and from now on."""
        with self._lock:
            self._is_over = True
            for gate in self._gates.values():
                gate.set()
        self.barrier.abort()

    def _ran(self, method: str) -> int:
        with self._lock:
            self.runs[method] += 1
            return self.runs[method]

    # Values.

    @rpc
    def echo(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Both kinds of argument, as they arrived."""
        self._ran("echo")
        return {"args": list(args), "kwargs": kwargs}

    @rpc
    def void(self) -> None:
        self._ran("void")

    @rpc
    def add(self, a: int, b: int = 1) -> int:
        self._ran("add")
        return a + b

    @rpc
    def size(self, data: bytes) -> int:
        return len(data)

    @rpc
    def typed(
        self, moment: dt.datetime, amount: decimal.Decimal, ident: uuid.UUID, data: bytes
    ) -> list[str]:
        """Names of the types that arrived."""
        return [type(value).__name__ for value in (moment, amount, ident, data)]

    @rpc
    def value(self, kind: str) -> Any:
        """A value of a type that JSON has no form of its own for."""
        values: dict[str, Any] = {
            "bytes": b"\x00\xff",
            "datetime": dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
            "Decimal": decimal.Decimal("1.10"),
            "UUID": uuid.UUID(int=1),
        }
        return values[kind]

    @rpc
    def log(self, text: str) -> str:
        return f"log {text}"

    @rpc("name")
    def tell_name(self, text: str) -> str:
        return f"name {text}"

    def not_for_callers(self) -> str:
        return "an attribute without @rpc"

    def _private(self) -> str:
        return "private"

    @rpc
    def reply_of(self, size: int) -> str:
        return "x" * size

    # Failures.

    @rpc
    def fail(self) -> None:
        self._ran("fail")
        raise Broken("it broke")

    @rpc
    async def fail_async(self) -> None:
        raise Broken("it broke")

    @rpc
    def work(self) -> str:
        """The id of the instance, if it is sound."""
        self._ran("work")
        if self.is_broken:
            raise Broken("out of order")
        if self.is_held:
            self.gate("work").wait(BOUND)
        return self.instance_id

    @rpc
    def out_of_stock(self, item: str) -> None:
        self._ran("out_of_stock")
        raise OutOfStock(f"no {item} left", reason="sold_out", details={"item": item})

    @rpc
    def too_short(self) -> None:
        raise TooShort("abc", 8)

    @rpc
    def unserializable(self) -> Any:
        return object()

    @rpc(idempotent=True)
    def flaky(self) -> int:
        """Fails as often as `failures_left` says, then gives the attempts made before this one."""
        self._ran("flaky")
        with self._lock:
            self.failures_left -= 1
            has_failed = self.failures_left >= 0
        if has_failed:
            raise Broken("not yet")
        context = fan.current()
        return context.attempt if context is not None else -1

    @rpc
    def flaky_once(self) -> None:
        """Not idempotent, and always fails."""
        self._ran("flaky_once")
        raise Broken("never")

    # Time.

    @rpc
    def hold(self, tag: Any = None) -> Any:
        """Say that it has begun, and answer once released."""
        self._ran("hold")
        self.entered.put(tag)
        self.gate(tag).wait(HELD)
        return tag

    @rpc
    async def hold_async(self, tag: Any = None) -> Any:
        self._ran("hold_async")
        self.entered.put(tag)
        gate = self.gate(tag)
        await asyncio.get_running_loop().run_in_executor(None, gate.wait, HELD)
        return tag

    @rpc
    def meet(self, tag: int) -> int:
        """Answer once as many calls as the barrier has parties run at the same time."""
        self.barrier.wait(BOUND)
        return tag

    @rpc
    def until_cancelled(self, tag: Any = None) -> str:
        """Run until the caller gives up or the test releases it; `closed` says that it gave up."""
        self.entered.put(tag)
        gate = self.gate(tag)
        context = fan.current()
        while context is not None and not gate.wait(0.005):
            if context.cancelled:
                self.closed.set()
                return "cancelled"
        return "released"

    @rpc
    def budget(self) -> float | None:
        """Seconds left of the call."""
        context = fan.current()
        return context.remaining if context is not None else None

    @rpc(timeout=3.0)
    def budget_of_its_own(self) -> float | None:
        return self.budget()

    # Context.

    @rpc
    def relay(self, path: list[str]) -> list[dict[str, Any]]:
        """What this hop knows of its call, then what the services of `path` know of theirs."""
        self._ran("relay")
        here = describe_call()
        context = fan.current()
        if not path or context is None:
            return [here]
        below = context.find_app().call(f"{path[0]}.relay", path[1:])
        return [here, *below]

    @rpc
    async def relay_async(self, path: list[str]) -> list[dict[str, Any]]:
        here = describe_call()
        context = fan.current()
        if not path or context is None:
            return [here]
        below = await context.find_app().acall(f"{path[0]}.relay_async", path[1:])
        return [here, *below]

    @rpc
    def spend(self, target: str) -> Any:
        """Wait for its own deadline, then try a call: nothing may be sent."""
        context = fan.current()
        if context is None or context.deadline is None:
            return None
        while context.remaining:
            threading.Event().wait(context.remaining)
        return context.find_app().call(target)

    @rpc
    def down(self, target: str) -> Any:
        """A call whose error this handler lets out."""
        context = fan.current()
        return context.find_app().call(target) if context is not None else None

    @rpc
    def in_executor(self) -> list[str]:
        context = fan.current()
        with fan.Executor(1) as executor:
            inside = executor.submit(lambda: describe_call()["trace_id"]).result(BOUND)
        return [context.trace_id if context is not None else "", inside]

    @rpc
    def in_wrapped_thread(self) -> list[str]:
        context = fan.current()
        seen: list[str] = []
        work = fan.wrap(lambda: seen.append(describe_call()["trace_id"]))
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(BOUND)
        return [context.trace_id if context is not None else "", *seen]

    @rpc
    async def in_task(self) -> list[str]:
        async def inside() -> str:
            await asyncio.sleep(0)
            return str(describe_call()["trace_id"])

        context = fan.current()
        seen = await asyncio.create_task(inside())
        return [context.trace_id if context is not None else "", seen]

    @rpc
    def log_from_a_library(self) -> str:
        logging.getLogger("a.foreign.library").warning("a line")
        return str(describe_call()["trace_id"])

    @rpc
    def whoami(self) -> dict[str, str]:
        self._ran("whoami")
        return {"version": self.version, "instance": self.instance_id}

    @rpc(idempotent=True)
    def whoami_again(self) -> dict[str, str]:
        """The same, and may be asked of another instance."""
        return self.whoami()

    @rpc
    def sum_of(self, target: str, n: int) -> int:
        """The sum of a stream that this handler reads."""
        context = fan.current()
        return sum(context.find_app().stream(target, n)) if context is not None else -1

    @rpc
    def whoami_and_when(self) -> list[Any]:
        """Something that no two runs give alike."""
        return [self.instance_id, self._ran("whoami_and_when")]

    @rpc(idempotent=True)
    def hold_the_first_attempt(self) -> dict[str, str]:
        """The first attempt never ends; a later one says who it is."""
        context = fan.current()
        if context is not None and context.attempt == 0:
            self.hold("first")
        return self.whoami()

    @rpc
    def note(self, n: int) -> None:
        self._ran("note")

    @rpc
    def note_context(self) -> None:
        self.entered.put(describe_call())

    # Streams.

    @rpc
    def count(self, n: int) -> Iterator[int]:
        try:
            for i in range(n):
                self.yielded.append(i)
                yield i
        finally:
            self.closed.set()

    @rpc
    async def count_async(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            await asyncio.sleep(0)
            yield i

    @rpc
    def count_then_fail(self, n: int) -> Iterator[int]:
        yield from range(n)
        raise OutOfStock("the stream broke", details={"after": n})

    @rpc
    def count_then_hold(self, n: int) -> Iterator[int]:
        yield from range(n)
        self.hold("stream")
        yield n

    @rpc
    def count_slowly(self, n: int, gap: float) -> Iterator[int]:
        for i in range(n):
            self.gate("never").wait(gap)
            yield i


def describe_call() -> dict[str, Any]:
    """What `fan.current()` says here, as a JSON value."""
    context = fan.current()
    if context is None:
        return {"trace_id": ""}
    request = context.request
    return {
        "service": context.service,
        "trace_id": context.trace_id,
        "span_id": context.span_id,
        "flags": context.traceparent[53:55],
        "parent": request.traceparent[36:52] if request is not None else "",
        "remaining": context.remaining,
        "baggage": dict(context.baggage),
        "headers": dict(context.headers),
        "caller": context.caller,
        "caller_instance": context.caller_instance,
        "principal": context.principal,
        "attempt": context.attempt,
        "hops": context.hops,
        "key": context.key,
        "gen": context.gen,
    }


def probe(name: str = "probe", version: str = "1.0.0") -> Probe:
    """A `Probe` under another name or version."""
    if (name, version) == (Probe.name, Probe.version):
        return Probe()
    made: type[Probe] = type("Probe", (Probe,), {"name": name, "version": version})
    return made()
