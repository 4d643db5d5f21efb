"""Other processes for the tests of stores: each runs some code with a store, and talks in lines."""

from __future__ import annotations

import subprocess
import sys
from types import TracebackType
from typing import Self

import pytest

_BEFORE = """
import os, sys, time
from fan.stores.base import HEAD, Change, Plan, new_op
from fan.stores.sqlite import SqliteStore
path = sys.argv[1]
store = SqliteStore(path)
def soon(): return time.monotonic() + 20
def say(*what): print(*what, flush=True)
def hear(): return sys.stdin.readline().strip()
def write(**bodies):
    changes = tuple(Change(object='config/' + n, body=b.encode()) for n, b in bodies.items())
    return store.commit(Plan(changes=changes, verb='set'), deadline=soon())
"""


class Process:
    """One process with a store on `path`. It is killed when the block ends."""

    def __init__(self, path: str, code: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BEFORE + code, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def hear(self) -> str:
        """The next line that it prints, empty at its end."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def rest(self) -> list[str]:
        """All further lines, up to its end."""
        assert self._process.stdout is not None
        return self._process.stdout.read().splitlines()

    def say(self, line: str = "") -> None:
        """Give it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """kill -9, and wait for its end."""
        self._process.kill()
        self._process.wait()

    def wait(self) -> int:
        """Its exit status."""
        return self._process.wait()


@pytest.fixture
def run() -> type[Process]:
    """`run(path, code)` is a context manager: another process with a store on `path`."""
    return Process
