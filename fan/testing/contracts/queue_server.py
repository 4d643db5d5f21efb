"""A server process for the faults of the queue contract.

    python -m fan.testing.contracts.queue_server REGISTRY FOLDER BIND [MODULE:ATTRIBUTE [SETTINGS]]

It serves one `inbox` until its standard input ends, and writes a line for what it does: `ready
INSTANCE`, then `seen METHOD TAG ATTEMPT` for each delivery, `entered TAG` for each held call, and
`told VALUE` as JSON. A line of standard input is a tag: what waits at its gate goes on. The
arguments are those of `fan.testing.contracts.server`.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

from fan.testing.contracts.queue_probe import inbox
from fan.testing.contracts.server import make_app

_lock = threading.Lock()


def main(registry: str, folder: str, bind: str, made_by: str = "", more: str = "{}") -> None:
    """Serve until standard input ends."""
    service = inbox()
    # Told in the handler itself: whoever is killed after it has acknowledged has told it, too.
    service.seen = _Told(lambda seen: f"seen {seen.method} {seen.tag} {seen.attempt}")
    service.entered = _Told(lambda tag: f"entered {tag}")
    service.told = _Told(lambda value: f"told {json.dumps(value)}")
    app = make_app(registry, folder, bind.partition("=")[0], made_by, more, service)
    app.start((bind,))
    _write(f"ready {service.instance_id}")
    for line in sys.stdin:
        service.gate(line.strip()).set()
    service.release()
    app.stop()
    app.close()


class _Told(queue.SimpleQueue[Any]):
    """Writes what is put into it, and keeps nothing."""

    def __init__(self, say: Callable[[Any], str]) -> None:
        self._say = say

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        _write(self._say(item))


def _write(line: str) -> None:
    with _lock:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
