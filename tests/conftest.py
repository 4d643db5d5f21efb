"""What every test gets: an environment of its own, a private registry, and a check for leftovers.

No test sees the user's home, settings, registry or `FAN_*` variables, and no module may leave a
process behind. Fixtures of one area live in that area's own conftest.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TypeVar

import hypothesis
import pytest

T = TypeVar("T")

pytest_plugins = ["fan.testing.servers"]

# How long an example takes says something of the machine, and nothing of the code.
hypothesis.settings.register_profile("fan", deadline=None)
hypothesis.settings.load_profile("fan")

#: Every process that a test starts inherits this variable, also when its parent is gone.
_MARK = "TEST_RUN_OF_FAN"
_RUN = uuid.uuid4().hex
#: Whether the long runs have their full length: `nox -s soak` says so by FAN_TEST_LONG=1.
_IS_LONG = pytest.StashKey[bool]()
#: Seconds for a test of a long run, in its short form and at full length.
_SOAK_TIMEOUT = (400, 3600)

_FOLDERS = (
    "HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_CACHE_HOME",
    "XDG_STATE_HOME",
    "XDG_RUNTIME_DIR",
)
_DROPPED = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS", "LINES")


def private_environment(folder: Path) -> dict[str, str]:
    """The variables that keep a process inside `folder`: its home, and every XDG folder."""
    env = {name: str(folder / name.lower().removeprefix("xdg_")) for name in _FOLDERS}
    for path in env.values():
        Path(path).mkdir(mode=0o700, exist_ok=True)
    return env


def is_open_to_all(folder: Path) -> bool:
    """Whether any user can reach what is in a folder."""
    return all(path.stat().st_mode & 0o001 for path in (folder, *folder.resolve().parents))


def pytest_configure(config: pytest.Config) -> None:
    """Isolate the whole run, so that fixtures wider than a test are isolated too."""
    config.stash[_IS_LONG] = os.environ.get("FAN_TEST_LONG") == "1"
    for name in [*_DROPPED, *(name for name in os.environ if name.startswith("FAN_"))]:
        os.environ.pop(name, None)
    if os.geteuid() == 0 and not is_open_to_all(Path(tempfile.gettempdir())):
        tempfile.tempdir = "/tmp"  # some tests are an ordinary user for a while
    folder = Path(tempfile.mkdtemp(prefix="fan-"))
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ.update(private_environment(folder), TERM="dumb", LC_ALL="C.UTF-8")
    os.environ[_MARK] = _RUN
    # A shell starts what runs behind its back with these ignored, and every child inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give the long runs their time."""
    timeout = _SOAK_TIMEOUT[config.stash[_IS_LONG]]
    for item in items:
        if item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.timeout(timeout))


@pytest.fixture
def scale(request: pytest.FixtureRequest) -> Callable[[T, T], T]:
    """`scale(short, long)` is how much a long run does: the first among the ordinary tests, the
    second in `nox -s soak`."""
    is_long = request.config.stash[_IS_LONG]
    return lambda short, long: long if is_long else short


