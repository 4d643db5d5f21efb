"""Fixtures with real servers. Ask for them in a conftest::

pytest_plugins = ["fan.testing.servers"]

def test_it_is_kept(redis_server):
    client = redis.Redis.from_url(redis_server.url)

`redis_server`, `rabbitmq_server` and `zookeeper_server` are private ones on 127.0.0.1 for the whole
run, started by the first test that asks, and shared: keep out of each other's way. `new_redis`,
`new_rabbitmq` and `new_zookeeper` make one for a test that kills or misconfigures it.

A test whose server is not installed skips and says what to type; with `CI=true` it fails. So does
one that is marked with a shell, `zsh` or `fish`, and asks for it by `require`.
`FAN_TEST_INSTALL=1` installs what is missing, on Debian or Ubuntu as root, before the first test.
`FAN_TEST_REDIS_URL`, `FAN_TEST_AMQP_URL` and `FAN_TEST_ZK_HOSTS` name servers to be shared instead
of private ones.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from shutil import which
from typing import Any, Protocol, Self, TypeVar

import pytest

from fan.testing.packages import install
from fan.tools.servers_base import Server
from fan.tools.servers_rabbitmq import RabbitMQ
from fan.tools.servers_redis import Redis
from fan.tools.servers_zookeeper import Ensemble, ZooKeeper

__all__ = [
    "new_rabbitmq",
    "new_redis",
    "new_zookeeper",
    "rabbitmq_server",
    "redis_server",
    "require",
    "zookeeper_server",
]

class _Startable(Protocol):
    def start(self) -> Self: ...

    def close(self) -> None: ...


S = TypeVar("S", bound=_Startable)

PRODUCTS: dict[str, type[Server]] = {cls.name: cls for cls in (Redis, RabbitMQ, ZooKeeper)}
#: Shells that tests of completion run.
SHELLS = ("zsh", "fish")
#: Product -> the variable that names a server to use instead of a private one.
VARIABLES = {
    "redis": "FAN_TEST_REDIS_URL",
    "rabbitmq": "FAN_TEST_AMQP_URL",
    "zookeeper": "FAN_TEST_ZK_HOSTS",
}
#: In the environment of the servers of a whole run, for those who look for leftovers.
SESSION_MARK = "FAN_TEST_SERVER_OF_THE_RUN"


@dataclass(frozen=True)
class GivenServer:
    """Somebody else's server: only its URL is known."""

    url: str


@dataclass
class _Run:
    """What the environment of the run says, and what came of it."""

    may_install: bool
    must_have: bool
    given: Mapping[str, str]
    #: Product -> why it could not be installed.
    problems: dict[str, str] = field(default_factory=dict)
    #: Product -> the number of tests that did without.
    skipped: Counter[str] = field(default_factory=Counter)


_RUN = pytest.StashKey[_Run]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Read the environment, before anybody isolates the run from it."""
    given = {name: url for name, var in VARIABLES.items() if (url := os.environ.get(var))}
    config.stash[_RUN] = _Run(
        may_install=os.environ.get("FAN_TEST_INSTALL") == "1",
        must_have=os.environ.get("CI", "").lower() in ("1", "true", "yes"),
        given=given,
    )
    for name in PRODUCTS:
        config.addinivalue_line("markers", f"{name}: needs a {name} server, which the test starts")
    for name in SHELLS:
        config.addinivalue_line("markers", f"{name}: needs the shell {name}")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Install what the chosen tests need: here, since a test's own time does not suffice."""
    run = session.config.stash[_RUN]
    if not run.may_install or session.config.option.collectonly:
        return
    wanted = {name for item in session.items for name in _products_of(item)}
    lacking = [name for name in (*PRODUCTS, *SHELLS) if name in wanted and _is_lacking(name)]
    if not lacking:
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(f"installing {', '.join(lacking)} ...")
    said = install(lacking)
    run.problems.update({name: said for name in lacking if said})


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say loudly which tests did not run for want of a server or a shell."""
    run = config.stash[_RUN]
    if run.skipped:
        title = "servers and shells that are not installed"
        terminalreporter.section(title, yellow=True, bold=True)
    for name, count in sorted(run.skipped.items()):
        terminalreporter.write_line(f"{count} skipped: {_problem(run, name)}", yellow=True)


@pytest.fixture(scope="session")
def redis_server(request: pytest.FixtureRequest) -> Iterator[Redis | GivenServer]:
    """A Redis for the whole run, with a `url`."""
    with _shared(request, "redis", Redis) as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq_server(request: pytest.FixtureRequest) -> Iterator[RabbitMQ | GivenServer]:
    """A RabbitMQ for the whole run, with a `url`."""
    with _shared(request, "rabbitmq", RabbitMQ) as server:
        yield server


@pytest.fixture(scope="session")
def zookeeper_server(request: pytest.FixtureRequest) -> Iterator[ZooKeeper | GivenServer]:
    """A ZooKeeper for the whole run, with a `url`; its sessions may be as short as 0.4 s."""
    with _shared(request, "zookeeper", partial(ZooKeeper, tick=0.2)) as server:
        yield server


@pytest.fixture
def new_redis(request: pytest.FixtureRequest) -> Iterator[Callable[..., Redis]]:
    """`new_redis(**how)` starts a `fan.tools.servers_redis.Redis` of the test's own."""
    with _maker(request, "redis", Redis) as make:
        yield make


