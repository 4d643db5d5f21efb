"""A web server that forks after an App was used: gunicorn, which loads the program in its master
and makes workers of it, over every transport whose connections a child must not share."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

import fan
from fan import App
from fan.settings import Settings
from fan.testing.contracts.queue_harness import until

pytestmark = [pytest.mark.rabbitmq, pytest.mark.redis, pytest.mark.timeout(400)]

TRANSPORTS = ("ipc", "amqp", "redis")
#: Seconds after which something is taken to hang.
HANG = 60.0

#: What gunicorn serves: `GET /TRANSPORT/NUMBER` calls with what no other request has, and says
#: whose answer it got. The master calls over each transport before there is a worker.
_WEB = """
import json, os
from fan import App
from fan.settings import Settings

fan = App(name="web", settings=Settings(**json.loads(os.environ["WEB_SETTINGS"])))
MASTER = os.getpid()
for transport in ("ipc", "amqp", "redis"):
    assert fan.using(transport=transport).call("adder.add", MASTER, 1) == [MASTER, 1]

def app(environ, start_response):
    _, transport, number = environ["PATH_INFO"].split("/")
    mine = [os.getpid(), int(number)]
    got = fan.using(transport=transport, timeout=30.0).call("adder.add", *mine)
    start_response("200 OK", [("content-type", "application/json")])
    return [json.dumps({"pid": mine[0], "master": MASTER, "mine": mine, "got": got}).encode()]
"""


class Adder(fan.Service):
    """Gives back what it got, later the smaller the number is: answers overtake each other."""

    name = "adder"
    version = "1.0.0"

    @fan.rpc
    def add(self, pid: int, number: int) -> list[int]:
        threading.Event().wait(0.005 * (3 - number % 4))
        return [pid, number]


@pytest.fixture
def settings(
    private: Path, registry_url: str, new_vhost: Callable[[], str], new_redis: Callable[..., Any]
) -> dict[str, str]:
    """Of both sides."""
    return {
        "registry": registry_url,
        "runtime_dir": str(private / "run"),
        "amqp_url": new_vhost(),
        "redis_url": new_redis().url,
    }


@pytest.fixture
def adder(settings: dict[str, str]) -> Iterator[None]:
    """The service, over each transport."""
    app = App(Adder(), settings=Settings(**settings))  # type: ignore[arg-type]
    app.start(TRANSPORTS)
    yield
    app.stop()
    app.close()


class Gunicorn:
    """A master with two workers of four threads."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        (folder / "web.py").write_text(_WEB)
        given = "--preload -w 2 -k gthread --threads 4 -b 127.0.0.1:0 --timeout 120"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *given.split(), "web:app"],
            cwd=folder,
            env={**os.environ, "WEB_SETTINGS": json.dumps(settings)},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said: list[str] = []
        self._where: str = ""
        self._reader = threading.Thread(target=self._read, args=(self._process.stderr,))
        self._reader.start()
        self.url = until(
            lambda: self._where or ("ended" if self._process.poll() is not None else "")
        )
        assert self.url != "ended", self.said

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self.said.append(line)
                if found := re.search(r"Listening at: (http://[0-9.:]+)", line):
                    self._where = found[1]

    def get(self, transport: str, number: int) -> dict[str, Any]:
        """The answer of whichever worker takes it; empty where that one was killed over it."""
        try:
            with urlopen(f"{self.url}/{transport}/{number}", timeout=HANG) as answer:
                told: dict[str, Any] = json.load(answer)
        except HTTPError as exc:
            exc.close()
            raise AssertionError("".join(self.said)) from exc
        except (OSError, HTTPException):
            return {}
        assert told["got"] == told["mine"]  # and not another request's, in whatever process
        assert told["pid"] != told["master"]
        return told

    def close(self) -> None:
        """Have it end as an operator does; its workers end with it."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(HANG)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join(HANG)


@pytest.fixture
def web(private: Path, settings: dict[str, str], adder: None) -> Iterator[Gunicorn]:
    server = Gunicorn(private, settings)
    yield server
    server.close()


def served(web: Gunicorn) -> dict[str, set[int]]:
    """By transport, the workers that have served calls over it, once there are two for each."""
    found: dict[str, set[int]] = {transport: set() for transport in TRANSPORTS}
    numbers = iter(range(1_000_000))

    def ask() -> bool:
        with ThreadPoolExecutor(8) as pool:
            asked = [(name, next(numbers)) for _ in range(8) for name in TRANSPORTS]
            for (name, _), told in zip(asked, pool.map(lambda a: web.get(*a), asked), strict=True):
                if told:
                    found[name].add(told["pid"])
        return all(len(pids) >= 2 for pids in found.values())

    until(ask)
    return found


def test_workers_that_are_forked_after_use_call_over_every_transport(web: Gunicorn) -> None:
    found = served(web)
    (workers,) = {frozenset(pids) for pids in found.values()}
    assert len(workers) == 2


def test_workers_that_are_killed_are_replaced_by_some_that_call(web: Gunicorn) -> None:
    (workers,) = {frozenset(pids) for pids in served(web).values()}
    for _ in range(3):
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        dead = workers
        until(lambda d=dead: not any(map(_is_there, d)))  # type: ignore[misc]
        (workers,) = {frozenset(pids) for pids in served(web).values()}
        assert len(workers) == 2
        assert not workers & dead


def test_one_worker_that_is_killed_takes_nothing_of_the_other_s(web: Gunicorn) -> None:
    (workers,) = {frozenset(pids) for pids in served(web).values()}
    doomed, other = workers
    outcomes: list[dict[str, Any]] = []
    with ThreadPoolExecutor(8) as pool:
        asked = [(TRANSPORTS[n % 3], n) for n in range(240)]
        pending = [pool.submit(web.get, *one) for one in asked]
        until(lambda: sum(one.done() for one in pending) > 40)
        os.kill(doomed, signal.SIGKILL)
        outcomes = [one.result(HANG) for one in pending]
    answered = [told["pid"] for told in outcomes if told]
    assert len(answered) >= len(asked) - 16  # what the killed one had in hand, at most
    assert answered.count(other) > 0


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
