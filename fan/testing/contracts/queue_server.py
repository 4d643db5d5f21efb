"""A server process for the faults of the queue contract.

    python -m fan.testing.contracts.queue_server REGISTRY FOLDER BIND [MODULE:ATTRIBUTE [SETTINGS]]

It serves one `inbox` until its standard input ends, and writes a line for what it does: `ready
INSTANCE`, then `seen METHOD TAG ATTEMPT` for each delivery, `entered TAG` for each held call, and
`told VALUE` as JSON. A line of standard input is a tag: what waits at its gate goes on. The
arguments are those of `fan.testing.contracts.server`.
"""

from __future__ import annotations

import json
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
    talks: list[tuple[Callable[[], Any], Callable[[Any], str]]] = [
        (service.seen.get, lambda seen: f"seen {seen.method} {seen.tag} {seen.attempt}"),
        (service.entered.get, lambda tag: f"entered {tag}"),
        (service.told.get, lambda value: f"told {json.dumps(value)}"),
    ]
    for take, say in talks:
        threading.Thread(target=_tell, args=(take, say), daemon=True).start()
    app = make_app(registry, folder, bind.partition("=")[0], made_by, more, service)
    app.start((bind,))
    _write(f"ready {service.instance_id}")
    for line in sys.stdin:
        service.gate(line.strip()).set()
    service.release()
    app.stop()
    app.close()


def _tell(take: Callable[[], Any], say: Callable[[Any], str]) -> None:
    while True:
        _write(say(take()))


def _write(line: str) -> None:
    with _lock:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
