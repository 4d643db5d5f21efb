"""Child processes of `fan demo` and `fan serve --reload`, and signals as something to wait for.

A child is tied to its parent by two pipes. The lifeline: the parent holds its write end and never
writes, so that the child reads the end of file when the parent is gone, however it died. The ready
pipe: the child writes `ready` once and keeps it open, so that the end of file is its own end.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Self

import fancli

if TYPE_CHECKING:
    from fancli.options import Common

#: Seconds that a child may take to end after it was asked; then it is killed.
GRACE = 10.0
#: Seconds that a child may take to end when its parent is gone.
ORPHAN_GRACE = 5.0


class Signals:
    """SIGINT, SIGTERM and SIGHUP as bytes of a pipe. The first is for whoever waits; a second one
    ends the process at once. A signal that is ignored (nohup, `&` in a script) stays so."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._woken_before = -1
        self._before: dict[int, object] = {}
        #: The first signal that came, 0 for none.
        self.seen = 0
        self._failure: Exception | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        # The kernel may give a signal to any thread, and Python's note of it then wakes this one
        # from no wait. What Python writes here, in the kernel's own handler, does.
        self._woken_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # An ignored SIGHUP is what `nohup` asks for; an ignored SIGINT is only what shells do.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._woken_before)
        with self._lock:
            os.close(self._read)
            os.close(self._write)
            self._write = -1

    def fileno(self) -> int:
        """Readable once a signal came, for `select`."""
        return self._read

    def wait(self) -> int:
        """The exit status of the signal that comes: 130, 143 or 129. Raises what `fail` was
        given."""
        while not (self.seen or self._failure):
            os.read(self._read, 1)  # its handler runs right behind this
        if self._failure is not None and not self.seen:
            raise self._failure
        return self.status

    def fail(self, failure: Exception) -> None:
        """Have who waits for a signal fail, from another thread; nothing where nobody does any
        more."""
        with self._lock:
            if self._write >= 0:
                self._failure = failure
                os.write(self._write, b"!")

    @property
    def status(self) -> int:
        """128 and the number of the first signal."""
        return 128 + self.seen

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.seen:
            os._exit(128 + number)
        self.seen = number
        os.write(self._write, b"!")


class Child:
    """One `fan ...` process in a process group of its own, so that a Ctrl-C reaches it through us
    alone, once. Its stdout and stderr are our stderr."""

    def __init__(
        self, args: Sequence[str], *, name: str, vars: Mapping[str, str], cwd: str | None = None
    ) -> None:
        self.name = name
        lifeline, self._lifeline = os.pipe()
        self._ready, ready = os.pipe()
        fds = ["--lifeline-fd", str(lifeline), "--ready-fd", str(ready)]
        try:
            self._process = subprocess.Popen(
                [*fan_command(), args[0], *fds, *args[1:]],
                stdin=subprocess.DEVNULL,
                stdout=2,  # its talk: stdout is for our own result
                pass_fds=(lifeline, ready),
                process_group=0,
                env=fan_environment(vars),
                cwd=cwd,
            )
        finally:
            os.close(lifeline)
            os.close(ready)

    def __repr__(self) -> str:
        return f"<Child {self.name} pid={self.pid} status={self._process.poll()}>"

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def fileno(self) -> int:
        """Readable when it is ready, or has ended: `read_news` tells which."""
        return self._ready

    def read_news(self) -> bool:
        """True for `ready`, False for its end."""
        return bool(os.read(self._ready, 64))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end, wait, and kill it when it does not. Its exit status."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)
        try:
            status = self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._close()
        return status

    def kill(self) -> None:
        """End it at once."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        for fd in (self._lifeline, self._ready):
            with suppress(OSError):
                os.close(fd)
        self._lifeline = self._ready = -1


def wait_for(child: Child, signals: Signals) -> bool | None:
    """Until `child` has news: True for ready, False for its end, None for a signal of ours."""
    found, _, _ = select.select([child.fileno(), signals.fileno()], [], [])
    return None if signals.fileno() in found else child.read_news()


def variables_of(picked: Common) -> dict[str, str]:
    """Our variables and, as `FAN_*`, every setting that is not the default, so that a child sees
    the same whatever its folder and flags."""
    loaded = picked.load()
    vars = dict(picked.env.vars)
    for name, origin in loaded.origins.items():
        if origin != "default":
            value = getattr(loaded.settings, name)
            vars[f"FAN_{name.upper()}"] = ",".join(value) if type(value) is tuple else str(value)
    return vars


def fan_command() -> list[str]:
    """How to start this program again. `-P` keeps the current folder from shadowing imports."""
    return [sys.executable, "-P", "-m", "fancli"]


def fan_environment(vars: Mapping[str, str]) -> dict[str, str]:
    """`vars` as the environment of another `fan` that finds our packages, in a checkout too."""
    env = dict(vars)
    root = os.path.dirname(os.path.dirname(os.path.abspath(fancli.__file__)))
    if os.path.basename(root) not in ("site-packages", "dist-packages"):
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (root, env.get("PYTHONPATH"))))
    return env


def end_with(lifeline: int) -> None:
    """End this process when the other end of `lifeline` closes: in good order as by SIGTERM, or at
    once when that takes too long."""

    def watch() -> None:
        with suppress(OSError):
            while os.read(lifeline, 64):
                pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(ORPHAN_GRACE)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, name="fan-lifeline", daemon=True).start()


@contextmanager
def all_stopped(children: list[Child]) -> Iterator[None]:
    """Stop the children at the end of the block, the youngest first, whatever happens."""
    try:
        yield
    finally:
        for child in reversed(children):
            child.stop()
