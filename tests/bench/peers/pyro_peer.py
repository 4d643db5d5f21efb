"""Pyro5 over a unix socket: its pool of threads, and a proxy for each caller."""

from __future__ import annotations

import sys
import threading

import Pyro5.api
from calling import answer_with_threads, wait_for_end


@Pyro5.api.expose
class Echo:
    """What is called."""

    def echo(self, text):
        """The text."""
        return text


def main(what: str, path: str) -> None:
    if what == "serve":
        daemon = Pyro5.api.Daemon(unixsocket=path)
        daemon.register(Echo(), "bench")
        threading.Thread(target=daemon.requestLoop, daemon=True).start()
        wait_for_end()
        return
    answer_with_threads(lambda: Pyro5.api.Proxy(f"PYRO:bench@./u:{path}").echo)


if __name__ == "__main__":
    main(*sys.argv[1:])
