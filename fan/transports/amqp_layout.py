"""Which exchanges and queues were made over a connection: each is made once, however many want
it."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future

from fan.errors import FanError, Internal
from fan.transports.amqp_failures import Refused, refused
from fan.transports.amqp_link import Link
from fan.transports.amqp_names import Spec
from fan.transports.amqp_part import REST
from fan.transports.amqp_steps import Desk, Steps, make, run

#: A queue with what belongs to it, or an exchange alone.
Thing = Spec | str
Done = Callable[[FanError | None], None]


class Layout:
    """In the link's thread."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._made: set[Thing] = set()
        self._under_way: dict[Thing, list[Done]] = {}
        #: Counts how often all was forgotten: what was begun before does not count.
        self._round = 0
        self._rests_until = 0.0

    def has(self, thing: Thing) -> bool:
        """Whether it was made."""
        return thing in self._made

    def forget(self) -> None:
        """Make everything anew: it may be gone."""
        self._made.clear()
        self._round += 1

    def lose(self) -> None:
        """Make everything anew, and not at once: a queue was deleted."""
        self.forget()
        self._rests_until = time.monotonic() + REST

    def make(self, thing: Thing, done: Done) -> None:
        """Make it, and call `done` with what kept it from being made, or None."""
        waiting = self._under_way.get(thing)
        if waiting is not None:
            waiting.append(done)
            return
        self._under_way[thing] = [done]
        round = self._round

        def finish(made: Future[None]) -> None:
            failure = self._failure(thing, made)
            if failure is None and round == self._round:
                self._made.add(thing)
            for done in self._under_way.pop(thing):
                done(failure)

        rest = self._rests_until - time.monotonic()
        run(self._link, lambda desk: _steps(desk, thing, rest)).add_done_callback(finish)

    def _failure(self, thing: Thing, made: Future[None]) -> FanError | None:
        exc = made.exception()
        if exc is None or isinstance(exc, FanError):
            return exc
        if isinstance(exc, Refused):
            name = thing.name if isinstance(thing, Spec) else thing
            return refused(self._link.url, f"to make {name}", exc)
        return Internal(f"the queue could not be made: {exc}", executed="no")


def _steps(desk: Desk, thing: Thing, rest: float) -> Steps:
    if rest > 0:
        yield desk.wait(rest)
    if isinstance(thing, str):
        yield desk.exchange(thing)
    else:
        yield from make(desk, thing)
