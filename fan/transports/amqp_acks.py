"""Acknowledgements of one channel: those of one turn of the loop in as few frames as can be.

Each is a message between processes of the broker, and one that counts for all before it too costs
no more than one of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fan.transports.amqp_loop import guarded


class Acks:
    """What is in hand over a channel, in the order in which it came. In the link's thread."""

    __slots__ = ("_at_end", "_channel", "_done", "_in_hand", "_tell_all")

    def __init__(self, channel: Any, at_end: Callable[[Callable[[], None]], None]) -> None:
        self._channel = channel
        #: Has something run at the end of the turn, before it is sent what there is to send.
        self._at_end = at_end
        self._tell_all = guarded(self._tell)
        #: Tags that came and were not told of -> whether they are done with.
        self._in_hand: dict[int, bool] = {}
        #: Those that are told of at the end of this turn.
        self._done: list[int] = []

    def __repr__(self) -> str:
        return f"<Acks {len(self._in_hand)} in hand>"

    @property
    def is_open(self) -> bool:
        """Whether the broker still hears of what came over the channel."""
        return bool(self._channel.is_open)

    def came(self, tag: int) -> None:
        """A message came."""
        self._in_hand[tag] = False

    def ack(self, tag: int) -> None:
        """It is done with."""
        self._in_hand[tag] = True
        if not self._done:
            self._at_end(self._tell_all)
        self._done.append(tag)

    def give_back(self, tag: int) -> None:
        """Have it delivered again."""
        del self._in_hand[tag]
        self._channel.basic_nack(tag, requeue=True)

    def _tell(self) -> None:
        done, self._done = self._done, []
        if not self.is_open:
            return
        last, told = 0, []
        for tag, is_done in self._in_hand.items():
            if not is_done:
                break
            last = tag
            told.append(tag)
        if told:
            self._channel.basic_ack(last, multiple=len(told) > 1)
        for tag in done:
            if tag > last:
                self._channel.basic_ack(tag)
                told.append(tag)
        for tag in told:
            del self._in_hand[tag]
