"""fan beside other kits, on the same servers in the same run, 16 callers, 100 bytes.

Everybody does what its own documentation says, each side in a process of its own, and like is put
beside like: kits of threads (nameko, grpcio, rpyc, Pyro5; zerorpc's greenlets) against 16 threads
of fan, kits of one event loop (FastStream, moleculer) against 16 tasks of fan. All take turns,
round by round. The peers are installed below a folder of the run (`peers/installed.py`); one that
cannot be is left out, and the run says why.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench_ipc import row

from fan.tools.servers_ports import free_ports
from fan.tools.servers_rabbitmq import RabbitMQ
from fan.tools.servers_redis import Redis

sys.path.insert(0, str(Path(__file__).parent / "peers"))

from driven import Failed, Program
from installed import HERE, Missing, Peer, install_node, install_python

ROUNDS = 5
SECONDS = 1.0
CALLERS = 16

NODE = ("moleculer_peer.js", "moleculer", "ioredis", "amqplib")
#: Name -> how it is installed, once however many transports it is measured over.
INSTALLED: dict[str, tuple[Callable[..., Peer], tuple[str, ...]]] = {
    "nameko": (install_python, ("nameko_peer.py", "nameko")),
    "FastStream": (install_python, ("faststream_peer.py", "faststream[redis,rabbit]")),
    "moleculer": (install_node, NODE),
    "grpcio": (install_python, ("grpc_peer.py", "grpcio")),
    "rpyc": (install_python, ("rpyc_peer.py", "rpyc")),
    "Pyro5": (install_python, ("pyro_peer.py", "Pyro5")),
    "zerorpc": (install_python, ("zerorpc_peer.py", "zerorpc")),
}


class Against(NamedTuple):
    """A peer of one transport: with which face of fan it is compared, and how fast fan has to be
    beside it."""

    name: str
    face: str
    target: str


THREADS, TASKS = "16 threads", "16 asyncio callers"
AGAINST: dict[str, tuple[Against, ...]] = {
    "redis": (
        Against("FastStream", TASKS, ">= 4"),
        Against("moleculer", TASKS, ">= 0.333"),
    ),
    "amqp": (
        Against("nameko", THREADS, ">= 4"),
        Against("FastStream", TASKS, ">= 4"),
        Against("moleculer", TASKS, ">= 0.333"),
    ),
    "ipc": (
        Against("grpcio", THREADS, ">= 5"),
        Against("rpyc", THREADS, ">= 5"),
        Against("Pyro5", THREADS, ">= 5"),
        Against("zerorpc", THREADS, ">= 5"),
        Against("moleculer", TASKS, ">= 0"),
    ),
}


def run() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="fan-peers-") as folder:
        peers = dict(install(folder))
        for scheme, server in (("redis", Redis), ("amqp", RabbitMQ)):
            if problem := server.missing():
                print(f"   {scheme} is left out: {problem}")
                continue
            with server() as started:
                url = started.start().url
                rows += compare(scheme, folder, peers, lambda name, url=url: url)
        rows += compare("ipc", folder, peers, lambda name: address(folder, name))
    return rows


def install(folder: str) -> Iterator[tuple[str, Peer]]:
    """The peers that can be installed here."""
    for name, (how, what) in INSTALLED.items():
        try:
            peer = how(folder, *what)
        except Missing as exc:
            print(f"   {name} is left out: {exc}", flush=True)
        else:
            print(f"   {peer.versions}", flush=True)
            yield name, peer


def address(folder: str, name: str) -> str:
    """Where a peer without a broker serves: a unix socket, or two ports for moleculer, which has
    no other."""
    if name == "moleculer":
        return "tcp:{},{}".format(*free_ports(2))
    return f"{folder}/{name}.sock"


def compare(
    scheme: str, folder: str, peers: dict[str, Peer], url_of: Callable[[str], str]
) -> list[dict[str, Any]]:
    """The rows of one transport."""
    got: dict[str, list[float]] = {}
    with ExitStack() as stack:
        programs = ours(stack, scheme, folder, url_of("fan"))
        for name in (against.name for against in AGAINST[scheme] if against.name in peers):
            try:
                programs[name] = stack.enter_context(both(peers[name], url_of(name)))
            except Failed as exc:
                print(f"   {name} over {scheme} is left out: {exc}")
        for number in range(ROUNDS + 1):
            for name, program in [*programs.items()]:
                try:
                    rate = program.measure(CALLERS, SECONDS)
                except Failed as exc:
                    print(f"   {name} over {scheme} is left out: {exc}")
                    del programs[name]
                    got.pop(name, None)
                else:
                    got.setdefault(name, []).extend([rate][not number :])  # the first warms up
    median = {name: statistics.median(rates) for name, rates in got.items()}
    faces = ", ".join(f"{face} {median[face]:.0f}" for face in (THREADS, TASKS))
    return [
        {
            **row(
                f"{scheme}, {against.face} : {against.name}",
                median[against.face], median[against.name], "calls/s", against.target,
            ),
            "note": f"{peers[against.name].versions}; fan: {faces}",
        }
        for against in AGAINST[scheme]
        if against.name in median
    ]  # fmt: skip


def ours(stack: ExitStack, scheme: str, folder: str, url: str) -> dict[str, Program]:
    """Both faces of fan, which share a server."""
    program = [sys.executable, "-P", str(HERE / "fan_peer.py")]
    where = tempfile.mkdtemp(dir=folder)
    variables = {"PYTHONPATH": str(HERE)}

    def start(what: str) -> Program:
        command = [*program, what, scheme, url, where]
        return stack.enter_context(Program(command, variables))

    start("serve")
    return {THREADS: start("call"), TASKS: start("call-async")}


@contextmanager
def both(peer: Peer, url: str) -> Iterator[Program]:
    """A peer's server and the program that calls it."""
    with (
        Program([*peer.command, "serve", url], peer.variables),
        Program([*peer.command, "call", url], peer.variables) as caller,
    ):
        yield caller
