"""The serving side of the redis transport: calls and pushes of the instances of one App."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

from fan.transports.base import Handler, Served
from fan.transports.redis_hub import Hub
from fan.transports.redis_keys import GROUP, Source
from fan.transports.redis_worker import PATIENCE, Limits, Post, RedisListener, new_consumer


class RedisServer(RedisListener):
    """Takes calls and pushes, each with workers of its own: a push that takes long keeps no call
    waiting."""

    def __init__(self, hub: Hub, handler: Handler, limits: Limits) -> None:
        super().__init__(hub, new_consumer())
        self._served: tuple[Served, ...] = ()
        self._calls, self._pushes = (
            Post(hub, handler, self, limits, GROUP, self.consumer) for _ in range(2)
        )
        self.posts = [self._calls, self._pushes]

    def update(self, served: Sequence[Served]) -> None:
        """Raises Unavailable and the like where Redis cannot be reached; called again it goes on
        from there."""
        self._served = tuple(served)
        keys, calls, pushes = self._hub.keys, dict[str, Source](), dict[str, Source]()
        for one in served:
            wanted = [
                keys.calls(one.service, one.version),
                keys.calls(one.service, one.version, one.instance),
            ]
            if one.is_routed:
                wanted.append(keys.calls(one.service))
                push = keys.pushes(one.service)
                pushes[push.stream] = push
            calls.update({source.stream: source for source in wanted})
        self.take(
            {self._calls: [*calls.values()], self._pushes: [*pushes.values()]},
            time.monotonic() + PATIENCE,
        )

    def ours(self, source: Source) -> dict[str, Any]:
        one = self._find(source)
        if one is None:
            return {"want": source.version, "instance": source.instance}
        return {"want": one.version, "instance": one.instance}

    def is_idempotent(self, source: Source, method: str) -> bool:
        one = self._find(source)
        return one is not None and method in one.idempotent

    def _find(self, source: Source) -> Served | None:
        """Which of our instances a stream is for; one of them where there are several."""
        found = [
            one
            for one in self._served
            if one.service == source.service
            and source.version in ("", one.version)
            and source.instance in ("", one.instance)
            and (one.is_routed or source.version)
        ]
        return found[0] if len(found) == 1 else random.choice(found) if found else None
