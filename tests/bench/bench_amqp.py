"""The amqp transport alone, with a handler that only answers, against bare pika on one RabbitMQ.

Client and server are separate processes. Bare pika is a request and its reply, published as ours
are: confirmed and mandatory, with direct reply-to; on the other side acknowledged, then answered.
One caller waits on a BlockingConnection; sixteen are sixteen calls in flight on one
SelectConnection, whose callbacks do nothing else, or sixteen threads with a connection each,
whichever is quicker.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pika

from fan.message import Request, Response
from fan.settings import Settings
from fan.tools.servers_rabbitmq import RabbitMQ
from fan.transports.amqp import AmqpTransport
from fan.transports.base import Served

ROUNDS = 5
CALLS = 400
CALLERS = 16
TASKS = 64
QUEUE = "bench.bare"
REPLY_TO = "amq.rabbitmq.reply-to"
#: 100 bytes, as an App sends them.
BODY = msgspec.json.encode({"name": "x" * 89})


def request() -> Request:
    """A request as an App sends it."""
    return Request(
        id="0123456789abcdef0123456789abcdef",
        service="greeter",
        method="hello",
        want="1.0.0",
        timeout_ms=5000,
        traceparent="00-0123456789abcdef0123456789abcdef-0123456789abcdef-00",
        caller="bench",
        caller_instance="bench-0123456789ab",
        gen=12,
        body=BODY,
    )


def serve_ours(url: str) -> None:
    """Answer through the transport until standard input ends."""

    def answer(request: Request, **_: object) -> Response:
        return Response(id=request.id, served="1.0.0/greeter-0123456789ab", body=request.body)

    transport = AmqpTransport(Settings(amqp_url=url))
    listener = transport.serve("", answer)
    listener.update([Served("greeter", "1.0.0", "greeter-0123456789ab")])
    print("ready", flush=True)
    sys.stdin.read()
    listener.close(0)
    transport.close()


def serve_bare(url: str) -> None:
    """Answer with bare pika until standard input ends."""

    def opened(connection: Any) -> None:
        connection.channel(on_open_callback=declare)

    def declare(channel: Any) -> None:
        channel.queue_declare(QUEUE, callback=lambda _: consume(channel))

    def consume(channel: Any) -> None:
        channel.basic_qos(prefetch_count=32)
        channel.basic_consume(QUEUE, answer, callback=lambda _: print("ready", flush=True))

    def answer(channel: Any, method: Any, properties: Any, body: bytes) -> None:
        channel.basic_ack(method.delivery_tag)
        reply = pika.BasicProperties(correlation_id=properties.correlation_id)
        channel.basic_publish("", properties.reply_to, body, reply)

    def end_with_input() -> None:
        sys.stdin.read()
        connection.ioloop.add_callback_threadsafe(connection.ioloop.stop)

    connection = pika.SelectConnection(pika.URLParameters(url), opened)
    threading.Thread(target=end_with_input, daemon=True).start()
    connection.ioloop.start()


@contextlib.contextmanager
def server(kind: str, url: str) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, __file__, kind, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.stdin.close()


class BareClient:
    """One connection, one call at a time."""

    def __init__(self, url: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._channel = self._connection.channel()
        self._channel.confirm_delivery()
        self._channel.basic_consume(REPLY_TO, self._replied, auto_ack=True)
        self._replies: list[bytes] = []

    def _replied(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self._replies.append(body)

    def call(self) -> bytes:
        properties = pika.BasicProperties(reply_to=REPLY_TO, correlation_id="1")
        self._channel.basic_publish("", QUEUE, BODY, properties, mandatory=True)
        while not self._replies:
            self._connection.process_data_events(None)
        return self._replies.pop()

    def close(self) -> None:
        self._connection.close()


class BareLoop:
    """One connection with `CALLERS` calls in flight, each followed by the next."""

    def __init__(self, url: str, calls: int) -> None:
        self._left, self._open = calls, calls
        self._began = 0.0
        self.seconds = 0.0
        self._connection = pika.SelectConnection(pika.URLParameters(url), self._opened)
        self._connection.ioloop.start()
        self._connection.ioloop.close()

    def _opened(self, connection: Any) -> None:
        connection.channel(on_open_callback=self._ready)

    def _ready(self, channel: Any) -> None:
        channel.confirm_delivery(lambda frame: None)
        channel.basic_consume(
            REPLY_TO, self._replied, auto_ack=True, callback=lambda _: self._begin(channel)
        )

    def _begin(self, channel: Any) -> None:
        self._began = time.perf_counter()
        for _ in range(CALLERS):
            self._call(channel)

    def _call(self, channel: Any) -> None:
        if self._left:
            self._left -= 1
            properties = pika.BasicProperties(reply_to=REPLY_TO, correlation_id="1")
            channel.basic_publish("", QUEUE, BODY, properties, mandatory=True)

    def _replied(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self._open -= 1
        if self._open:
            self._call(channel)
            return
        self.seconds = time.perf_counter() - self._began
        self._connection.add_on_close_callback(lambda c, _: c.ioloop.stop())
        self._connection.close()


def latency(call: Callable[[], object], calls: int = CALLS) -> float:
    """The median of single calls, in microseconds."""
    clock, times = time.perf_counter, []
    for _ in range(calls):
        began = clock()
        call()
        times.append(clock() - began)
    return statistics.median(times) * 1e6


def throughput(make: Callable[[], Callable[[], object]], calls: int = CALLS) -> float:
    """Calls per second of CALLERS threads; each makes its `call` first."""
    each = calls * 10 // CALLERS
    start = threading.Barrier(CALLERS + 1)

    def work() -> None:
        call = make()
        call()
        start.wait()
        for _ in range(each):
            call()

    threads = [threading.Thread(target=work) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return each * CALLERS / (time.perf_counter() - began)


def tasks_throughput(submit: Callable[[], Any], calls: int = CALLS) -> float:
    """Calls per second of TASKS asyncio tasks of one loop."""
    each = calls * 10 // TASKS

    async def work() -> None:
        for _ in range(each):
            await asyncio.wrap_future(submit())

    async def main() -> float:
        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(TASKS)))
        return each * TASKS / (time.perf_counter() - began)

    return asyncio.run(main())


def run() -> list[dict[str, Any]]:
    if said := RabbitMQ.missing():
        sys.exit(said)
    with RabbitMQ().start() as broker:
        return measure(broker.url)


def measure(url: str) -> list[dict[str, Any]]:
    """The rows, on the broker at a URL."""
    got: dict[str, list[float]] = {
        name: [] for name in ("bare 1", "ours 1", "bare loop", "bare 16", "ours 16", "ours 64")
    }
    message = request()
    transport = AmqpTransport(Settings(amqp_url=url))
    address = transport.home()
    with server("bare", url), server("ours", url):
        one = BareClient(url)
        clients: list[BareClient] = []

        def new_client() -> Callable[[], object]:
            clients.append(BareClient(url))
            return clients[-1].call

        for _ in range(ROUNDS):
            got["bare 1"].append(latency(one.call))
            got["ours 1"].append(latency(lambda: transport.call(address, message)))
            got["bare loop"].append(CALLS * 10 / BareLoop(url, CALLS * 10).seconds)
            got["bare 16"].append(throughput(new_client))
            got["ours 16"].append(throughput(lambda: lambda: transport.call(address, message)))
            got["ours 64"].append(tasks_throughput(lambda: transport.submit(address, message)))
            while clients:
                clients.pop().close()
        one.close()
        transport.close()
    median = {name: statistics.median(values) for name, values in got.items()}
    base = max(median["bare loop"], median["bare 16"])
    which = "one loop" if base == median["bare loop"] else "16 connections"
    note = f"bare: {which}; {median['bare loop']:.0f} in one loop, {median['bare 16']:.0f} in 16"
    return [
        row("amqp transport, one caller", median["ours 1"], median["bare 1"], "us", "<= 1.6"),
        row("amqp transport, 16 threads", median["ours 16"], base, "calls/s", ">= 0.6", note),
        row("amqp transport, 64 asyncio callers", median["ours 64"], base, "calls/s", ">= 0.6"),
    ]


def row(
    name: str, ours: float, base: float, unit: str, target: str, note: str = ""
) -> dict[str, Any]:
    ratio = ours / base
    limit = float(target.split()[1])
    is_ok = ratio <= limit if target.startswith("<=") else ratio >= limit
    return {
        "name": name, "ours": ours, "base": base, "unit": unit, "ratio": ratio,
        "target": target, "ok": is_ok, "note": note,
    }  # fmt: skip


if __name__ == "__main__":
    {"ours": serve_ours, "bare": serve_bare}[sys.argv[1]](sys.argv[2])
