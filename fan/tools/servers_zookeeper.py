"""A private ZooKeeper, alone or as an ensemble."""

from __future__ import annotations

import glob
import os
import shutil
import time
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from fan.tools.servers_base import START_TIMEOUT, STOP_GRACE, Part, Server, tail_of_config
from fan.tools.servers_ports import ask, free_ports

#: Where its classes are; Debian's jar names those that it depends on.
_JARS = (
    "/usr/share/java/zookeeper.jar",
    "/opt/zookeeper/lib/*.jar",
    "/opt/homebrew/opt/zookeeper/libexec/lib/*.jar",
    "/usr/local/opt/zookeeper/libexec/lib/*.jar",
)
#: What Debian's jar does not name: something that prints warnings, and what TLS needs.
_BESIDE = tuple(
    f"/usr/share/java/{name}.jar" for name in ("slf4j-simple", "netty-codec", "netty-resolver")
)
_JVM = ("-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData")
_MAIN = "org.apache.zookeeper.server"


class ZooKeeper(Server):
    """`zk://127.0.0.1:PORT`. `conf` are lines of zoo.cfg, `properties` of Java's. `tick` is its
    unit of time in seconds: a session's timeout is at least two ticks, and noticed by the tick.

    A member of an ensemble has the `members`, `server.N` -> `HOST:PORT:PORT`, and its `number`.
    """

    name: ClassVar[str] = "zookeeper"
    port_count: ClassVar[int] = 3  # clients, followers, elections

    def __init__(
        self,
        *,
        tick: float = 2.0,
        conf: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        members: Mapping[str, str] | None = None,
        number: int = 1,
        **where: Any,
    ) -> None:
        super().__init__(**where)
        self._tick = tick
        self._conf = dict(conf or {})
        self._properties = dict(properties or {})
        self._members = dict(members or {})
        self._number = number

    @classmethod
    def missing(cls) -> str:
        """A sentence where there is no program."""
        if _classes() and shutil.which("java"):
            return ""
        return "ZooKeeper is not installed: `apt-get install zookeeper default-jre-headless`"

    @property
    def url(self) -> str:
        """`zk://127.0.0.1:PORT`."""
        return f"zk://{self.hosts}"

    @property
    def hosts(self) -> str:
        """`127.0.0.1:PORT`."""
        return f"127.0.0.1:{self.port}"

    def say(self, word: str) -> str:
        """The answer to a four letter word: `ruok`, `srvr`, `mntr`, ..."""
        return ask(self.port, word.encode()).decode(errors="replace")

    def parts(self) -> list[Part]:
        """The server alone."""
        properties = {
            "zookeeper.admin.enableServer": "false",
            "org.slf4j.simpleLogger.defaultLogLevel": "warn",
            **self._properties,
        }
        main = "quorum.QuorumPeerMain" if self._members else "ZooKeeperServerMain"
        command = [
            shutil.which("java") or "java",
            *_JVM,
            *(f"-D{name}={value}" for name, value in properties.items()),
            *("-cp", _classes(), f"{_MAIN}.{main}", self._file),
        ]
        return [Part(self.name, command, self._answers)]

    def configure(self) -> None:
        """Write zoo.cfg, and a member's number."""
        data = os.path.join(self.folder, "data")
        os.makedirs(data, exist_ok=True)
        milliseconds = max(1, round(self._tick * 1000))
        lines = {
            "tickTime": str(milliseconds),
            "initLimit": str(max(5, 20_000 // milliseconds)),
            "syncLimit": str(max(2, 5_000 // milliseconds)),
            "minSessionTimeout": str(2 * milliseconds),
            "maxSessionTimeout": "60000",
            "dataDir": data,
            "clientPort": str(self.port),
            "clientPortAddress": "127.0.0.1",
            "admin.enableServer": "false",
            "maxClientCnxns": "0",
            "4lw.commands.whitelist": "*",
            **self._members,
            **self._conf,
        }
        with open(self._file, "w", encoding="utf-8") as file:
            file.write(tail_of_config(lines, "{}={}"))
        with open(os.path.join(data, "myid"), "w", encoding="ascii") as file:
            file.write(f"{self._number}\n")

    @property
    def _file(self) -> str:
        return os.path.join(self.folder, "zoo.cfg")

    def _answers(self) -> bool:
        """Whether our server, and not another, serves the port, as a member of a quorum."""
        return "\nMode: " in self.say("srvr") and f"dataDir={self.folder}/" in self.say("conf")


class Ensemble:
    """`n` ZooKeepers that are one: `zk://127.0.0.1:P1,127.0.0.1:P2,...`. Each of the `servers` can
    be killed, paused and started; what is done to the ensemble is done to all."""

    def __init__(self, n: int, *, vars: Mapping[str, str] | None = None, **how: Any) -> None:
        ports = free_ports(3 * n)
        mine = [(ports[3 * i], ports[3 * i + 1], ports[3 * i + 2]) for i in range(n)]
        members = {f"server.{i + 1}": f"127.0.0.1:{p[1]}:{p[2]}" for i, p in enumerate(mine)}
        #: In the order of the URL.
        self.servers: list[ZooKeeper] = []
        for number, own in enumerate(mine, 1):
            server = ZooKeeper(
                ports=own, vars=vars, number=number, members=members if n > 1 else None, **how
            )
            self.servers.append(server)

    def __repr__(self) -> str:
        up = sum(server.is_running for server in self.servers)
        return f"<Ensemble {self.url} up={up}/{len(self.servers)}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """`zk://127.0.0.1:P1,127.0.0.1:P2,...`."""
        return f"zk://{self.hosts}"

    @property
    def hosts(self) -> str:
        """`127.0.0.1:P1,127.0.0.1:P2,...`."""
        return ",".join(server.hosts for server in self.servers)

    def start(self, timeout: float = START_TIMEOUT) -> Self:
        """Start those that do not run, and wait until all answer. Raises Unavailable."""
        deadline = time.monotonic() + timeout
        for server in self.servers:
            server.launch(deadline)
        for server in self.servers:
            server.wait_ready(deadline)
        return self

    def kill(self) -> None:
        """kill -9 all."""
        for server in self.servers:
            server.kill()

    def pause(self) -> None:
        """SIGSTOP to all."""
        for server in self.servers:
            server.pause()

    def resume(self) -> None:
        """SIGCONT to all."""
        for server in self.servers:
            server.resume()

    def stop(self, grace: float = STOP_GRACE) -> None:
        """End all in good order; the data stays."""
        for server in self.servers:
            server.stop(grace)

    def close(self) -> None:
        """Kill all and remove their folders. Twice does no harm."""
        for server in self.servers:
            server.close()


def _classes() -> str:
    """Java's class path, empty where ZooKeeper is not installed."""
    for pattern in _JARS:
        if jars := sorted(glob.glob(pattern)):
            beside = _BESIDE if pattern == _JARS[0] else ()
            extra = [jar for jar in beside if os.path.exists(jar)]
            return os.pathsep.join([*jars, *extra])
    return ""
