"""zerorpc over a unix socket: greenlets on both sides, and one client for all callers."""

from __future__ import annotations

import sys
import time

import gevent
import zerorpc
from calling import TEXT, say


class Echo:
    """What is called."""

    def echo(self, text):
        """The text."""
        return text


def measure(client, callers: int, seconds: float) -> float:
    """Calls a second of so many greenlets."""
    began = time.perf_counter()
    until = began + seconds

    def work() -> int:
        count = 0
        while time.perf_counter() < until:
            client.echo(TEXT)
            count += 1
        return count

    workers = [gevent.spawn(work) for _ in range(callers)]
    gevent.joinall(workers, raise_error=True)
    return sum(worker.value for worker in workers) / (time.perf_counter() - began)


def main(what: str, path: str) -> None:
    aside = gevent.get_hub().threadpool  # for standard input, which blocks
    if what == "serve":
        server = zerorpc.Server(Echo(), pool_size=16)
        server.bind(f"ipc://{path}")
        gevent.spawn(server.run)
        say("ready")
        aside.apply(sys.stdin.read)
        return
    client = zerorpc.Client(f"ipc://{path}", timeout=10)
    if client.echo(TEXT) != TEXT:
        raise SystemExit("the answer is another")
    say("ready")
    while line := aside.apply(sys.stdin.readline):
        callers, seconds = line.split()
        say(measure(client, int(callers), float(seconds)))


if __name__ == "__main__":
    main(*sys.argv[1:])
