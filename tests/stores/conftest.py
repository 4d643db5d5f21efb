"""Other processes for the tests of stores: each runs some code with a store, and talks in lines."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from kazoo.client import KazooClient
from kazoo.retry import KazooRetry

from fan.errors import FanError
from fan.stores.base import Session
from fan.stores.zookeeper import ZookeeperStore
from fan.stores.zookeeper_session import ZookeeperSession
from fan.testing.contracts.store import PATIENCE, soon
from fan.tools.servers_zookeeper import ZooKeeper

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


# ZooKeeper


@pytest.fixture
def connect() -> Iterator[Callable[..., ZookeeperStore]]:
    with contextlib.ExitStack() as stack:

        def opens(url: str, namespace: str = "default", **how: Any) -> ZookeeperStore:
            store = ZookeeperStore(url.removeprefix("zk:"), namespace, **how)
            stack.callback(store.close)
            return store

        yield opens


@pytest.fixture
def url(zookeeper_server: Any) -> str:
    """A chroot of the test's own on the server of the run."""
    return f"{zookeeper_server.url}/{uuid.uuid4().hex}"


@pytest.fixture
def raw(zookeeper_server: Any) -> Iterator[KazooClient]:
    """Somebody who goes behind our back."""
    client = KazooClient(
        zookeeper_server.url.removeprefix("zk://"), connection_retry=KazooRetry(max_tries=20)
    )
    client.start(PATIENCE)
    yield client
    client.stop()
    client.close()


def _end_session(session: Session) -> None:
    """Have the servers end a session: a second client that has its id and password closes it."""
    assert isinstance(session, ZookeeperSession)
    channel = session.channel
    assert channel._client is not None
    other = KazooClient(
        channel.ensemble.hosts,
        client_id=channel._client.client_id,
        connection_retry=KazooRetry(max_tries=20, delay=0.05),
    )
    other.start(PATIENCE)
    other.stop()
    other.close()


def _eventually(ask: Callable[[], bool]) -> bool:
    """Whether it becomes true in the end; an error in between is not an answer."""
    deadline = soon()
    while time.monotonic() < deadline:
        with contextlib.suppress(FanError):
            if ask():
                return True
        time.sleep(0.02)
    return False


@pytest.fixture
def end_session() -> Callable[[Session], None]:
    """`end_session(session)` has the servers end it."""
    return _end_session


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], bool]:
    """`eventually(ask)`: whether `ask` becomes true in the end."""
    return _eventually


def _hang(servers: Iterable[ZooKeeper]) -> None:
    """Stop servers, and wait until each of their threads is: a signal takes its time."""
    for server in servers:
        server.pause()
        assert _eventually(lambda pid=server.pid: _is_stopped(pid))


def _is_stopped(pid: int) -> bool:
    """Whether each thread of a process is; not where one ended as it was looked at."""
    with contextlib.suppress(OSError):
        return all(
            (task / "stat").read_text().rpartition(")")[2].split()[0] == "T"
            for task in Path("/proc", str(pid), "task").iterdir()
        )
    return False


@pytest.fixture
def hang() -> Callable[[Iterable[ZooKeeper]], None]:
    """`hang(servers)` has them answer nobody, and hold what they are sent."""
    return _hang
