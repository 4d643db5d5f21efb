"""Tells Redis what became of a message, until Redis has heard it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from fan.error_types import Failure
from fan.errors import FanError
from fan.transports.redis_fields import AT, DELIVERIES, ERROR
from fan.transports.redis_keys import LATER
from fan.transports.redis_lane import Lane
from fan.transports.redis_loop import Loop
from fan.transports.redis_message import Message
from fan.transports.redis_pipe import Part, Pipe
from fan.transports.redis_resp import Refusal, Reply
from fan.transports.redis_scripts import ACK, AGAIN, BURY, Script

#: Seconds before a message that failed is delivered again: the first time; then thrice as long.
FIRST_PAUSE, GROWTH, LAST_PAUSE = 0.1, 3.0, 30.0
#: Seconds before Redis is told again, and times.
RETRY, TRIES = 0.3, 200
#: More fields than that no message of fan's has, and Lua cannot pass on.
MOST_FIELDS = 500


class Settler:
    """The outcomes of one process at one Redis. All of it is called from any thread."""

    #: Seconds before a message that was not taken is offered again.
    pause = 0.5

    def __init__(self, loop: Loop, pipe: Pipe, due: Callable[[Lane, Message], object]) -> None:
        self._loop = loop
        self._pipe = pipe
        #: Called in the loop's thread when a message of a lane is due again.
        self._due = due
        self.is_closed = False

    def __repr__(self) -> str:
        return f"<Settler {self._pipe.place.url}>"

    @property
    def where(self) -> str:
        """The URL of Redis, for errors."""
        return self._pipe.place.url

    def pause_after(self, deliveries: int) -> float:
        """Seconds before the next delivery."""
        return float(min(LAST_PAUSE, FIRST_PAUSE * GROWTH ** (deliveries - 1)))

    def acknowledge(self, lane: Lane, message: Message) -> None:
        """It was handled."""
        source = message.source
        args = (
            lane.group, lane.consumer, int(source.is_deleted), message.number, message.deliveries,
        )  # fmt: skip
        self._tell(lane, message, ACK, (source.stream,), args)

    def again(self, lane: Lane, message: Message, pause: float, kept: int) -> None:
        """It is to be delivered again after `pause` seconds, with `kept` deliveries so far."""
        source = message.source
        args = (
            lane.group, lane.consumer, message.number, message.deliveries, int(pause * 1000), kept,
            LATER,
        )  # fmt: skip

        def done() -> None:
            self._loop.later(pause + 0.002, lambda: self._due(lane, message))

        self._tell(lane, message, AGAIN, (source.stream, source.later), args, done)

    def bury(
        self, lane: Lane, message: Message, why: Failure | FanError, uncounted: int = 0
    ) -> None:
        """Nobody could handle it: it is a dead letter. So many deliveries were none."""
        source = message.source
        if not source.dead:
            logging.getLogger("fan").warning("%r is given up: %s", message, told(why))
            self.acknowledge(lane, message)
            return
        logging.getLogger("fan").error(
            "a message of %s is dead after %d deliveries: %s",
            source.stream, message.deliveries - uncounted, told(why),
        )  # fmt: skip
        own = {ERROR, DELIVERIES, AT}
        fields = [
            part
            for name, value in [*message.fields.items()][:MOST_FIELDS]
            if name not in own
            for part in (name, value)
        ]
        args: tuple[Part, ...] = (
            lane.group, lane.consumer, message.number, message.deliveries, int(source.is_deleted),
            *fields, ERROR, told(why), DELIVERIES, message.deliveries - uncounted,
            AT, message.number.partition(b"-")[0],
        )  # fmt: skip
        self._tell(lane, message, BURY, (source.stream, source.dead), args)

    def _tell(
        self,
        lane: Lane,
        message: Message,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Part],
        then: Callable[[], object] | None = None,
        tries: int = TRIES,
    ) -> None:
        def done(result: list[Reply] | FanError) -> None:
            reply = result if isinstance(result, FanError) else result[0]
            is_over = not isinstance(reply, FanError | Refusal)
            if isinstance(reply, Refusal) and reply.code in ("NOGROUP", "WRONGTYPE"):
                is_over = True  # Redis lost the stream, and the message with it
            if is_over or tries <= 1 or self.is_closed:
                lane.settled(message)
                if is_over and then is not None:
                    then()
                return
            self._loop.later(
                RETRY, lambda: self._tell(lane, message, script, keys, args, then, tries - 1)
            )

        self._pipe.run(script, keys, args, done)


def told(why: Failure | FanError) -> str:
    """`CODE/REASON: message`, as dead letters have it."""
    reason = f"/{why.reason}" if why.reason else ""
    return f"{why.code}{reason}: {why.message}"
