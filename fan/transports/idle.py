"""The connections that a transport keeps for their next use."""

from __future__ import annotations

from typing import Protocol, TypeVar


class Kept(Protocol):
    """A connection that nobody uses now."""

    def is_stale(self) -> bool:
        """Whether its server has closed it, or it is of no use any more."""


K = TypeVar("K")
C = TypeVar("C", bound=Kept)


def take_stale(idle: dict[K, list[C]]) -> list[C]:
    """Take out what is stale, to be closed. Whoever adds to a list or takes one away holds a lock
    meanwhile; who takes a connection out of one needs none."""
    stale = []
    for place, kept in list(idle.items()):
        for connection in list(kept):
            try:
                kept.remove(connection)
            except ValueError:  # in use by now
                continue
            if connection.is_stale():
                stale.append(connection)
            else:
                kept.append(connection)  # after all of them the order is as before
        if not kept:
            del idle[place]
    return stale
