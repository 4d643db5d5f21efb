"""Answers of idempotency keys that all processes at one Redis share."""

from __future__ import annotations

import time

from fan.errors import FanError
from fan.transports.base import Ledger
from fan.transports.redis_keys import Keys
from fan.transports.redis_pipe import Pipe
from fan.transports.redis_scripts import SETTLE

#: First byte of what is under a key: a claim, with its holder behind it, or an answer.
CLAIM, ANSWER = b"c", b"a"


class RedisLedger(Ledger):
    """One string per key: `SET NX PX` makes the claim, a script turns it into the answer."""

    def __init__(self, pipe: Pipe, keys: Keys) -> None:
        self._pipe = pipe
        self._keys = keys

    def __repr__(self) -> str:
        return f"<RedisLedger {self._pipe.place.url}>"

    def claim(self, key: str, holder: str, *, ttl: float, deadline: float) -> bytes | None:
        mine = CLAIM + holder.encode()
        (found,) = self._pipe.ask(
            ("SET", self._keys.once(key), mine, "NX", "GET", "PX", _ms(ttl)), deadline=deadline
        )
        if found is None or found == mine:  # the second: its answer did not reach us
            return b""
        return bytes(found[1:]) if found[:1] == ANSWER else None

    def settle(
        self, key: str, holder: str, answer: bytes | None, *, ttl: float, deadline: float
    ) -> None:
        kept = b"" if answer is None else ANSWER + answer
        args = (CLAIM + holder.encode(), kept, _ms(ttl))
        while True:
            try:
                self._pipe.ask_script(SETTLE, (self._keys.once(key),), args, deadline=deadline)
                return
            except FanError as exc:
                # A claim that is not settled keeps all others waiting; twice changes nothing.
                if exc.executed == "no" or time.monotonic() >= deadline:
                    raise


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))
