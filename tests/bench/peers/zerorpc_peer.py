"""zerorpc with greenlets on both sides, and one client for all callers: over TCP as its
documentation has it, or at a path."""

from __future__ import annotations

import sys
import time

import gevent
import zerorpc
from calling import RECORD, TEXT, check, say


class Echo:
    """What is called."""

    def echo(self, text):
        """The text."""
        return text

    def record(self, id, name, tags, score, note):
        """All that it was given; it has no keyword arguments."""
        return id, name, tags, score, note


def measure(call, callers: int, seconds: float) -> float:
    """Calls a second of so many greenlets."""
    began = time.perf_counter()
    until = began + seconds

    def work() -> int:
        count = 0
        while time.perf_counter() < until:
            call()
            count += 1
        return count

    workers = [gevent.spawn(work) for _ in range(callers)]
    gevent.joinall(workers, raise_error=True)
    return sum(worker.value for worker in workers) / (time.perf_counter() - began)


def main(what: str, where: str) -> None:
    is_path = where.startswith("/")
    url = f"ipc://{where}" if is_path else f"tcp://{where}"
    aside = gevent.get_hub().threadpool  # for standard input, which blocks
    if what == "serve":
        server = zerorpc.Server(Echo(), pool_size=16)
        server.bind(url)
        gevent.spawn(server.run)
        say("ready")
        aside.apply(sys.stdin.read)
        return
    client = zerorpc.Client(url, timeout=10)
    values = list(RECORD.values())

    def call():
        """One call."""
        return client.echo(TEXT) if is_path else client.record(*values)

    check(call(), TEXT if is_path else RECORD)
    say("ready")
    while line := aside.apply(sys.stdin.readline):
        callers, seconds = line.split()
        say(measure(call, int(callers), float(seconds)))


if __name__ == "__main__":
    main(*sys.argv[1:])
