"""The servers that a user keeps running: `fan dev servers start|stop|status`.

Each has a folder of its own with its data and `server.json`: its ports, which stay the same, and
the processes that were started. For servers that end with their owner see `servers_redis`,
`servers_rabbitmq` and `servers_zookeeper`.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from fan.errors import FailedPrecondition, InvalidArgument, Unavailable
from fan.settings_places import default_registry
from fan.tools.servers_base import START_TIMEOUT, STOP_GRACE, Server
from fan.tools.servers_process import FreeProcess
from fan.tools.servers_rabbitmq import RabbitMQ
from fan.tools.servers_redis import Redis
from fan.tools.servers_zookeeper import ZooKeeper

#: In the order of a listing.
PRODUCTS: dict[str, type[Server]] = {cls.name: cls for cls in (Redis, RabbitMQ, ZooKeeper)}
#: The variable of ours that takes each one's URL.
VARIABLES = {"redis": "FAN_REDIS_URL", "rabbitmq": "FAN_AMQP_URL", "zookeeper": "FAN_REGISTRY"}
#: What a user's server has that one of a test has not.
_OPTIONS: dict[str, dict[str, Any]] = {"redis": {"keeps_data": True}}

#: Seconds between two tries for a lock that another run holds.
_LOCK_PAUSE = 0.05


class ServerStatus(msgspec.Struct, frozen=True):
    """One server: `up`, `starting` (it runs and does not answer) or `down`; pid, port and url are
    None where it is down. `variable` is the one of ours that takes its URL."""

    name: str
    state: str
    variable: str
    pid: int | None = None
    port: int | None = None
    url: str | None = None
    #: Whether this call started or stopped it.
    changed: bool = False


class _Record(msgspec.Struct):
    """server.json."""

    ports: tuple[int, ...]
    #: Part -> process id and the text that tells it from a later process of that id.
    processes: dict[str, tuple[int, str]] = {}


class Servers:
    """The servers below `folder`, by default one in the user's data folder. It holds nothing."""

    def __init__(self, folder: str = "") -> None:
        beside = os.path.dirname(default_registry(os.environ).removeprefix("sqlite:"))
        self.folder = folder or os.path.join(beside, "servers")

    def __repr__(self) -> str:
        return f"<Servers {self.folder}>"

    def start(
        self, names: Iterable[str] = (), timeout: float = START_TIMEOUT
    ) -> list[ServerStatus]:
        """Start those that are named, by default all, unless they run, and wait until they answer.
        They outlive this process. Raises FailedPrecondition (server_missing) before any is started
        when one is not installed, Unavailable (server_failed) for one that does not come up."""
        chosen = _chosen(names)
        deadline = time.monotonic() + timeout
        problems = [problem for name in chosen if (problem := PRODUCTS[name].missing())]
        if problems:
            raise FailedPrecondition("; ".join(problems), reason="server_missing")
        return [self._start(name, deadline) for name in chosen]

    def stop(self, names: Iterable[str] = (), timeout: float = STOP_GRACE) -> list[ServerStatus]:
        """Stop those that are named, by default all: the processes that `start` started, and no
        others. Their data and ports stay. One that does not end in good order within `timeout`
        seconds is killed."""
        return [self._stop(name, timeout) for name in _chosen(names)]

    def status(self, names: Iterable[str] = ()) -> list[ServerStatus]:
        """How those that are named are, by default all."""
        return [_status_of(name, self._find(name)) for name in _chosen(names)]

    def _start(self, name: str, deadline: float) -> ServerStatus:
        os.makedirs(self._folder(name), mode=0o700, exist_ok=True)
        with self._locked(name, deadline):
            server = self._find(name)
            was_running = server is not None and server.is_running
            server = server or self._make(name)
            server.on_change = self._write
            server.start_free(deadline - time.monotonic())
            return _status_of(name, server, is_changed=not was_running)

    def _stop(self, name: str, grace: float) -> ServerStatus:
        if not os.path.isdir(self._folder(name)):
            return _status_of(name, None)
        with self._locked(name, time.monotonic() + START_TIMEOUT):
            server = self._find(name)
            was_running = server is not None and any(
                process.is_running for process in server.processes.values()
            )
            if server is not None:
                server.stop(grace)
                self._write(server)
            return _status_of(name, server, is_changed=was_running)

    def _find(self, name: str) -> Server | None:
        """The server as it was started, with its processes; None for one that never was."""
        try:
            with open(self._file(name), "rb") as file:
                record = msgspec.json.decode(file.read(), type=_Record)
        except (OSError, msgspec.DecodeError):
            return None
        server = self._make(name, ports=record.ports)
        for part, (pid, born) in record.processes.items():
            server.processes[part] = FreeProcess(pid, born)
        return server

    def _make(self, name: str, **how: Any) -> Server:
        return PRODUCTS[name](folder=self._folder(name), **_OPTIONS.get(name, {}), **how)

    def _write(self, server: Server) -> None:
        running = {
            part: (process.pid, process.born)
            for part, process in server.processes.items()
            if isinstance(process, FreeProcess)
        }
        path = self._file(server.name)
        with open(f"{path}.new", "wb") as file:
            file.write(msgspec.json.encode(_Record(server.ports, running)))
        os.replace(f"{path}.new", path)

    @contextmanager
    def _locked(self, name: str, deadline: float) -> Iterator[None]:
        """One start or stop of a server at a time. Raises Unavailable (busy)."""
        with open(os.path.join(self._folder(name), "lock"), "wb") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise Unavailable(
                            f"another run is starting or stopping {name}",
                            reason="busy",
                            executed="no",
                        ) from None
                    time.sleep(_LOCK_PAUSE)
            yield

    def _folder(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def _file(self, name: str) -> str:
        return os.path.join(self._folder(name), "server.json")


def _chosen(names: Iterable[str]) -> list[str]:
    wanted = set(names) or set(PRODUCTS)
    if unknown := sorted(wanted - set(PRODUCTS)):
        raise InvalidArgument(
            f"there is no server {unknown[0]}: it is one of {', '.join(PRODUCTS)}",
            reason="bad_server",
        )
    return [name for name in PRODUCTS if name in wanted]


def _status_of(name: str, server: Server | None, is_changed: bool = False) -> ServerStatus:
    if server is None or not server.is_running:
        return ServerStatus(name, "down", VARIABLES[name], changed=is_changed)
    return ServerStatus(
        name,
        "up" if server.answers else "starting",
        VARIABLES[name],
        pid=server.pid,
        port=server.port,
        url=server.url,
        changed=is_changed,
    )
