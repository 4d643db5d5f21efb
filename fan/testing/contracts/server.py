"""A server process for the faults of the transport contract.

    python -m fan.testing.contracts.server REGISTRY FOLDER BIND [MODULE:ATTRIBUTE [SETTINGS]]

It serves one `probe` on the registry until its standard input ends, and writes a line for what it
does: `ready INSTANCE`, then `entered TAG` for each handler that waits. MODULE:ATTRIBUTE makes the
transport that is no plug-in, as `TransportContract.make` does; it may be empty. SETTINGS are
further ones, as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
from importlib import import_module

from fan.app import App
from fan.settings import Settings
from fan.testing.contracts.probe import OutOfStock, Probe, TooShort


def make_app(
    registry: str, folder: str, scheme: str, made_by: str, more: str, *services: Probe
) -> App:
    """An App of this process on a shared registry; `made_by` may be empty, `more` are settings as
    JSON."""
    settings = Settings(registry=registry, runtime_dir=folder, **json.loads(more))
    transports = None
    if made_by:
        module, _, name = made_by.partition(":")
        transports = {scheme: getattr(import_module(module), name)(settings)}
    return App(*services, settings=settings, transports=transports, errors=(OutOfStock, TooShort))


def main(registry: str, folder: str, bind: str, made_by: str = "", more: str = "{}") -> None:
    """Serve until standard input ends."""
    service = Probe()

    def tell() -> None:
        while (tag := service.entered.get()) is not _END:
            _write(f"entered {tag}")

    telling = threading.Thread(target=tell)
    telling.start()
    app = make_app(registry, folder, bind.partition("=")[0], made_by, more, service)
    app.start((bind,))
    _write(f"ready {service.instance_id}")
    sys.stdin.read()
    service.release()
    app.stop()
    app.close()
    service.entered.put(_END)
    telling.join()


_END = object()


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
