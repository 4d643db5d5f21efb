"""Something that works over a link, on a channel of its own: an error closes its channel, and harms
nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fan.errors import FanError
from fan.transports.amqp_loop import guarded

if TYPE_CHECKING:
    from fan.transports.amqp_link import Link

#: Seconds until the next try, doubled each time, at most so many.
DELAY, MAX_DELAY = 0.05, 5.0
#: Seconds until a queue that somebody deleted is made again. Where a quorum queue goes, RabbitMQ's
#: channels look for it for 30 ms, and one that finds another of its name consumes that without
#: ever passing on a message of it.
REST = 0.5


class Part:
    """Something that works over a link, on a channel of its own. All of it runs in the link's
    thread. `channel` is None while there is none that is ready."""

    #: Whether the link has to be there for its sake, also when nobody asks for anything.
    is_lasting = False
    #: Whether the others have something to say by it when the link is closed, so it ends last.
    speaks_for_others = False

    def __init__(self, link: Link) -> None:
        self.link = link
        self.channel: Any = None
        self._opening: Any = None
        self._delay = 0.0
        self._has_left = False

    def start(self) -> None:
        """Open a channel, over a connection that is up."""
        if self._has_left or self.link.state != "up":
            return
        self._opening = self.link.connection.channel(on_open_callback=guarded(self._opened))
        self._opening.add_on_close_callback(guarded(self._closed))

    def ready(self) -> None:
        """The channel can be used from now on."""
        self.channel, self._delay = self._opening, 0.0
        self.flush()

    def leave(self) -> None:
        """Close the channel for good."""
        self._has_left = True
        channel, self.channel, self._opening = self._opening, None, None
        if channel is not None and channel.is_open:
            channel.close()

    def _opened(self, channel: Any) -> None:
        if channel is self._opening:
            self.prepare(channel)

    def _closed(self, channel: Any, reason: BaseException) -> None:
        if channel is not self._opening:
            return
        self.channel = self._opening = None
        connection = self.link.connection
        if self._has_left or connection is None or not connection.is_open:
            return  # `lost` says so
        self.broken(reason)
        self.link.later(self._delay, self.start)
        self._delay = min(MAX_DELAY, 2 * self._delay or DELAY)

    def lost(self, failure: FanError) -> None:
        """The connection is gone."""
        self.channel = self._opening = None
        self.broken(failure)

    def prepare(self, channel: Any) -> None:
        """Make an open channel ready, then call `ready`."""
        self.ready()

    def broken(self, reason: BaseException) -> None:
        """The channel closed; another one is on its way."""

    def refused(self, failure: FanError) -> None:
        """No connection could be made, once."""

    def flush(self) -> None:
        """Send what waited for the channel."""
