"""What every private server has in common: its folder, its ports, and its life."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

from fan.errors import FailedPrecondition, Unavailable
from fan.tools.servers_ports import free_ports
from fan.tools.servers_process import FreeProcess, Process, TiedProcess, failed

#: Seconds for a server to answer. RabbitMQ takes 4 to 10, and more on a busy machine.
START_TIMEOUT = 60.0
#: Seconds for a server to end in good order, before it is killed.
STOP_GRACE = 15.0
#: Ports to try where somebody else was faster.
_TRIES = 3
#: What servers say of a port that is taken.
_TAKEN = ("in use", "eaddrinuse", "BindException")
#: Variables of the caller's that would change what a server does.
_DROPPED = ("RABBITMQ_", "ERL_", "FAN_", "NOTIFY_SOCKET", "CLASSPATH")
_DROPPED_JAVA = ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS")


class Part(NamedTuple):
    """One program of a server."""

    name: str
    command: list[str]
    #: Whether it does its work.
    answers: Callable[[], bool]
    vars: Mapping[str, str] = {}


class Server(ABC):
    """A private server on 127.0.0.1: it ends with this process, however that ends, unless it is
    started by `start_free`. A context manager; `close` removes its folder.

    `folder` is kept where the caller gives one. `vars` are added to the server's environment.
    To start it raises FailedPrecondition (server_missing) when its program is not installed.
    """

    #: As in `fan dev servers start NAME`.
    name: ClassVar[str]
    #: How many ports it takes, the first of which is the one for clients.
    port_count: ClassVar[int] = 1

    def __init__(
        self,
        *,
        folder: str | None = None,
        ports: tuple[int, ...] | None = None,
        vars: Mapping[str, str] | None = None,
    ) -> None:
        self._may_move = ports is None
        self.ports = ports or free_ports(self.port_count)
        self.folder = folder or tempfile.mkdtemp(prefix=f"fan-{self.name}-")
        #: What goes when the server goes: the folder that it made, and never one that was given.
        self._temporary = "" if folder else self.folder
        self._vars = dict(vars or {})
        #: By the name of the part, in the order of their start.
        self.processes: dict[str, Process] = {}
        #: Called whenever a process was started or ended.
        self.on_change: Callable[[Server], None] = lambda server: None
        self._owner = os.getpid()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url} {'up' if self.is_running else 'down'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self, _warn: Any = warnings.warn) -> None:
        running = [p for p in getattr(self, "processes", {}).values() if type(p) is TiedProcess]
        if running and self._owner == os.getpid():
            _warn(f"{self!r} was not closed", ResourceWarning, source=self)

    # --- what a product says ---

    @classmethod
    @abstractmethod
    def missing(cls) -> str:
        """What is not installed, and how to install it, as a sentence; empty when all is there."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients find it."""

    @abstractmethod
    def parts(self) -> list[Part]:
        """Its programs in the order of their start; the last one is the server itself."""

    @abstractmethod
    def configure(self) -> None:
        """Write its configuration files."""

    # --- its life ---

    @property
    def port(self) -> int:
        """Where it listens for clients."""
        return self.ports[0]

    @property
    def log(self) -> str:
        """The file with all that its programs said."""
        return os.path.join(self.folder, "output.log")

    @property
    def pid(self) -> int:
        """The process id of the server itself, 0 when it was never started."""
        return self.main.pid if self.main else 0

    @property
    def main(self) -> Process | None:
        """The process of the server itself."""
        return self.processes.get(self.name)

    @property
    def is_running(self) -> bool:
        """Whether its process has not ended."""
        return self.main is not None and self.main.is_running

    @property
    def answers(self) -> bool:
        """Whether it serves clients."""
        return self.is_running and self.parts()[-1].answers()

    def start(self, timeout: float = START_TIMEOUT) -> Self:
        """Start it, again after `kill` or `stop` with its ports and data, and wait until it
        answers. Raises Unavailable (server_failed) with what it said when it does not."""
        return self._start(self._tied, time.monotonic() + timeout)

    def start_free(self, timeout: float = START_TIMEOUT) -> Self:
        """The same for a server that outlives this process: whoever needs it no more stops it."""
        return self._start(self._free, time.monotonic() + timeout)

    def launch(self, deadline: float) -> None:
        """Start it, and do not wait until it answers: the first part of `start`."""
        self._launch(self._tied, deadline)

    def wait_ready(self, deadline: float) -> None:
        """Wait until it answers: the second part of `start`."""
        self._wait_for(self.parts()[-1], deadline)

    def kill(self) -> None:
        """kill -9 the server itself."""
        if self.main is not None:
            self.main.kill()

    def pause(self) -> None:
        """SIGSTOP: it holds its connections and answers nobody."""
        if self.main is not None:
            self.main.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        if self.main is not None:
            self.main.signal(signal.SIGCONT)

    def stop(self, grace: float = STOP_GRACE) -> None:
        """End all its processes in good order; the data stays."""
        for name in reversed(list(self.processes)):
            self.processes.pop(name).stop(grace)

    def close(self) -> None:
        """Kill all its processes, and remove the folder that it made. Twice does no harm."""
        for name in reversed(list(self.processes)):
            self.processes.pop(name).kill()
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def said(self, lines: int = 8) -> str:
        """The end of its log in one line, for an error message."""
        try:
            with open(self.log, encoding="utf-8", errors="replace") as file:
                kept = [line.rstrip() for line in file if line.strip()]
        except OSError:
            return ""
        return " | ".join(kept[-lines:])

    # --- how ---

    def _start(self, run: Callable[[Part], Process], deadline: float) -> Self:
        was_running = self.is_running
        for left in reversed(range(_TRIES)):
            try:
                self._launch(run, deadline)
                self.wait_ready(deadline)
                self._may_move = False
                return self
            except BaseException as exc:
                if not was_running:
                    self._end_at_once()
                is_taken = isinstance(exc, Unavailable) and any(s in self.said() for s in _TAKEN)
                if was_running or not (is_taken and self._may_move and left):
                    raise
                self.ports = free_ports(self.port_count)
        raise AssertionError

    def _launch(self, run: Callable[[Part], Process], deadline: float) -> None:
        if problem := self.missing():
            raise FailedPrecondition(problem, reason="server_missing")
        self.configure()
        *helpers, _ = parts = self.parts()
        for part in parts:
            process = self.processes.get(part.name)
            if process is None or not process.is_running:
                self.processes[part.name] = run(part)
                self.on_change(self)
            if part in helpers:
                self._wait_for(part, deadline)

    def _tied(self, part: Part) -> Process:
        return TiedProcess(
            part.command,
            vars=self._environment(part),
            log=self.log,
            folder=self.folder,
            temporary=self._temporary,
        )

    def _free(self, part: Part) -> Process:
        return FreeProcess.start(
            part.command, vars=self._environment(part), log=self.log, folder=self.folder
        )

    def _wait_for(self, part: Part, deadline: float) -> None:
        process = self.processes[part.name]
        pause = 0.005
        while not part.answers():
            if not process.is_running:
                raise failed(f"{part.name} ended while it started: {self.said()}")
            if time.monotonic() >= deadline:
                raise failed(f"{part.name} does not answer on port {self.port}: {self.said()}")
            time.sleep(pause)
            pause = min(2 * pause, 0.1)

    def _end_at_once(self) -> None:
        for process in self.processes.values():
            process.kill()
        self.processes.clear()
        self.on_change(self)

    def _environment(self, part: Part) -> dict[str, str]:
        """Ours without what is meant for others, its own folder as home, and `vars`."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(_DROPPED) and name not in _DROPPED_JAVA
        }
        return {**kept, "HOME": self.folder, "LC_ALL": "C.UTF-8", **part.vars, **self._vars}


def tail_of_config(extra: Mapping[str, str], form: str) -> str:
    """The caller's own settings as lines of a configuration file, each by `form`."""
    return "".join(form.format(name, value) + "\n" for name, value in extra.items())
