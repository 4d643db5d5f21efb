"""rpyc with a thread for each connection and a connection for each caller: over TCP and by
`connection.root.method(...)`, as its documentation has it; or at a path, with a method bound once.
"""

from __future__ import annotations

import sys
import threading

import rpyc
from calling import RECORD, answer_with_threads, wait_for_end
from rpyc.utils.factory import unix_connect
from rpyc.utils.server import ThreadedServer


class Echo(rpyc.Service):
    """What is called."""

    def exposed_echo(self, text):
        """The text."""
        return text

    def exposed_record(self, id, name, tags, score, note):
        """All that it was given, in a tuple: that goes by value, a list by reference."""
        return id, name, tags, score, note


def serve(where: str) -> None:
    """Serve until standard input ends."""
    if where.startswith("/"):
        server = ThreadedServer(Echo, socket_path=where)
    else:
        host, _, port = where.partition(":")
        server = ThreadedServer(Echo, hostname=host, port=int(port))
    threading.Thread(target=server.start, daemon=True).start()
    wait_for_end()


def main(what: str, where: str) -> None:
    if what == "serve":
        serve(where)
    elif where.startswith("/"):
        answer_with_threads(lambda: unix_connect(where).root.echo)
    else:
        host, _, port = where.partition(":")

        def make():
            """A call over a connection of its own."""
            connection = rpyc.connect(host, int(port))
            return lambda record: connection.root.record(**record)

        answer_with_threads(make, RECORD)


if __name__ == "__main__":
    main(*sys.argv[1:])
