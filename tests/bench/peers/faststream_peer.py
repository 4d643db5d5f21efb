"""FastStream over Redis lists or RabbitMQ queues: a subscriber of 16 workers, and requests."""

from __future__ import annotations

import asyncio
import sys

from calling import answer_with_tasks, say


def broker_of(url: str):
    """The broker, how one says where a request goes, and what lets 16 run at once."""
    if url.startswith("redis"):
        from faststream.redis import RedisBroker

        return RedisBroker(url, logger=None), "list", {"max_workers": 16}
    from faststream.rabbit import RabbitBroker

    return RabbitBroker(url, logger=None), "queue", {}  # as many as are prefetched


async def main(what: str, url: str) -> None:
    broker, where, workers = broker_of(url)
    if what == "serve":

        @broker.subscriber(**{where: "bench.echo"}, **workers)
        async def echo(text: str) -> str:
            return text

        await broker.start()
        say("ready")
        await asyncio.to_thread(sys.stdin.read)
    else:
        await broker.start()

        async def call(text: str) -> str:
            answer = await broker.request(text, **{where: "bench.echo"}, timeout=10.0)
            return await answer.decode()

        await answer_with_tasks(call)
    await broker.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
