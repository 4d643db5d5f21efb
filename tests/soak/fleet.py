"""Worker processes that die at random, the load on them, and what they did of it."""

from __future__ import annotations

import contextlib
import json
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fan import App, FanError, Settings
from fan.model import QueueName

#: Seconds after which a wait gives up: many times what is needed on a busy machine.
BOUND = 120.0
#: Seconds that a message stays with a worker that shows no sign of life.
LEASE = 1.0
#: How often a push is given to a worker at most.
DELIVERIES = 5


def until(is_so: Callable[[], bool], what: str) -> None:
    """Wait until it is so."""
    end = time.monotonic() + BOUND
    while not is_so():
        assert time.monotonic() < end, f"it did not come to this: {what}"
        threading.Event().wait(0.01)


class Worker:
    """One process of `worker.py`."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("worker.py")), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def wait_ready(self) -> None:
        """Wait until it serves."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", "it ended before it was ready"

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait for its end."""
        self._process.kill()
        self._close()

    def stop(self) -> None:
        """Let it stop by itself, and say whether it did so without an error."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            assert self._process.wait(BOUND) == 0
        finally:
            self.kill()

    def _close(self) -> None:
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()


class Fleet:
    """Workers of one service, a client of theirs, and the journal of what was run."""

    def __init__(self, folder: Path, bind: str, service: str, settings: dict[str, Any]) -> None:
        self.bind = bind
        self.service = service
        #: What is pushed to the service.
        self.pushes = QueueName(service)
        self._settings: dict[str, Any] = {
            "registry": f"sqlite:{folder}/registry.db", "runtime_dir": f"{folder}/run",
            "lease": LEASE, "deliveries": DELIVERIES, "workers": 4, "breaker_failures": 0,
            **settings,
        }  # fmt: skip
        self._journal = folder / "journal"
        self._read = 0
        #: How often each tag was run, by method.
        self.runs: dict[str, Counter[str]] = {"take": Counter(), "ask": Counter()}
        self.workers: list[Worker] = []
        self.client = App(settings=Settings(**self._settings))

    def start(self, n: int = 1) -> None:
        """Start workers, and do not wait until they serve."""
        for _ in range(n):
            self.one(self.service)

    def one(self, service: str, version: str = "1.0.0") -> Worker:
        """Start a worker of a service and version, and do not wait until it serves."""
        worker = Worker(
            str(self._journal), self.bind, service, version, json.dumps(self._settings)
        )
        self.workers.append(worker)
        return worker

    def wait_ready(self) -> None:
        """Wait until all that run serve; once for each."""
        for worker in self.workers:
            worker.wait_ready()

    def kill(self, chance: random.Random) -> None:
        """kill -9 one of them, and start another in its place."""
        self.workers.pop(chance.randrange(len(self.workers))).kill()
        self.start()

    def look(self) -> dict[str, Counter[str]]:
        """`runs`, with what was written since."""
        if self._journal.exists():
            with self._journal.open("rb") as file:
                file.seek(self._read)
                whole, end, _ = file.read().rpartition(b"\n")
            self._read += len(whole + end)
            for line in whole.decode().splitlines():
                method, tag, _ = line.split()
                self.runs[method][tag] += 1
        return self.runs

    def settle(self) -> None:
        """Wait until no push waits or is in hand."""
        transport = self.client.transport(self._settings["queue"])
        queues = transport.queues(transport.home())

        def is_idle() -> bool:
            found = queues.list([self.pushes], deadline=time.monotonic() + BOUND)
            return not any(q.ready or q.in_flight for q in found if q.name == self.pushes)

        until(is_idle, "an empty queue")

    def stop(self, *workers: Worker) -> None:
        """Let these workers stop by themselves, one after the other; by default all."""
        for worker in workers or [*self.workers]:
            self.workers.remove(worker)
            worker.stop()

    def close(self) -> None:
        """Kill what still runs."""
        while self.workers:
            self.workers.pop().kill()
        self.client.close()


class Load:
    """Calls and pushes without end, each with a tag of its own, and what came of each."""

    def __init__(self, fleet: Fleet, *, callers: int = 8, pushers: int = 2) -> None:
        self._fleet = fleet
        self._stop = threading.Event()
        self.answers: list[tuple[str, Any]] = []
        self.failures: list[tuple[str, FanError]] = []
        #: Tags of the pushes that were accepted, and the failures of the others.
        self.confirmed: list[str] = []
        self.refused: list[FanError] = []
        self.broken: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
        work = [self._call] * callers + [self._push] * pushers
        self._threads = [
            threading.Thread(target=self._guard, args=(each, n)) for n, each in enumerate(work)
        ]
        for thread in self._threads:
            thread.start()

    def wait_for_more(self, answers: int, pushes: int = 0) -> None:
        """Wait until so many more calls are answered, and pushes accepted."""
        wanted = (len(self.answers) + answers, len(self.confirmed) + pushes)
        until(
            lambda: len(self.answers) >= wanted[0] and len(self.confirmed) >= wanted[1],
            f"{answers} more answers and {pushes} more pushes",
        )

    def stop(self) -> None:
        """End it; what is under way is waited for. Raises what no caller should have seen."""
        self._stop.set()
        for thread in self._threads:
            thread.join(BOUND)
        if not self.broken.empty():
            raise self.broken.get()

    def check(self) -> None:
        """What holds whatever happened: answers belong to their questions, no call ran twice, none
        ran of which its caller was told that it did not, and no push is lost."""
        assert [pair for pair in self.answers if pair[0] != pair[1]] == []
        codes = {failure.code for _, failure in self.failures}
        unknown = {"unavailable", "deadline_exceeded"}
        assert codes <= unknown, [str(f) for _, f in self.failures if f.code not in unknown]
        until(lambda: set(self.confirmed) <= set(self._fleet.look()["take"]), "every push is run")
        runs = self._fleet.look()
        assert {tag for tag, _ in self.answers} <= set(runs["ask"])
        assert {tag: n for tag, n in runs["ask"].items() if n > 1} == {}
        unrun = {tag for tag, failure in self.failures if failure.executed == "no"}
        assert unrun & set(runs["ask"]) == set()
        assert {tag: n for tag, n in runs["take"].items() if n > DELIVERIES} == {}

    def _guard(self, work: Callable[[str], None], n: int) -> None:
        count = 0
        try:
            while not self._stop.is_set():
                count += 1
                work(f"{n}-{count}")
        except BaseException as exc:
            self.broken.put(exc)

    def _call(self, tag: str) -> None:
        method = "ask" if tag[-1] in "02468" else "ask_async"
        client = self._fleet.client.using(timeout=2.0)
        try:
            self.answers.append((tag, client.call(f"{self._fleet.service}.{method}", tag)))
        except FanError as exc:
            self.failures.append((tag, exc))
            self._stop.wait(0.01)  # a refusal comes in no time

    def _push(self, tag: str) -> None:
        try:
            self._fleet.client.push(f"{self._fleet.service}.take", tag)
        except FanError as exc:
            self.refused.append(exc)
        else:
            self.confirmed.append(tag)
        self._stop.wait(0.005)  # no faster than the workers
