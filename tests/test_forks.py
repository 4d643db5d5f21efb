"""A fork: the child takes nothing of its parent along that others would miss."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fan import App, Config, Routes, Service, rpc
from fan.errors import Unavailable
from fan.settings import Settings
from fan.stores.memory import MemoryStore
from fan.tools.servers_ports import free_ports

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")

#: Seconds after which something is taken to hang.
HANG = 30.0

#: A server that ends abruptly and leaves a child, which was forked by a handler and lives until its
#: standard input ends.
_SERVER = """
import json, os, sys
from fan import App, Service, rpc
from fan.settings import Settings

class Spawner(Service):
    name, version = "spawner", "1.0.0"

    @rpc
    def spawn(self) -> None:
        if os.fork() == 0:
            os.read(0, 1)
            os._exit(0)

app = App(Spawner(), settings=Settings(**json.loads(sys.argv[1])))
app.start(json.loads(sys.argv[2]))
print(json.dumps([a.url for a in app.lifecycle.instances[0].addresses]), flush=True)
sys.stdin.read()
"""


def serve(settings: Settings, transports: list[str]) -> tuple[subprocess.Popen[str], list[str]]:
    given = {"registry": settings.registry, "runtime_dir": settings.runtime_dir}
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER, json.dumps(given), json.dumps(transports)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    return process, json.loads(line) if line else []


def test_a_server_that_died_is_not_reached_through_its_child_and_its_place_is_free(
    private: Path,
) -> None:
    settings = Settings(registry=f"sqlite:{private}/r.db", runtime_dir=f"{private}/run")
    transports = ["ipc", f"http=127.0.0.1:{free_ports(1)[0]}"]
    process, urls = serve(settings, transports)
    child = process.stdin
    assert child is not None
    with App(settings=settings) as app, child:
        for url in urls:  # a child with connections of either
            app.using(peers=(url,), timeout=HANG).call("spawner.spawn")
        process.kill()
        process.wait()
        for url in urls:
            with pytest.raises(Unavailable) as caught:
                app.using(peers=(url,), timeout=HANG, retries=0).call("spawner.spawn")
            assert (caught.value.reason, caught.value.executed) == ("connect_failed", "no")
        again, urls_again = serve(settings, transports)
        assert again.stdin is not None
        assert again.stdout is not None
        with again.stdin, again.stdout:
            assert urls_again[1] == urls[1]
        again.wait(HANG)
    assert process.stdout is not None
    process.stdout.read()  # until the children have ended
    process.stdout.close()


class Reads(MemoryStore):
    """A store that counts who reads it, per process."""

    def __init__(self) -> None:
        super().__init__()
        self.by: list[int] = []

    def read(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
        self.by.append(os.getpid())
        return super().read(*args, **kwargs)  # type: ignore[arg-type]


class Greeter(Service):
    name = "greeter"
    version = "1.0.0"

    @rpc
    def hi(self) -> int:
        return os.getpid()


class Ways(Routes):
    routes = {"greeter.hi": Config("way", default={"type": "auto"})}  # noqa: RUF012  as users do


def test_a_child_that_calls_nothing_reads_nothing_and_one_that_calls_reads_first() -> None:
    with Reads() as store, App(Greeter(), store=store, routes=Ways) as app:
        hi = app.bind("greeter.hi")
        assert hi() == os.getpid()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            own = os.getpid()
            try:
                os.write(writer, bytes([own in store.by, hi() == own, own in store.by]))
            finally:
                os._exit(0)
        os.close(writer)
        with open(reader, "rb") as pipe:
            assert [bool(byte) for byte in pipe.read()] == [False, True, True]
        os.waitpid(pid, 0)


def test_a_child_of_a_live_app_on_a_file_is_forked_without_a_word(private: Path) -> None:
    program = f"""
        import os, time
        from fan import App, Config, Routes, Service, rpc
        from fan.settings import Settings

        class Greeter(Service):
            name, version = "greeter", "1.0.0"
            @rpc
            def hi(self) -> int:
                return os.getpid()

        class Ways(Routes):
            routes = {{"greeter.hi": Config("way", default={{"type": "auto"}})}}

        settings = Settings(registry="sqlite:{private}/r.db", runtime_dir="{private}/run")
        server = App(Greeter(), settings=settings)
        with server, App(settings=settings, routes=Ways) as app:
            server.start()
            hi = app.bind("greeter.hi")
            assert hi() == os.getpid()
            pid = os.fork()
            if pid == 0:
                assert hi() == os.getppid()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert (done.returncode, done.stderr) == (0, "")
