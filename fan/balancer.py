"""Which of the instances that can take a call gets it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from fan.model import Instance


class RoundRobin:
    """Every instance in turn; those that failed an earlier attempt only when there is nobody
    else."""

    def __init__(self, start: int = 0) -> None:
        self._turn = itertools.count(start)

    def turn(self, of: int) -> int:
        """The next place of `of` places."""
        return next(self._turn) % of

    def pick(
        self, instances: Sequence[Instance], tried: AbstractSet[str] = frozenset()
    ) -> Instance:
        """One of the instances, which must not be empty."""
        if tried:
            fresh = [i for i in instances if i.id not in tried]
            instances = fresh or instances
        if len(instances) == 1:
            return instances[0]
        return instances[self.turn(len(instances))]


def by_shard(instances: Sequence[Instance], shard: str) -> Instance:
    """Rendezvous hashing (Thaler and Ravishankar, 1996): the same key goes to the same instance
    until the membership changes, and one more instance takes about 1/(n+1) of the keys."""

    from hashlib import blake2b

    def score(instance: Instance) -> bytes:
        return blake2b(f"{instance.id}\0{shard}".encode(), digest_size=8).digest()

    return max(instances, key=score)
