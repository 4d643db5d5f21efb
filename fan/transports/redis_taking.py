"""Acknowledges calls before they run, so that nobody runs them twice."""

from __future__ import annotations

from collections.abc import Callable

from fan.errors import FanError
from fan.transports.redis_keys import Source
from fan.transports.redis_message import Message
from fan.transports.redis_pipe import Part, Pipe, call_of
from fan.transports.redis_resp import Refusal, Reply
from fan.transports.redis_scripts import TAKE


class Taking:
    """The acknowledgements of one lane. `told` gets the calls and what Redis said of each: 1 for
    those that are ours alone now; None where nobody knows. All of it is called in the loop's
    thread."""

    def __init__(
        self, pipe: Pipe, group: str, consumer: str, told: Callable[[list[Message], Reply], None]
    ) -> None:
        self._pipe = pipe
        self._who = (group, consumer)
        self._told = told
        #: Calls whose acknowledgement is on its way over the lane's own connection.
        self._here: list[Message] = []

    def __repr__(self) -> str:
        return f"<Taking {len(self._here)} calls>"

    def here(
        self, source: Source, messages: list[Message]
    ) -> tuple[bytes, Callable[[Reply], None]]:
        """What is to be written to the lane's own connection, and who is told the reply."""

        def got(reply: Reply) -> None:
            self._here = [message for message in self._here if message not in messages]
            if isinstance(reply, Refusal) and reply.code == "NOSCRIPT":
                self.apart(source, messages)
            else:
                self._told(messages, reply)

        self._here += messages
        return call_of(TAKE, *self._what(source, messages)), got

    def apart(self, source: Source, messages: list[Message]) -> None:
        """The same over another connection: a read has Redis keep what comes after it waiting."""

        def done(result: list[Reply] | FanError) -> None:
            self._told(messages, None if isinstance(result, FanError) else result[0])

        self._pipe.run(TAKE, *self._what(source, messages), done)

    def lost(self) -> None:
        """The lane's own connection is gone, and what was to come over it."""
        doubtful, self._here = self._here, []
        if doubtful:
            self._told(doubtful, None)

    def _what(
        self, source: Source, messages: list[Message]
    ) -> tuple[tuple[str, ...], tuple[Part, ...]]:
        numbers = (message.number for message in messages)
        return (source.stream, source.hand), (*self._who, *numbers)
