"""Events on their way from the threads of a transport to the one that prints.

An event counts as handled once it is printed: who listens for a group and goes in the middle leaves
it to another member.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from fan import App, Request

#: Seconds between two looks at whether anybody still reads.
GLANCE = 1.0


class Arrived:
    """An event in hand. `done` lets its transport go on, with what went wrong if anything did."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.answer: Future[None] = Future()

    def done(self, error: BaseException | None = None) -> None:
        """Handled, or not; the first word counts."""
        if self.answer.done():
            return
        if error is None:
            self.answer.set_result(None)
        else:
            self.answer.set_exception(error)


class Listening:
    """The subscriptions of one command; `close` ends them."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._arrived: queue.SimpleQueue[Arrived] = queue.SimpleQueue()
        self._subscribers: list[Any] = []
        self._lock = threading.Lock()
        self._in_hand: set[Arrived] = set()
        self._is_over = False

    def __repr__(self) -> str:
        return f"<Listening topics={len(self._subscribers)} in_hand={len(self._in_hand)}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def open(self, topic: str, *, group: str, transport: str, peer: str) -> None:
        """Begin to hear of a topic. Raises FanError."""
        subscriber = self._app.subscribe(
            topic, self._take, group=group, transport=transport, peer=peer
        )
        self._subscribers.append(subscriber)

    def events(self, glance: Callable[[], None]) -> Iterator[Arrived]:
        """Each as it comes, until whoever asks has enough; `glance` is called now and then."""
        while True:
            try:
                yield self._arrived.get(timeout=GLANCE)
            except queue.Empty:
                glance()

    def drain(self) -> None:
        """Take nothing more: what is not in hand stays for others."""
        for subscriber in self._subscribers:
            subscriber.drain()

    def close(self) -> None:
        """End the subscriptions; what is in hand is not handled. Twice does no harm."""
        self.drain()
        with self._lock:
            self._is_over = True
            left = list(self._in_hand)
        for arrived in left:
            arrived.done(_gone())
        for subscriber in self._subscribers:
            subscriber.close()

    def _take(self, *args: Any, **kwargs: Any) -> None:
        """What the transport calls, in a thread of its own; it waits for the printing."""
        from fan import current

        context = current()
        assert context is not None
        assert context.request is not None
        arrived = Arrived(context.request)
        with self._lock:
            if self._is_over:
                raise _gone()
            self._in_hand.add(arrived)
        self._arrived.put(arrived)
        try:
            arrived.answer.result()
        finally:
            with self._lock:
                self._in_hand.discard(arrived)


def _gone() -> Exception:
    from fan import Unavailable

    return Unavailable("the listener is gone", reason="draining")
