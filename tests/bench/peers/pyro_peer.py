"""Pyro5 with its pool of threads, and a proxy for each caller: over TCP and by
`proxy.method(...)`, as its documentation has it; or at a path, with a method bound once."""

from __future__ import annotations

import sys
import threading

import Pyro5.api
from calling import RECORD, answer_with_threads, wait_for_end


@Pyro5.api.expose
class Echo:
    """What is called."""

    def echo(self, text):
        """The text."""
        return text

    def record(self, id, name, tags, score, note):
        """All that it was given."""
        return id, name, tags, score, note


def serve(where: str) -> None:
    """Serve until standard input ends."""
    if where.startswith("/"):
        daemon = Pyro5.api.Daemon(unixsocket=where)
    else:
        host, _, port = where.partition(":")
        daemon = Pyro5.api.Daemon(host=host, port=int(port))
    daemon.register(Echo(), "bench")
    threading.Thread(target=daemon.requestLoop, daemon=True).start()
    wait_for_end()


def main(what: str, where: str) -> None:
    if what == "serve":
        serve(where)
    elif where.startswith("/"):
        answer_with_threads(lambda: Pyro5.api.Proxy(f"PYRO:bench@./u:{where}").echo)
    else:

        def make():
            """A call over a proxy of its own."""
            proxy = Pyro5.api.Proxy(f"PYRO:bench@{where}")
            return lambda record: proxy.record(**record)

        answer_with_threads(make, RECORD)


if __name__ == "__main__":
    main(*sys.argv[1:])
