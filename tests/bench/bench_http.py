"""A call over http, against httpx, its transport, httpcore and http.client on the same server.

The server is ours, in another process, and its handler returns its arguments. Each client sends the
same headers and body and reads the whole reply; throughput, for 1 caller and for 16 threads.
"""

from __future__ import annotations

import contextlib
import http.client
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpcore
import httpx

from fan.context import new_id
from fan.message import Request
from fan.model import Address
from fan.transports.http import HttpTransport

ROUNDS = 5
#: Calls of a round, over all callers.
CALLS = 800
BODY = b'{"name":"Ada","text":"' + b"x" * 80 + b'"}'
HEADERS = {
    "content-type": "application/json",
    "fan-id": "0123456789abcdef",
    "fan-timeout-ms": "5000",
    "fan-caller": "bench",
}
SERVER = """
import sys
from fan.message import Response
from fan.transports.http import HttpTransport

def answer(request, *, is_cancelled=None, peer=""):
    return Response(id=request.id, served="1.0.0/echo-1", gen=1, body=request.body)

listener = HttpTransport().serve("", answer)
print(listener.address.url, flush=True)
sys.stdin.read()
listener.close()
"""
Call = Callable[[], Any]


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The URL of an echo, until the block ends."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        assert process.stdin is not None
        process.stdin.close()


@contextlib.contextmanager
def clients(url: str) -> Iterator[dict[str, Callable[[], Call]]]:
    """By name: what makes a caller's call."""
    address = Address(url)
    target = f"{url}/rpc/echo/echo"
    with contextlib.ExitStack() as stack:
        ours = HttpTransport()
        stack.callback(ours.close)
        plain = stack.enter_context(httpx.Client(verify=False))
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        lower = stack.enter_context(httpx.HTTPTransport(verify=False, limits=limits))
        core = stack.enter_context(httpcore.ConnectionPool(max_connections=64))

        def fan_call() -> Call:
            return lambda: ours.call(
                address,
                Request(id=new_id(), service="echo", method="echo", timeout_ms=5000,
                        caller="bench", body=BODY),
            ).body  # fmt: skip

        def httpx_transport() -> Any:
            response = lower.handle_request(
                httpx.Request("POST", target, content=BODY, headers=HEADERS)
            )
            return response.read()

        def by_hand() -> Call:
            host, port = url.removeprefix("http://").split(":")
            connection = http.client.HTTPConnection(host, int(port))
            stack.callback(connection.close)

            def call() -> bytes:
                connection.request("POST", "/rpc/echo/echo", BODY, HEADERS)
                return connection.getresponse().read()

            return call

        yield {
            "ours": fan_call,
            "httpx.Client": lambda: (
                lambda: plain.post(target, content=BODY, headers=HEADERS).content
            ),
            "httpx.HTTPTransport": lambda: httpx_transport,
            "httpcore": lambda: (
                lambda: core.request("POST", target, content=BODY, headers=HEADERS).content
            ),
            "http.client": by_hand,
        }


def throughput(make: Callable[[], Call], callers: int) -> float:
    """Calls in a second."""
    calls = [make() for _ in range(callers)]
    for call in calls:
        assert call() == BODY

    def work(call: Call) -> None:
        for _ in range(CALLS // callers):
            call()

    threads = [threading.Thread(target=work, args=(call,)) for call in calls]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return CALLS / (time.perf_counter() - began)


def run() -> list[dict[str, Any]]:
    rows = []
    with server() as url, clients(url) as makers:
        for callers in (1, 16):
            found: dict[str, list[float]] = {name: [] for name in makers}
            for _ in range(ROUNDS):
                for name, make in makers.items():
                    found[name].append(throughput(make, callers))
            median = {name: statistics.median(each) for name, each in found.items()}
            for name in list(makers)[1:]:
                ratio = median["ours"] / median[name]
                target = 0.8 if name == "httpx.Client" else 0.0
                rows.append(
                    dict(
                        name=f"http, {callers} caller{'s' * (callers > 1)} : {name}",
                        ours=median["ours"], base=median[name], ratio=ratio, unit="calls/s",
                        target=f">= {target:g}", ok=ratio >= target,
                    )
                )  # fmt: skip
    return rows
