"""A program of a server as a process: tied to this process, or free to outlive it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress

from fan.errors import Unavailable
from fan.tools import servers_keeper

#: Seconds for a keeper to start, and for a killed process to be gone.
_PROMPT = 30.0
#: Seconds between two looks at a process that is nobody's child.
_LOOK = 0.01


def failed(message: str) -> Unavailable:
    """The error of a server that does not do as it is told."""
    return Unavailable(message, reason="server_failed", executed="no")


class Process(ABC):
    """A running program, known by its process id."""

    pid: int

    def __repr__(self) -> str:
        state = "running" if self.is_running else "ended"
        return f"<{type(self).__name__} pid={self.pid} {state}>"

    @property
    @abstractmethod
    def is_running(self) -> bool:
        """Whether it has not ended; one that is stopped by SIGSTOP runs."""

    @abstractmethod
    def wait(self, timeout: float) -> bool:
        """Whether it has ended within `timeout` seconds."""

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.is_running:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def stop(self, grace: float) -> None:
        """Ask it to end (SIGTERM), and kill it when it has not within `grace` seconds."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        if not self.wait(grace):
            self.kill()

    def kill(self) -> None:
        """kill -9, and wait until it is gone. Raises Unavailable (server_failed) when it stays."""
        self.signal(signal.SIGKILL)
        if not self.wait(_PROMPT):
            raise failed(f"process {self.pid} does not end")


class TiedProcess(Process):
    """Runs in `folder`, and ends with this process, however that ends; in the end of a kill -9 the
    folder `temporary` is removed, too."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        vars: Mapping[str, str],
        log: str,
        folder: str,
        temporary: str = "",
    ) -> None:
        lifeline, self._lifeline = os.pipe()
        try:
            self._keeper, self.pid = _start(
                [temporary, *command], vars, log, folder, lifeline
            )
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(lifeline)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return not self.wait(0.0)

    def wait(self, timeout: float) -> bool:
        """Whether it has ended within `timeout` seconds."""
        try:
            self._keeper.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        return True


class FreeProcess(Process):
    """Belongs to nobody: the run that started it has ended, or will. `born` tells it from another
    process that got its id later."""

    def __init__(self, pid: int, born: str) -> None:
        self.pid = pid
        self.born = born

    @classmethod
    def start(
        cls, command: Sequence[str], *, vars: Mapping[str, str], log: str, folder: str
    ) -> FreeProcess:
        """Start `command` so that it outlives this process."""
        keeper, pid = _start(["", *command], vars, log, folder, -1)
        keeper.wait()
        return cls(pid, born(pid))

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return bool(self.born) and born(self.pid) == self.born

    def wait(self, timeout: float) -> bool:
        """Whether it has ended within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self.is_running:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK)
        return True


def born(pid: int) -> str:
    """When a process started, as a text that no other process with its id has; empty for one that
    has ended."""
    if not os.path.isdir("/proc/self"):
        return _born_by_ps(pid)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # Behind the name, which may hold anything: the state, and as the 20th the start.
            fields = file.read().rpartition(b")")[2].split()
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
    except OSError:
        return ""
    return "" if fields[0] in (b"Z", b"X") else f"{boot}/{int(fields[19])}"


def _born_by_ps(pid: int) -> str:
    done = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
        check=False,
        timeout=_PROMPT,
    )
    state, _, start = done.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else start.strip()


def _start(
    kept: Sequence[str], vars: Mapping[str, str], log: str, folder: str, lifeline: int
) -> tuple[subprocess.Popen[bytes], int]:
    """Start a keeper, `kept` being the folder that it removes and its command; the keeper, and the
    process id of the program."""
    news, tell = os.pipe()
    try:
        with open(log, "ab") as out:
            fds = [str(lifeline), str(tell)]
            keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", servers_keeper.__file__, *fds, *kept],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                pass_fds=[fd for fd in (lifeline, tell) if fd >= 0],
                start_new_session=True,  # a Ctrl-C is for the owner
                env=dict(vars),
                cwd=folder,
            )
        os.close(tell)
        tell = -1
        ready, _, _ = select.select([news], [], [], _PROMPT)
        said = os.read(news, 32) if ready else b""
    finally:
        os.close(news)
        if tell >= 0:
            os.close(tell)
    if not said.endswith(b"\n"):
        keeper.kill()
        keeper.wait()
        raise failed(f"the keeper of {kept[1]} does not start")
    return keeper, int(said)
