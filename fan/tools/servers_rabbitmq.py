"""A private RabbitMQ, and the epmd that it needs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any, ClassVar

from fan.tools.servers_base import Part, Server, tail_of_config
from fan.tools.servers_ports import ask, is_listening
from fan.tools.servers_process import failed

#: Where the script is that does not change the user, as Debian's /usr/sbin/rabbitmq-server does.
_FOLDERS = (
    "/usr/lib/rabbitmq/bin",
    "/opt/homebrew/opt/rabbitmq/sbin",
    "/usr/local/opt/rabbitmq/sbin",
    "/opt/rabbitmq/sbin",
)
#: Erlang's schedulers spin for work by default, which takes the processor from everybody else.
_ERL_ARGS = (
    "-noinput +sbwt none +sbwtdcpu none +sbwtdio none"
    " -kernel inet_dist_use_interface {127,0,0,1}"
)
#: Seconds for a command of rabbitmqctl.
_CTL_TIMEOUT = 60.0


class RabbitMQ(Server):
    """`amqp://guest:guest@127.0.0.1:PORT/`. `conf` are lines of rabbitmq.conf:
    `{"heartbeat": "5"}`."""

    name: ClassVar[str] = "rabbitmq"
    port_count: ClassVar[int] = 3  # clients, other nodes, epmd

    def __init__(self, *, conf: Mapping[str, str] | None = None, **where: Any) -> None:
        super().__init__(**where)
        self._conf = dict(conf or {})

    @classmethod
    def missing(cls) -> str:
        """A sentence where there is no program."""
        if _script("rabbitmq-server") and shutil.which("epmd"):
            return ""
        return "RabbitMQ is not installed: `apt-get install rabbitmq-server`"

    @property
    def url(self) -> str:
        """`amqp://guest:guest@127.0.0.1:PORT/`."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def node(self) -> str:
        """The name among Erlang's nodes."""
        return f"fan-{self.port}@localhost"

    def ctl(self, *args: str) -> str:
        """What `rabbitmqctl ARGS` prints. Raises Unavailable when it fails."""
        done = subprocess.run(
            [_script("rabbitmqctl"), "--quiet", "--node", self.node, *args],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=self._environment(self.parts()[-1]),
            timeout=_CTL_TIMEOUT,
            check=False,
        )
        if done.returncode:
            raise failed(f"rabbitmqctl {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout

    def sync(self) -> None:
        """Put on the disk what the broker itself still holds back, before a `kill` in a test.

        RabbitMQ 3.10 writes down the name of a new quorum queue up to 3 s after it has confirmed
        messages in it; killed before, it never finds the queue again, and every use of it ends
        after 65 s in INTERNAL_ERROR. Takes about a second.
        """
        self.ctl("eval", "[ok = dets:sync(T) || T <- dets:all()], ok = mnesia:sync_log().")

    def parts(self) -> list[Part]:
        """epmd, which RabbitMQ would start by itself and leave behind, and the server."""
        epmd_port = self.ports[2]
        epmd = ["epmd", "-port", str(epmd_port), "-address", "127.0.0.1"]
        return [
            Part("epmd", epmd, lambda: is_listening(epmd_port)),
            # Its shell script replaces itself by Erlang where it may read the terminal, and else
            # stays the parent; `-noinput` takes that permission back.
            Part(self.name, [_script("rabbitmq-server")], self._answers, self._variables()),
        ]

    def configure(self) -> None:
        """Write rabbitmq.conf, and empty files in the place of the system's."""
        lines = {
            "log.file.level": "warning",
            "log.console": "true",
            "log.console.level": "warning",
            "disk_free_limit.absolute": "50MB",
            **self._conf,
        }
        for name, text in {
            "rabbitmq.conf": tail_of_config(lines, "{} = {}"),
            "enabled_plugins": "[].\n",
            "env.conf": "",
            "advanced.config": "[].\n",
        }.items():
            with open(os.path.join(self.folder, name), "w", encoding="utf-8") as file:
                file.write(text)

    def _variables(self) -> dict[str, str]:
        folder = self.folder
        return {
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.ports[1]),
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/advanced.config",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/env.conf",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _ERL_ARGS,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self.ports[2]),
            "ERL_CRASH_DUMP": f"{folder}/erl_crash.dump",
        }

    def _answers(self) -> bool:
        """Whether our node greets: its name is in the first frame."""
        said = ask(self.port, b"AMQP\0\0\x09\x01", end=b"\xce")
        return self.node.partition("@")[0].encode() in said


def _script(name: str) -> str:
    """One of RabbitMQ's shell scripts, empty where it is not installed."""
    paths = (os.path.join(folder, name) for folder in _FOLDERS)
    return next((path for path in paths if os.access(path, os.X_OK)), "")
