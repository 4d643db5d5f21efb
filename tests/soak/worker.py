"""A worker process of the long runs, which may be killed or frozen at any moment.

    python worker.py JOURNAL BIND SERVICE VERSION SETTINGS

It serves until its standard input ends, and says `ready` when it does. Every run of a handler is a
line in the file JOURNAL, written in one piece before the handler does anything else: what was
written stays, however the process ends. A line is `METHOD TAG ATTEMPT`.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading

import fan

#: Longest time of a handler in seconds: short, and long enough to be killed in.
_WORK = 0.01


class Soaked(fan.Service):
    """What the long runs call and push to."""

    def __init__(self, journal: str) -> None:
        super().__init__()
        self._journal = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    @fan.push
    def take(self, tag: str) -> None:
        """Be run."""
        self._run("take", tag)

    @fan.rpc
    def ask(self, tag: str) -> str:
        """The tag."""
        self._run("ask", tag)
        return tag

    @fan.rpc
    async def ask_async(self, tag: str) -> str:
        """The tag, from the loop."""
        self._write("ask", tag)
        return tag

    @fan.rpc
    def versions(self, others: list[str]) -> list[str]:
        """The version of this one, and of those that it finds down a chain of services."""
        context = fan.current()
        if not others or context is None:
            return [self.version]
        below = context.find_app().call(f"{others[0]}.versions", others[1:])
        return [self.version, *below]

    def _run(self, method: str, tag: str) -> None:
        self._write(method, tag)
        threading.Event().wait(random.uniform(0, _WORK))

    def _write(self, method: str, tag: str) -> None:
        context = fan.current()
        attempt = context.attempt if context is not None else -1
        os.write(self._journal, f"{method} {tag} {attempt}\n".encode())


def main(journal: str, bind: str, name: str, version: str, settings: str) -> None:
    """Serve until standard input ends."""
    service = type("Soaked", (Soaked,), {"name": name, "version": version})(journal)
    app = fan.App(service, settings=fan.Settings(**json.loads(settings)))
    app.start((bind,))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    app.stop()
    app.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
