"""fan beside other kits, on the same servers in the same run, 16 callers.

Each side is a process of its own; and like is put beside like: kits of threads (nameko, grpcio,
rpyc, Pyro5; zerorpc's greenlets) against 16 threads of fan, kits of one event loop (FastStream,
moleculer) against 16 tasks of fan. Without a broker the kits of threads stand beside its tasks too:
they have nothing else for 16 callers, and fan has both. All take turns, round by round.

Everybody is used as its documentation shows first: those without a broker over TCP, by
`connection.root.method(...)` or `proxy.method(...)`, and fan by `app.call("service.method", ...)`,
which goes over ipc on one machine. There a call carries five keyword arguments, about 110 bytes as
JSON, and is answered with them; grpcio, which has one message and no arguments, carries 100 bytes
of text. The rows called "tuned" have the same kits over a unix socket, with a method bound once,
and the text alone, which spares rpyc and Pyro5 most of their work. Over brokers it is the text too.

The peers are installed below a folder of the run (`peers/installed.py`); one that cannot be is left
out, and the run says why. A row's note has the versions, and the processor time of a call, which
says the same on a busy machine.
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
from processes import cpu_seconds

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
    """A peer of one way: with which face of fan it is compared, and how fast fan has to be
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
        Against("grpcio", TASKS, ">= 5"),
        Against("rpyc", TASKS, ">= 5"),
        Against("Pyro5", TASKS, ">= 5"),
        Against("zerorpc", TASKS, ">= 5"),
        Against("moleculer", TASKS, ">= 0"),
    ),
    "ipc, tuned": (
        Against("grpcio", THREADS, ">= 0"),
        Against("rpyc", THREADS, ">= 0"),
        Against("Pyro5", THREADS, ">= 0"),
        Against("zerorpc", THREADS, ">= 0"),
    ),
}
#: How `peers/fan_peer.py` calls from threads and from tasks, where it is not by name with a text.
FACES = {"ipc": ("record", "record-async"), "ipc, tuned": ("call-bound", "call-async")}


class Pair(NamedTuple):
    """A server, and the program that calls it."""

    server: Program
    caller: Program

    def measure(self) -> tuple[float, float, float]:
        """Calls a second, and microseconds of processor time for each on either side."""
        before = [cpu_seconds(program.pid) for program in self]
        rate = self.caller.measure(CALLERS, SECONDS)
        each = 1e6 / (rate * SECONDS)
        caller, server = (
            (cpu_seconds(program.pid) - was) * each
            for program, was in zip(reversed(self), reversed(before), strict=True)
        )
        return rate, caller, server


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
        rows += compare("ipc", folder, peers, port)
        rows += compare("ipc, tuned", folder, peers, lambda name: f"{folder}/{name}.sock")
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


def port(name: str) -> str:
    """Where a peer without a broker serves over TCP; moleculer's caller needs a port too."""
    if name == "moleculer":
        return "tcp:{},{}".format(*free_ports(2))
    return f"127.0.0.1:{free_ports(1)[0]}"


def compare(
    way: str, folder: str, peers: dict[str, Peer], url_of: Callable[[str], str]
) -> list[dict[str, Any]]:
    """The rows of one way."""
    got: dict[str, list[tuple[float, float, float]]] = {}
    with ExitStack() as stack:
        pairs = ours(stack, way, folder, url_of("fan"))
        for name in dict.fromkeys(a.name for a in AGAINST[way] if a.name in peers):
            try:
                pairs[name] = stack.enter_context(both(peers[name], url_of(name)))
            except Failed as exc:
                print(f"   {name} over {way} is left out: {exc}")
        for number in range(ROUNDS + 1):
            for name, pair in [*pairs.items()]:
                try:
                    measured = pair.measure()
                except Failed as exc:
                    print(f"   {name} over {way} is left out: {exc}")
                    del pairs[name]
                    got.pop(name, None)
                else:
                    got.setdefault(name, []).extend([measured][not number :])  # the first warms up
    median = {
        name: [statistics.median(column) for column in zip(*each, strict=True)]
        for name, each in got.items()
    }
    return [
        {
            **row(
                f"{way}, {against.face} : {against.name}",
                median[against.face][0], median[against.name][0], "calls/s", against.target,
            ),
            "note": f"{peers[against.name].versions}; {cost(median, against)}",
        }
        for against in AGAINST[way]
        if against.name in median
    ]  # fmt: skip


def cost(median: dict[str, list[float]], against: Against) -> str:
    """What one call costs either of them on its two sides: unlike the rates, this says the same on
    a busy machine."""
    sides = (
        f"{who} {median[name][1]:.0f} + {median[name][2]:.0f}"
        for who, name in (("fan", against.face), (against.name, against.name))
    )
    return f"us of CPU a call, caller + server: {', '.join(sides)}"


def ours(stack: ExitStack, way: str, folder: str, url: str) -> dict[str, Pair]:
    """The faces of fan that are compared, which share a server."""
    scheme = way.partition(",")[0]
    program = [sys.executable, "-P", str(HERE / "fan_peer.py")]
    where = tempfile.mkdtemp(dir=folder)
    variables = {"PYTHONPATH": str(HERE)}

    def start(what: str) -> Program:
        command = [*program, what, scheme, url, where]
        return stack.enter_context(Program(command, variables))

    server = start("serve")
    faces = dict(zip((THREADS, TASKS), FACES.get(way, ("call", "call-async")), strict=True))
    wanted = dict.fromkeys(against.face for against in AGAINST[way])
    return {face: Pair(server, start(faces[face])) for face in wanted}


@contextmanager
def both(peer: Peer, url: str) -> Iterator[Pair]:
    """A peer's server and the program that calls it."""
    with (
        Program([*peer.command, "serve", url], peer.variables) as server,
        Program([*peer.command, "call", url], peer.variables) as caller,
    ):
        yield Pair(server, caller)
