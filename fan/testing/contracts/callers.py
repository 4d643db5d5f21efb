"""The two faces of a client, sync and async, as one: a test is written once and run for both."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self, TypeVar

from fan.testing.contracts.probe import BOUND

T = TypeVar("T")

#: Threads for what a loop may not wait for itself.
_THREADS = 8

#: A call that is still to be made: target, positional and keyword arguments.
Planned = tuple[str, tuple[Any, ...], dict[str, Any]]


class Pending:
    """A call on its way."""

    def __init__(self, future: Future[Any]) -> None:
        self.future = future

    def result(self) -> Any:
        """The call's value, waiting for it. Raises what the call raises."""
        return self.future.result(10 * BOUND)

    def cancel(self) -> None:
        """Give the call up."""
        self.future.cancel()


class Reader(ABC):
    """An open stream."""

    @abstractmethod
    def next(self) -> Any:
        """The next item. Raises StopIteration at the end, and what the stream raises."""

    @abstractmethod
    def close(self) -> None:
        """Stop reading."""

    def rest(self) -> list[Any]:
        """The items up to the end."""
        items = []
        while True:
            try:
                items.append(self.next())
            except StopIteration:
                return items


class Caller(ABC):
    """One face of an App's client (or of one that `app.using` gave)."""

    def __init__(self, client: Any, loop: Loop) -> None:
        self.client = client
        self.loop = loop

    def on(self, client: Any) -> Self:
        """The same face of another App or client."""
        return type(self)(client, self.loop)

    def using(self, **options: Any) -> Self:
        """The same face with these call options."""
        return self.on(self.client.using(**options))

    @abstractmethod
    def call(self, target: str, *args: Any, **kwargs: Any) -> Any:
        """Call and wait."""

    @abstractmethod
    def push(self, target: str, *args: Any, **kwargs: Any) -> Any:
        """Push, and wait until it is accepted."""

    @abstractmethod
    def publish(self, topic: str, *args: Any, **kwargs: Any) -> None:
        """Publish, and wait until it is accepted."""

    @abstractmethod
    def start(self, target: str, *args: Any, **kwargs: Any) -> Pending:
        """Begin a call."""

    @abstractmethod
    def stream(self, target: str, *args: Any, **kwargs: Any) -> Reader:
        """Open a stream."""

    @abstractmethod
    def together(self, calls: Sequence[tuple[Self, Planned]]) -> list[Any]:
        """Make calls at the same time; the value of each, or the exception that it raised."""

    def times(self, n: int, target: str, *args: Any, **kwargs: Any) -> list[Any]:
        """The outcomes of one call made `n` times at once."""
        return self.together([(self, (target, args, kwargs))] * n)

    def failure(self, target: str, *args: Any, **kwargs: Any) -> BaseException:
        """The exception that a call raises; fails when it raises none."""
        try:
            value = self.call(target, *args, **kwargs)
        except Exception as exc:
            return exc
        raise AssertionError(f"{target} gave {value!r}, not an error")


class SyncCaller(Caller):
    """Calls from threads."""

    def call(self, target: str, *args: Any, **kwargs: Any) -> Any:
        return self.client.call(target, *args, **kwargs)

    def push(self, target: str, *args: Any, **kwargs: Any) -> Any:
        return self.client.push(target, *args, **kwargs)

    def publish(self, topic: str, *args: Any, **kwargs: Any) -> None:
        self.client.publish(topic, *args, **kwargs)

    def start(self, target: str, *args: Any, **kwargs: Any) -> Pending:
        return Pending(self.client.submit(target, *args, **kwargs))

    def stream(self, target: str, *args: Any, **kwargs: Any) -> Reader:
        return _SyncReader(self.client.stream(target, *args, **kwargs))

    def together(self, calls: Sequence[tuple[Self, Planned]]) -> list[Any]:
        with ThreadPoolExecutor(max(1, len(calls))) as pool:
            futures = [pool.submit(c.call, target, *a, **k) for c, (target, a, k) in calls]
            return [_outcome(future.result) for future in futures]


class AsyncCaller(Caller):
    """Calls from one event loop, which runs in a thread of its own."""

    def call(self, target: str, *args: Any, **kwargs: Any) -> Any:
        return self.loop.run(self.client.acall(target, *args, **kwargs))

    def push(self, target: str, *args: Any, **kwargs: Any) -> Any:
        return self.loop.run(self.client.apush(target, *args, **kwargs))

    def publish(self, topic: str, *args: Any, **kwargs: Any) -> None:
        self.loop.run(self.client.apublish(topic, *args, **kwargs))

    def start(self, target: str, *args: Any, **kwargs: Any) -> Pending:
        return Pending(self.loop.start(self.client.acall(target, *args, **kwargs)))

    def stream(self, target: str, *args: Any, **kwargs: Any) -> Reader:
        async def opened() -> AsyncIterator[Any]:  # on the loop, as a program would
            return self.client.astream(target, *args, **kwargs)  # type: ignore[no-any-return]

        return _AsyncReader(self.loop.run(opened()), self.loop)

    def together(self, calls: Sequence[tuple[Self, Planned]]) -> list[Any]:
        async def all_of_them() -> list[Any]:
            coros = [c.client.acall(target, *a, **k) for c, (target, a, k) in calls]
            return await asyncio.gather(*coros, return_exceptions=True)

        return self.loop.run(all_of_them())


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._pool = ThreadPoolExecutor(_THREADS, "contract-pool")
        self._loop.set_default_executor(self._pool)
        self._thread = threading.Thread(target=self._loop.run_forever, name="contract-loop")
        self._thread.start()

    def start(self, coro: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin a coroutine."""
        return asyncio.run_coroutine_threadsafe(coro, self._loop)

    def run(self, coro: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end."""
        future = self.start(coro)
        try:
            return future.result(10 * BOUND)
        finally:
            future.cancel()

    def fill(self) -> None:
        """Have every thread of the loop there: a pool begins them one by one, some of them late."""
        barrier = threading.Barrier(_THREADS)
        for waiting in [self._pool.submit(barrier.wait, BOUND) for _ in range(_THREADS)]:
            waiting.result(BOUND)

    def close(self) -> None:
        """Cancel what is left and end the thread."""

        async def end() -> None:
            left = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await self._loop.shutdown_asyncgens()

        self.run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(BOUND)
        self._loop.close()
        self._pool.shutdown()


class _SyncReader(Reader):
    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items

    def next(self) -> Any:
        return next(self._items)

    def close(self) -> None:
        self._items.close()  # type: ignore[attr-defined]


class _AsyncReader(Reader):
    def __init__(self, items: AsyncIterator[Any], loop: Loop) -> None:
        self._items = items
        self._loop = loop

    def next(self) -> Any:
        async def step() -> Any:
            return await anext(self._items)

        try:
            return self._loop.run(step())
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        self._loop.run(self._items.aclose())  # type: ignore[attr-defined]


def _outcome(get: Callable[[], Any]) -> Any:
    try:
        return get()
    except Exception as exc:
        return exc
