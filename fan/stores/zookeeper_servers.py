"""What is to be said of the servers themselves: who is away, and who is too old to be trusted."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator

from kazoo.hosts import collect_hosts

from fan.stores.zookeeper_tls import context_of
from fan.stores.zookeeper_url import Ensemble

#: Ensembles before it can lose what they acknowledged, when members die at the wrong moment:
#: ZOOKEEPER-4643, 4646, 4785, 4394 and 4712. Single servers do not.
TRUSTED = (3, 9, 4)

#: Seconds for one server to answer.
_PATIENCE = 1.0

_VERSION = re.compile(r"Zookeeper version: (\d+)\.(\d+)\.(\d+)")


def problems(ensemble: Ensemble, deadline: float) -> Iterator[str]:
    """A sentence for each thing that is wrong with a server. One that has forbidden the word
    `srvr` is not judged."""
    for host, port in collect_hosts(ensemble.hosts)[0]:
        timeout = min(_PATIENCE, deadline - time.monotonic())
        if timeout <= 0:
            return
        try:
            said = _ask(ensemble, host, port, timeout)
        except OSError as error:
            yield f"the server {host}:{port} of the registry {ensemble} does not answer: {error}"
            continue
        found = _VERSION.search(said)
        if found is None or "Mode: standalone" in said:
            continue
        version = tuple(int(number) for number in found.groups())
        if version < TRUSTED:
            yield (
                f"the server {host}:{port} is ZooKeeper {'.'.join(found.groups())}: ensembles can "
                f"lose acknowledged changes before {'.'.join(map(str, TRUSTED))}; update it"
            )


def _ask(ensemble: Ensemble, host: str, port: int, timeout: float) -> str:
    sock = socket.create_connection((host, port), timeout)
    try:
        if ensemble.tls:
            sock = context_of(ensemble).wrap_socket(sock, server_hostname=host)
        sock.sendall(b"srvr")
        said = b""
        while piece := sock.recv(4096):
            said += piece
        return said.decode(errors="replace")
    finally:
        sock.close()