@pytest.fixture
def private() -> Iterator[Path]:
    """A folder with a short path, so that a unix socket inside it stays under 108 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="fan-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def isolated(private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home and XDG folders of the test's own."""
    for name, value in private_environment(private).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def registry_url(
    request: pytest.FixtureRequest, private: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """A private registry, also set as `FAN_REGISTRY` for processes that the test starts: a SQLite
    file, or a chroot on ZooKeeper where the test is parametrized so (`tests.configs.BOTH`)."""
    url = f"sqlite:{private / 'registry.db'}"
    if getattr(request, "param", "sqlite") == "zookeeper":
        url = f"{request.getfixturevalue('zookeeper_server').url}/{uuid.uuid4().hex}"
    monkeypatch.setenv("FAN_REGISTRY", url)
    return url


def descendants() -> dict[int, str]:
    """Live processes that this run started, orphans included: process id -> command line. Servers
    of the whole run do not count: they end with it."""
    from fan.testing.servers import SESSION_MARK  # here: pytest wants to be first to import it

    found: dict[int, str] = {}
    mark, session = f"{_MARK}={_RUN}".encode(), f"{SESSION_MARK}=1".encode()
    for entry in os.scandir("/proc") if os.path.isdir("/proc/self") else ():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environ = Path(entry.path, "environ").read_bytes()
            command = Path(entry.path, "cmdline").read_bytes()
        except OSError:  # gone, or another user's
            continue
        variables = environ.split(b"\0")
        if mark in variables and session not in variables:
            found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


@pytest.fixture(scope="module", autouse=True)
def no_leftovers() -> Iterator[None]:
    """No process of a module's tests outlives the module; what does is ended and fails it."""
    before = descendants()
    yield
    deadline = time.monotonic() + 30.0  # a process that was told to end may be slow to
    while (left := descendants().keys() - before.keys()) and time.monotonic() < deadline:
        time.sleep(0.02)
    if left:
        named = {pid: command for pid, command in descendants().items() if pid in left}
        for pid in named:
            os.kill(pid, signal.SIGKILL)
        assert not named, f"processes left behind: {named}"


class FanProcess:
    """A running `fan ...`: its lines as they come, its signals and its exit status."""

    def __init__(self, *args: str, cwd: Path | None = None, **vars: str) -> None:
        from fancli.processes import fan_command, fan_environment

        self._lines: queue.Queue[tuple[str, str | None]] = queue.Queue()
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self._process = subprocess.Popen(
            [*fan_command(), *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=fan_environment({**os.environ, **vars}),
            cwd=cwd,
            text=True,
        )
        self.pid = self._process.pid
        self._open = {"stdout", "stderr"}
        for name, stream in (("stdout", self._process.stdout), ("stderr", self._process.stderr)):
            assert stream is not None
            threading.Thread(target=self._read, args=(name, stream), daemon=True).start()

    def _read(self, name: str, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self._lines.put((name, line.rstrip("\n")))
        self._lines.put((name, None))

    def _take(self, deadline: float) -> tuple[str, str | None]:
        try:
            name, line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise AssertionError(f"nothing came: {self.stdout} {self.stderr}") from None
        if line is None:
            self._open.discard(name)
        else:
            getattr(self, name).append(line)
        return name, line

    def wait_for(self, text: str, stream: str = "stderr", timeout: float = 30.0) -> str:
        """The next line on a stream that has `text` in it."""
        deadline = time.monotonic() + timeout
        while stream in self._open:
            name, line = self._take(deadline)
            if name == stream and line is not None and text in line:
                return line
        raise AssertionError(f"{text!r} never came: {self.stdout} {self.stderr}")

    def send(self, number: int) -> None:
        """Send a signal to it alone."""
        self._process.send_signal(number)

    def wait(self, timeout: float = 30.0) -> int:
        """Its exit status, once all that it said is read."""
        deadline = time.monotonic() + timeout
        while self._open:
            self._take(deadline)
        return self._process.wait(max(0.0, deadline - time.monotonic()))

    def kill(self) -> None:
        """End it and its children, if they have not ended: one that outlived the folder of its
        registry would make it anew."""
        children = children_of(self.pid)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for fd in children:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            select.select([fd], [], [], 30.0)
            os.close(fd)


def children_of(pid: int) -> list[int]:
    """A descriptor for each child of a process, which no other process can take the place of."""
    found = []
    try:
        pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has ended
        return []
    for child in pids:
        with contextlib.suppress(ProcessLookupError):
            found.append(os.pidfd_open(int(child)))
    return found


@pytest.fixture
def start_fan() -> Iterator[Callable[..., FanProcess]]:
    """Start `fan ARGS` as a process: `start_fan("serve", "greeter", cwd=..., FAN_X=...)`. What
    still runs at the end of the test is killed."""
    running: list[FanProcess] = []

    def start(*args: str, cwd: Path | None = None, **vars: str) -> FanProcess:
        running.append(FanProcess(*args, cwd=cwd, **vars))
        return running[-1]

    yield start
    for process in running:
        process.kill()