@pytest.fixture
def new_rabbitmq(request: pytest.FixtureRequest) -> Iterator[Callable[..., RabbitMQ]]:
    """`new_rabbitmq(**how)` starts a `fan.tools.servers_rabbitmq.RabbitMQ` of the test's own."""
    with _maker(request, "rabbitmq", RabbitMQ) as make:
        yield make


@pytest.fixture
def new_zookeeper(request: pytest.FixtureRequest) -> Iterator[Callable[..., Ensemble]]:
    """`new_zookeeper(n, **how)` starts a `fan.tools.servers_zookeeper.Ensemble` of `n`, 1 by
    default, of the test's own."""

    def ensemble(n: int = 1, **how: Any) -> Ensemble:
        return Ensemble(n, **{"tick": 0.2, **how})

    with _maker(request, "zookeeper", ensemble) as make:
        yield make


@contextmanager
def _shared(
    request: pytest.FixtureRequest, name: str, make: Callable[..., S]
) -> Iterator[S | GivenServer]:
    """The server of the run: the given one, or a private one that is closed at the end."""
    run = request.config.stash[_RUN]
    if name in run.given:
        scheme = "zk://" if name == "zookeeper" else ""
        yield GivenServer(f"{scheme}{run.given[name]}")
        return
    require(request.config, name)
    server = make(vars={SESSION_MARK: "1"})
    try:
        yield server.start()
    finally:
        server.close()


@contextmanager
def _maker(
    request: pytest.FixtureRequest, name: str, make: Callable[..., S]
) -> Iterator[Callable[..., S]]:
    """Starts servers, and closes them with the test."""
    with ExitStack() as stack:

        def start(*args: Any, **how: Any) -> S:
            require(request.config, name)
            server = make(*args, **how)
            stack.callback(server.close)
            return server.start()

        yield start


def require(config: pytest.Config, name: str) -> None:
    """Skip the test, or fail it where nothing may be skipped, when the server or shell `name` is
    not installed: for fixtures that start one by themselves."""
    run = config.stash[_RUN]
    if not _missing(name):
        return
    if run.must_have:
        pytest.fail(_problem(run, name), pytrace=False)
    run.skipped[name] += 1
    pytest.skip(_problem(run, name))


def _problem(run: _Run, name: str) -> str:
    """What is missing, and what to do about it."""
    said = f"{_missing(name)}; or FAN_TEST_INSTALL=1 as root on Debian"
    if name in run.problems:
        said = f"{_missing(name)}. {run.problems[name]}"
    return f"{said}; or name a server in {VARIABLES[name]}" if name in VARIABLES else said


def _missing(name: str) -> str:
    """Why a server or shell cannot be started, and what to type; empty where it can."""
    if name in PRODUCTS:
        return PRODUCTS[name].missing()
    return "" if which(name) else f"{name} is not installed: apt-get install {name}"


def _is_lacking(name: str) -> bool:
    """Whether to install it; a Redis proper also where Valkey's wheel would do."""
    return bool(_missing(name)) or (name == "redis" and not which("redis-server"))


def _products_of(item: pytest.Item) -> Iterator[str]:
    """What a test says that it needs, by marker or by fixture."""
    fixtures = set(getattr(item, "fixturenames", ()))
    for name in (*PRODUCTS, *SHELLS):
        if item.get_closest_marker(name) or fixtures & {f"{name}_server", f"new_{name}"}:
            yield name
