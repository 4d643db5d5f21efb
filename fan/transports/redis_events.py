"""Events over Redis: one stream per topic, and a consumer group for each group of subscribers."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from fan.errors import FanError
from fan.transports.base import Handler, Served, Subscription
from fan.transports.redis_hub import Hub
from fan.transports.redis_keys import PRIVATE, Source
from fan.transports.redis_scripts import DESTROY
from fan.transports.redis_worker import (
    FAREWELL,
    PATIENCE,
    Limits,
    Post,
    RedisListener,
    new_consumer,
)


class Subscribed(RedisListener):
    """One subscription. Without a group it has one of its own, which ends with it; when it is
    killed, other subscribers of the topic end it."""

    def __init__(
        self, hub: Hub, subscription: Subscription, handler: Handler, limits: Limits
    ) -> None:
        consumer = new_consumer()
        super().__init__(hub, consumer)
        self._subscription = subscription
        group = subscription.group or f"{PRIVATE}{consumer}"
        self._source = hub.keys.events(subscription.topic, group)
        self._post = Post(hub, handler, self, limits, group, consumer)
        self.posts = [self._post]

    def open(self) -> None:
        """Hear what is published from now on. Raises what keeps Redis from being reached."""
        deadline = time.monotonic() + PATIENCE
        # Before the group is there: one without a living consumer is ended by others.
        self._joined = {self._up}
        self._hub.presence.join([self._up], deadline)
        self._make_one(self._source, "$", deadline)
        self.take({self._post: [self._source]}, deadline)

    def update(self, served: Sequence[Served]) -> None:
        """It hears of its topic whatever is served."""

    def close(self, timeout: float = 5.0) -> None:
        was_closed = self._is_closed
        super().close(timeout)
        is_ours = self._hub.loop.pid == os.getpid()  # not a forked child's copy
        if self._source.is_private and is_ours and not was_closed:
            keys = (self._source.stream, self._source.later)
            until = time.monotonic() + FAREWELL
            with suppress(FanError):
                self._hub.pipe.ask_script(DESTROY, keys, (self._source.group,), deadline=until)

    def ours(self, source: Source) -> dict[str, Any]:
        return {"service": self._subscription.service, "method": self._subscription.method}

    def is_idempotent(self, source: Source, method: str) -> bool:
        return False
