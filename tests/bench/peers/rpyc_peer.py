"""rpyc over a unix socket: a thread for each connection, and a connection for each caller."""

from __future__ import annotations

import sys
import threading

import rpyc
from calling import answer_with_threads, wait_for_end
from rpyc.utils.factory import unix_connect
from rpyc.utils.server import ThreadedServer


class Echo(rpyc.Service):
    """What is called."""

    def exposed_echo(self, text):
        """The text."""
        return text


def main(what: str, path: str) -> None:
    if what == "serve":
        server = ThreadedServer(Echo, socket_path=path)
        threading.Thread(target=server.start, daemon=True).start()
        wait_for_end()
        return
    answer_with_threads(lambda: unix_connect(path).root.echo)


if __name__ == "__main__":
    main(*sys.argv[1:])
