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
        #: Which of our instances a stream is for.
        self._by_stream: dict[str, list[Served]] = {}
        self._calls, self._pushes = (
            Post(hub, handler, self, limits, GROUP, self.consumer) for _ in range(2)
        )
        self.posts = [self._calls, self._pushes]

    def update(self, served: Sequence[Served]) -> None:
        """Raises Unavailable and the like where Redis cannot be reached; called again it goes on
        from there."""
        keys, calls, pushes = self._hub.keys, dict[str, Source](), dict[str, Source]()
        by_stream: dict[str, list[Served]] = {}
        for one in served:
            of_calls = [
                keys.calls(one.service, one.version),
                keys.calls(one.service, one.version, one.instance),
            ]
            of_pushes = []
            if one.is_routed:
                of_calls.append(keys.calls(one.service))
                of_pushes.append(keys.pushes(one.service))
            calls.update({source.stream: source for source in of_calls})
            pushes.update({source.stream: source for source in of_pushes})
            for source in of_calls + of_pushes:
                by_stream.setdefault(source.stream, []).append(one)
        self._by_stream = by_stream
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
        found = self._by_stream.get(source.stream)
        if not found:
            return None
        return found[0] if len(found) == 1 else random.choice(found)
