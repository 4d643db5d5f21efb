"""The redis transport, with a handler that only answers, against bare redis-py.

The base line is what one writes by hand with redis-py on the same server: requests by XADD, a
worker that reads a stream by a group in batches and answers them in one pipeline (XACK, RPUSH,
PEXPIRE), and a caller that sends its request and waits at its own list in one pipeline, too: one
round trip. 16 callers are 16 threads, each with a connection. It knows no deadlines, errors or
redelivery. What a loop without callers gets, which keeps 16 requests in flight over one connection
and sends all that are due in one pipeline, is told beside it. Client and server are separate
processes. One caller; 16 threads; 64 asyncio callers, whose base are the 16 threads; and the whole
stack, App to App, with 16 threads.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from bench_ipc import THREADS, latency, row, tasks_throughput, throughput

import fan
from fan.context import new_id
from fan.message import Request, Response
from fan.model import Address
from fan.settings import Settings
from fan.tools.servers_redis import Redis
from fan.transports.base import Served
from fan.transports.redis import RedisTransport

ROUNDS = 5
CALLS = 1500
#: A payload of 100 bytes.
BODY = b'["' + b"x" * 96 + b'"]'
STREAM, GROUP = "bare:requests", "workers"


class Echo(fan.Service):
    """What the Apps call."""

    name = "bench"
    version = "1.0.0"

    @fan.rpc
    def echo(self, text: str) -> str:
        """The text."""
        return text


def serve(url: str) -> None:
    """All three servers, until standard input ends."""
    stop = threading.Event()
    bare = threading.Thread(target=serve_bare, args=(url, stop))
    bare.start()
    settings = Settings(redis_url=url, registry="memory:", queue="redis")
    transport = RedisTransport(settings)

    def answer(request: Request, **_: object) -> Response:
        return Response(id=request.id, served="1.0.0/only", body=request.body)

    listener = transport.serve("", answer)
    listener.update([Served("raw", "1.0.0", "only")])
    with fan.App(Echo(), settings=settings) as app:
        app.start(("redis",))
        print("ready", flush=True)
        sys.stdin.read()
        app.stop()
    listener.close(0)
    transport.close()
    stop.set()
    bare.join()


def serve_bare(url: str, stop: threading.Event) -> None:
    """The base line's worker."""
    import redis

    client = redis.Redis.from_url(url, socket_timeout=None)
    with contextlib.suppress(redis.ResponseError):
        client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    while not stop.is_set():
        found = client.xreadgroup(GROUP, "one", {STREAM: ">"}, count=100, block=200)
        if not found:
            continue
        pipe = client.pipeline(transaction=False)
        lists: dict[bytes, list[bytes]] = {}
        for _, entries in found:
            pipe.xack(STREAM, GROUP, *(number for number, _ in entries))
            for _, fields in entries:
                lists.setdefault(fields[b"reply"], []).append(fields[b"body"])
        for key, bodies in lists.items():
            pipe.rpush(key, *bodies)
            pipe.pexpire(key, 60_000)
        pipe.execute()
    client.close()


class Bare:
    """The base line's caller."""

    def __init__(self, url: str) -> None:
        import redis

        self._client = redis.Redis.from_url(url, socket_timeout=None)
        self._reply = f"bare:{new_id()}"

    def call(self) -> Any:
        """One request and its reply."""
        pipe = self._client.pipeline(transaction=False)
        pipe.xadd(STREAM, {"id": new_id(), "reply": self._reply, "body": BODY})
        pipe.blpop([self._reply], 5)
        return pipe.execute()

    def in_flight(self, calls: int) -> float:
        """Calls per second of a loop with `THREADS` of them in flight."""
        sent = done = 0
        free = THREADS
        began = time.perf_counter()
        while done < calls:
            pipe = self._client.pipeline(transaction=False)
            for _ in range(min(free, calls - sent)):
                pipe.xadd(STREAM, {"id": new_id(), "reply": self._reply, "body": BODY})
                sent += 1
            pipe.execute()
            _, replies = self._client.blmpop(5, 1, self._reply, direction="LEFT", count=100)
            free = len(replies)
            done += free
        return calls / (time.perf_counter() - began)

    def close(self) -> None:
        """Close its connection."""
        self._client.close()


@contextlib.contextmanager
def server(url: str) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, __file__, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.stdin.close()


def request() -> Request:
    """A request as an App sends it."""
    return Request(
        id=new_id(),
        service="raw",
        method="echo",
        timeout_ms=5000,
        want="1.0.0",
        traceparent=f"00-{new_id()}-0123456789abcdef-00",
        caller="bench",
        caller_instance="bench-0123456789ab",
        body=BODY,
    )


def measure(url: str) -> dict[str, float]:
    transport = RedisTransport(Settings(redis_url=url, registry="memory:", queue="redis"))
    address: Address = transport.home()
    app = fan.App(settings=Settings(redis_url=url, registry="memory:", queue="redis"))
    whole = app.using(peers=(address.url,))
    names = ("bare 1", "ours 1", "app 1", "bare 16", "loop 16", "ours 16", "ours 64", "app 16")
    got: dict[str, list[float]] = {name: [] for name in names}
    clients: list[Bare] = []

    def new_client() -> Callable[[], object]:
        clients.append(Bare(url))
        return clients[-1].call

    def ours() -> object:
        return transport.call(address, request())

    def through_apps() -> object:
        return whole.call("bench.echo", "x" * 96)

    one = Bare(url)
    for _ in range(ROUNDS):
        got["bare 1"].append(latency(one.call, CALLS))
        got["ours 1"].append(latency(ours, CALLS))
        got["app 1"].append(latency(through_apps, CALLS))
        got["bare 16"].append(throughput(new_client, CALLS))
        got["loop 16"].append(one.in_flight(2 * CALLS))
        got["ours 16"].append(throughput(lambda: ours, CALLS))
        got["ours 64"].append(
            tasks_throughput(lambda: transport.acall(address, request()), CALLS)
        )
        got["app 16"].append(throughput(lambda: through_apps, CALLS))
        while clients:
            clients.pop().close()
    one.close()
    app.close()
    transport.close()
    return {name: statistics.median(values) for name, values in got.items()}


def run() -> list[dict[str, Any]]:
    with Redis() as redis:
        redis.start()
        with server(redis.url):
            median = measure(redis.url)
    one, many = median["bare 1"], median["bare 16"]
    note = f"a loop with {THREADS} in flight: {median['loop 16']:.0f}"
    return [
        row("redis transport, one caller", median["ours 1"], one, "us", "<= 1.6"),
        row("redis transport, 16 threads", median["ours 16"], many, "calls/s", ">= 0.6")
        | {"note": note},
        row("redis transport, 64 asyncio callers", median["ours 64"], many, "calls/s", ">= 0.6"),
        row("redis, App to App, one caller", median["app 1"], one, "us", "<= 1.6"),
        row("redis, App to App, 16 threads", median["app 16"], many, "calls/s", ">= 0.6"),
    ]


if __name__ == "__main__":
    serve(sys.argv[1])
