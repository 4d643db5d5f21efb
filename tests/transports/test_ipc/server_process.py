"""A server for the tests that kill or stop one: echoes, or hangs. Ends when its stdin does.

Its argument is the path of a socket, or a folder to have one of its own in."""

from __future__ import annotations

import os
import sys
import time
from types import SimpleNamespace

from fan.message import Request, Response
from fan.transports.ipc import IpcTransport


def handle(request: Request, **_: object) -> Response:
    if request.method == "hang":
        time.sleep(60)
    return Response(id=request.id, body=request.body)


if __name__ == "__main__":
    settings = SimpleNamespace(max_body=1 << 24, runtime_dir=sys.argv[1])
    bind = "" if os.path.isdir(sys.argv[1]) else sys.argv[1]
    IpcTransport(settings).serve(bind, handle)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
