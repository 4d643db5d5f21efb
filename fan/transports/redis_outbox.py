"""Replies on their way to the lists of callers: what comes together goes together."""

from __future__ import annotations

import logging
import threading
import time
from typing import NamedTuple

from fan.errors import FanError
from fan.transports.redis_keys import Keys
from fan.transports.redis_loop import Loop
from fan.transports.redis_pipe import Pipe
from fan.transports.redis_resp import Refusal, Reply, pack, pack_all

#: Milliseconds that replies wait for a caller who does not read them.
TTL = 60_000
#: Seconds before a reply that Redis did not take is sent again.
PAUSE = 0.2


class Letter(NamedTuple):
    """One reply."""

    caller: str
    element: bytes
    #: Where the call is noted as being in hand, and under which number; empty for nowhere.
    hand: str
    number: bytes
    #: The point of `time.monotonic()` after which nobody wants it.
    until: float


class Outbox:
    """The replies of one process through one Redis."""

    def __init__(self, loop: Loop, pipe: Pipe, keys: Keys) -> None:
        self._loop = loop
        self._pipe = pipe
        self._keys = keys
        self._lock = threading.Lock()
        self._letters: list[Letter] = []
        self._under_way = 0
        self._is_nudged = False

    def __repr__(self) -> str:
        return f"<Outbox {len(self._letters)} waiting, {self._under_way} under way>"

    @property
    def is_empty(self) -> bool:
        """Whether Redis has all that was given."""
        with self._lock:
            return not self._letters and not self._under_way

    def add(self, letter: Letter) -> None:
        """Take a reply, which goes with the next `flush`."""
        with self._lock:
            self._letters.append(letter)

    def nudge(self) -> None:
        """Send what there is, with what comes in the next moment."""
        with self._lock:
            if self._is_nudged:
                return
            self._is_nudged = True
        self._loop.soon(self.flush)

    def flush(self) -> None:
        """Send what there is."""
        with self._lock:
            letters, self._letters = self._letters, []
            self._is_nudged = False
            self._under_way += len(letters)
        if not letters:
            return
        lists: dict[str, list[Letter]] = {}
        hands: dict[str, list[bytes]] = {}
        for letter in letters:
            lists.setdefault(letter.caller, []).append(letter)
            if letter.hand:
                hands.setdefault(letter.hand, []).append(letter.number)
        commands = []
        for caller, some in lists.items():
            key = self._keys.replies(caller)
            commands.append(pack_all(("RPUSH", key, *[one.element for one in some])))
            commands.append(pack("PEXPIRE", key, TTL))
        commands += [pack_all(("HDEL", hand, *numbers)) for hand, numbers in hands.items()]
        groups = list(lists.values())
        self._pipe.post(
            b"".join(commands), len(commands), lambda result: self._done(letters, groups, result)
        )

    # In the loop's thread

    def _done(
        self, letters: list[Letter], groups: list[list[Letter]], result: list[Reply] | FanError
    ) -> None:
        again: list[Letter] = []
        if isinstance(result, FanError):
            again = letters
        else:
            for some, reply in zip(groups, result[: 2 * len(groups) : 2], strict=True):
                if isinstance(reply, Refusal):
                    again += self._refused(some, reply)
        with self._lock:
            self._under_way -= len(letters)
            if again:
                now = time.monotonic()
                self._letters += [letter for letter in again if letter.until > now]
                if self._letters and not self._is_nudged:
                    self._is_nudged = True
                    self._loop.later(PAUSE, self.flush)

    def _refused(self, letters: list[Letter], why: Refusal) -> list[Letter]:
        """Which of them to send again: one that comes back has memory again, say."""
        if why.code == "WRONGTYPE":
            logging.getLogger("fan").warning(
                "a reply to %s is lost: its key is no list", letters[0].caller
            )
            return []
        return letters
