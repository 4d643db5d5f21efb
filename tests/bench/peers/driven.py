"""One program of a peer or of fan, as a process: see `calling.py` for what is said to it."""

from __future__ import annotations

import os
import queue
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Self

#: Seconds for a program to be ready, and for an answer beyond the time that it measures.
PATIENCE = 60.0


class Failed(Exception):
    """A program that ended, or does not answer, as a sentence."""


class Program:
    """A program that serves or calls. A context manager."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str]) -> None:
        self._command = command
        self._variables = variables

    def __enter__(self) -> Self:
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            self._command, env={**os.environ, **self._variables}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
        )  # fmt: skip
        assert self._process.stdout is not None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,))
        self._reader.start()
        try:
            while (line := self._next(PATIENCE)) != "ready":
                if not line:
                    raise Failed(self._complaint("it ended before it was ready"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(PATIENCE / 6)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()
        self._errors.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def measure(self, callers: int, seconds: float) -> float:
        """Calls a second. Raises Failed."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{callers} {seconds}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed(self._complaint("it ended")) from None
        line = self._next(PATIENCE + seconds)
        try:
            return float(line)
        except ValueError:
            raise Failed(self._complaint(line or "it ended")) from None

    def _next(self, timeout: float) -> str:
        try:
            return self._lines.get(timeout=timeout)
        except queue.Empty:
            raise Failed(self._complaint(f"it did not answer in {timeout:g} s")) from None

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.put(line.strip())
        self._lines.put("")

    def _complaint(self, what: str) -> str:
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines()[-1:]
        return ": ".join([what, *said])
