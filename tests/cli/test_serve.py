"""`fan serve`: real processes, real signals, and what a mistake says."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fan import App, FanError, Unavailable, load_settings

pytestmark = pytest.mark.usefixtures("registry_url")

#: Seconds after which a test that waits has failed.
HANG = 30.0

GREETER = """
import sys, threading, time
from fan import Service, rpc

class Greeter(Service):
    name = "greeter"
    version = "1.0.0"

    @rpc
    def hello(self, name: str = "World") -> str:
        return f"Hello {name}"

    @rpc
    def work(self, n: int) -> int:
        time.sleep(0.02)
        return n

    @rpc
    def hang(self) -> None:
        print("hanging", file=sys.stderr, flush=True)
        threading.Event().wait()
"""

GREETER2 = """
class Greeter2(Greeter):
    version = "2.0.0"

    @rpc
    def hello(self, name: str = "World") -> str:
        return f"Hi {name}"
"""


@pytest.fixture
def folder(private: Path) -> Path:
    """A folder with `greeter.py` in it."""
    path = private / "project"
    path.mkdir()
    (path / "greeter.py").write_text(GREETER)
    return path


@pytest.fixture
def app() -> Iterator[App]:
    """An App that sees the registry of the served processes."""
    with App(settings=load_settings().settings) as app:
        yield app


def until(is_so: Callable[[], bool], app: App) -> None:
    """Wait for what the registry is about to say; its watch tells when to look again."""
    changed = threading.Event()
    end = app.discovery.watch(changed.set)
    try:
        while not is_so():
            assert changed.wait(HANG)
            changed.clear()
    finally:
        end()


def instances(app: App, service: str = "greeter") -> list[Any]:
    found = [info for info in app.discovery.services() if info.name == service]
    return list(found[0].instances) if found else []


def sockets() -> list[str]:
    folder = load_settings().settings.runtime_dir
    return os.listdir(folder) if os.path.isdir(folder) else []


# What is served


def test_a_service_of_the_current_folder_is_found_without_installing_it(
    folder: Path, start_fan: Any, app: App
) -> None:
    served = start_fan("serve", "greeter", cwd=folder)
    line = served.wait_for("serving greeter 1.0.0 as greeter-")
    assert "unix:///" in line
    served.wait_for("ready")
    assert app.call("greeter.hello", name="Ada") == "Hello Ada"
    assert served.stdout == []


def test_verbose_logs_every_request(folder: Path, start_fan: Any, app: App) -> None:
    served = start_fan("serve", "-v", "greeter", cwd=folder)
    served.wait_for("ready")
    app.call("greeter.hello", name="Ada")
    assert "greeter.hello ok" in served.wait_for("fan.access")


def test_a_file_may_be_named_by_its_path(folder: Path, start_fan: Any, app: App) -> None:
    start_fan("serve", "project/greeter.py:Greeter", cwd=folder.parent).wait_for("ready")
    assert app.call("greeter.hello") == "Hello World"


def test_every_transport_that_is_named_is_served(folder: Path, start_fan: Any, app: App) -> None:
    args = ("--transport", "ipc", "--transport", "http=127.0.0.1:0")
    start_fan("serve", "greeter", *args, cwd=folder).wait_for("ready")
    (instance,) = instances(app)
    assert [address.scheme for address in instance.addresses] == ["unix", "http"]
    for transport in ("ipc", "http"):
        assert app.using(transport=transport).call("greeter.hello") == "Hello World"


def test_several_versions_share_a_process_and_the_first_argument_gets_the_route(
    folder: Path, start_fan: Any, app: App
) -> None:
    (folder / "greeter.py").write_text(GREETER + GREETER2)
    args = ("greeter:Greeter2", "greeter:Greeter", "--id", "two", "--id", "one")
    served = start_fan("serve", *args, cwd=folder)
    served.wait_for("serving greeter 2.0.0 as two")
    served.wait_for("serving greeter 1.0.0 as one")
    served.wait_for("ready")
    assert app.call("greeter.hello") == "Hi World"
    assert app.call("greeter.hello@1") == "Hello World"
    assert {(i.id, i.pid) for i in instances(app)} == {("one", served.pid), ("two", served.pid)}


def test_without_a_class_every_service_of_the_module_is_served(
    folder: Path, start_fan: Any, app: App
) -> None:
    (folder / "greeter.py").write_text(GREETER + GREETER2)
    start_fan("serve", "greeter", cwd=folder).wait_for("ready")
    assert {i.version for i in instances(app)} == {"1.0.0", "2.0.0"}
    assert app.call("greeter.hello") == "Hello World"


def test_adopt_moves_the_route(folder: Path, start_fan: Any, app: App) -> None:
    start_fan("serve", "greeter", cwd=folder).wait_for("ready")
    (folder / "newer.py").write_text(GREETER + GREETER2)
    start_fan("serve", "newer:Greeter2", cwd=folder).wait_for("ready")
    assert app.discovery.service("greeter").route.versions == {"1.0.0": 10_000}  # type: ignore[union-attr]
    start_fan("serve", "newer:Greeter2", "--adopt", cwd=folder).wait_for("ready")
    with App(settings=app.settings) as fresh:
        assert fresh.call("greeter.hello") == "Hi World"


def test_json_prints_one_object_for_each_service(folder: Path, start_fan: Any, app: App) -> None:
    served = start_fan("serve", "greeter", "--json", "--id", "greeter-a", cwd=folder)
    row = msgspec.json.decode(served.wait_for("{", "stdout"))
    (instance,) = instances(app)
    assert row == {
        "v": 1,
        "ok": True,
        "service": "greeter",
        "version": "1.0.0",
        "instance": "greeter-a",
        "addresses": [address.url for address in instance.addresses],
    }


# How it ends


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_it_in_good_order(
    folder: Path, start_fan: Any, app: App, number: int, status: int
) -> None:
    served = start_fan("serve", "greeter", cwd=folder)
    served.wait_for("ready")
    served.send(number)
    assert served.wait() == status
    assert instances(app) == []
    assert sockets() == []
    assert "Traceback" not in "".join(served.stderr)


class Load:
    """Threads that call `greeter.work` until they are told to stop, or a call fails."""

    def __init__(self, app: App, **options: Any) -> None:
        self.answered = 0
        self.errors: list[FanError] = []
        self._client = app.using(timeout=HANG, **options)
        self._stop = threading.Event()
        self._warm = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(8)]
        for thread in self._threads:
            thread.start()
        for _ in self._threads:
            assert self._warm.acquire(timeout=HANG)

    def _run(self, n: int) -> None:
        while not self._stop.is_set():
            try:
                assert self._client.call("greeter.work", n) == n
            except FanError as exc:
                self.errors.append(exc)
                self._warm.release()
                return
            self.answered += 1
            self._warm.release()

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(HANG)
            assert not thread.is_alive()


@pytest.mark.parametrize("transport", ["ipc", "http"])
def test_a_drain_under_load_fails_no_call_in_flight(
    folder: Path, start_fan: Any, app: App, transport: str
) -> None:
    args = ("--transport", "ipc", "--transport", "http=127.0.0.1:0")
    served = start_fan("serve", "greeter", *args, cwd=folder)
    served.wait_for("ready")
    load = Load(app, transport=transport, retries=0)
    served.send(signal.SIGTERM)
    assert served.wait() == 143
    load.end()
    assert load.answered > 0
    # What was refused never ran: safe to repeat elsewhere. Nothing was cut off.
    assert {(exc.code, exc.executed) for exc in load.errors} <= {("unavailable", "no")}


def test_with_a_second_instance_a_drain_is_not_noticed(
    folder: Path, start_fan: Any, app: App
) -> None:
    first = start_fan("serve", "greeter", cwd=folder)
    second = start_fan("serve", "greeter", cwd=folder)
    first.wait_for("ready")
    second.wait_for("ready")
    load = Load(app)
    first.send(signal.SIGTERM)
    assert first.wait() == 143
    load.end()
    assert load.errors == []


def test_a_second_signal_ends_it_at_once(folder: Path, start_fan: Any, app: App) -> None:
    served = start_fan("serve", "greeter", cwd=folder)
    served.wait_for("ready")
    hanging = app.using(timeout=HANG, retries=0).submit("greeter.hang")
    served.wait_for("hanging")
    served.send(signal.SIGTERM)
    until(lambda: [i.state for i in instances(app)] == ["draining"], app)
    served.send(signal.SIGTERM)
    assert served.wait() == 143
    with pytest.raises(Unavailable) as caught:
        hanging.result(HANG)
    assert (caught.value.reason, caught.value.executed) == ("connection_lost", "maybe")
    assert instances(app) == []


def test_a_drain_that_takes_too_long_gives_the_calls_up(
    folder: Path, start_fan: Any, app: App
) -> None:
    served = start_fan("serve", "greeter", "--drain-timeout", "10ms", cwd=folder)
    served.wait_for("ready")
    hanging = app.using(timeout=HANG, retries=0).submit("greeter.hang")
    served.wait_for("hanging")
    served.send(signal.SIGTERM)
    served.wait_for("calls still ran after 0.01s and were given up")
    assert served.wait() == 143
    with pytest.raises(FanError):
        hanging.result(HANG)


def test_after_kill_9_the_instance_is_gone_and_its_place_can_be_taken(
    folder: Path, start_fan: Any, app: App, private: Path
) -> None:
    args = ("serve", "greeter", "--id", "greeter-a", "--transport", f"ipc={private}/g.sock")
    served = start_fan(*args, cwd=folder)
    served.wait_for("ready")
    served.send(signal.SIGKILL)
    assert served.wait() == -signal.SIGKILL
    assert instances(app) == []
    assert (private / "g.sock").exists()
    start_fan(*args, cwd=folder).wait_for("ready")
    assert app.call("greeter.hello") == "Hello World"


# What is refused


def refused(start_fan: Any, folder: Path, *args: str, **vars: str) -> tuple[int, str]:
    """Exit status and stderr of a `fan serve` that should not come up."""
    served = start_fan("serve", *args, cwd=folder, **vars)
    status = served.wait()
    assert served.stdout == []
    return status, "\n".join(served.stderr)


def test_an_instance_id_in_use_is_a_conflict(folder: Path, start_fan: Any, app: App) -> None:
    start_fan("serve", "greeter", "--id", "greeter-a", cwd=folder).wait_for("ready")
    status, said = refused(start_fan, folder, "greeter", "--id", "greeter-a")
    assert status == 10
    assert said.startswith("fan: already_exists: ")
    assert app.call("greeter.hello") == "Hello World"
    twice = ("greeter", "greeter", "--id", "greeter-b", "--id", "greeter-b")
    status, said = refused(start_fan, folder, *twice)
    assert status == 10
    assert said.startswith("fan: already_exists: ")


def test_a_second_instance_of_a_unique_service_is_a_conflict(
    folder: Path, start_fan: Any, app: App
) -> None:
    unique = GREETER.replace('version = "1.0.0"', 'version = "1.0.0"\n    unique = True')
    (folder / "greeter.py").write_text(unique)
    start_fan("serve", "greeter", "--id", "one", cwd=folder).wait_for("ready")
    status, said = refused(start_fan, folder, "greeter")
    assert status == 10
    assert "greeter 1.0.0 is unique and runs as one" in said
    assert [i.id for i in instances(app)] == ["one"]


def test_an_address_in_use_is_refused(folder: Path, start_fan: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"http=127.0.0.1:{taken.getsockname()[1]}"
        status, said = refused(start_fan, folder, "greeter", "--transport", where)
    assert status in (6, 10)
    assert where.partition("=")[2] in said


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("greter",), "there is no module 'greter'"),
        (("greter",), "did you mean greeter?"),
        (("greeter:Greter",), "Greter does not exist: there is Greeter"),
        (("greeter:sys",), "sys is no subclass of fan.Service: there is Greeter"),
        (("empty",), "empty has no service"),
        (("greeter", "--id", "a", "--id", "b"), "2 --id for 1 services"),
        (("greeter", "--transport", "pigeon"), "--transport pigeon: unknown transport"),
        (("greeter", "--transport", "local"), "--transport local"),
        (("greeter", "--transport", "http=nowhere..invalid"), "'nowhere..invalid' is no address"),
        (("greeter", "--transport", "http=127.0.0.1:99999"), "is no place for an http server"),
        (("no-module",), "'no-module' is no MODULE[:CLASS]"),
        ((), "MODULE"),
    ],
)
def test_a_mistake_on_the_command_line_is_usage(
    folder: Path, start_fan: Any, args: tuple[str, ...], says: str
) -> None:
    (folder / "empty.py").write_text("")
    status, said = refused(start_fan, folder, *args)
    assert status == 2
    assert says in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "vars",
    [
        {"FAN_REGISTRY": "mysql:x"},
        {"FAN_REGISTRY": "sqlite:"},
        {"FAN_TIMEOUT": "soon"},
        {"FAN_PROFILE": "nobody"},
    ],
)
def test_a_setting_that_means_nothing_is_usage(
    folder: Path, start_fan: Any, vars: dict[str, str]
) -> None:
    status, said = refused(start_fan, folder, "greeter", **vars)
    assert status == 2
    assert said.startswith("fan: invalid_argument: ")
    assert next(iter(vars.values())) in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import fan\nimport nothing_of_that_name\n", "ModuleNotFoundError: No module named"),
        ("x = 1\n1 / 0\n", "ZeroDivisionError: division by zero"),
        ("def f(:\n", "SyntaxError: "),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
    ],
)
def test_a_module_that_fails_is_one_sentence_with_its_place(
    folder: Path, start_fan: Any, text: str, says: str
) -> None:
    (folder / "broken.py").write_text(text)
    status, said = refused(start_fan, folder, "broken")
    assert status == 5
    (line,) = said.splitlines()
    assert says in line
    assert f"broken.py:{text.count(chr(10))})" in line


def test_fan_debug_shows_where_a_module_fails(folder: Path, start_fan: Any) -> None:
    (folder / "broken.py").write_text("1 / 0\n")
    _, said = refused(start_fan, folder, "broken", FAN_DEBUG="1")
    assert "Traceback" in said
    assert "1 / 0" in said


def test_a_service_that_cannot_start_is_one_sentence(folder: Path, start_fan: Any) -> None:
    start = "\n    def service_start(self):\n        raise OSError('no disk')\n"
    (folder / "greeter.py").write_text(GREETER + start)
    status, said = refused(start_fan, folder, "greeter")
    assert status == 5
    assert "greeter 1.0.0 could not start: OSError: no disk" in said
    assert "Traceback" not in said


# --reload


def test_reload_serves_what_the_source_says_now(folder: Path, start_fan: Any, app: App) -> None:
    served = start_fan("serve", "greeter", "--reload", cwd=folder)
    served.wait_for("ready")
    assert app.call("greeter.hello") == "Hello World"
    replace(folder / "greeter.py", GREETER.replace("Hello", "Howdy").replace("1.0.0", "1.1.0"))
    served.wait_for("reloading: greeter.py changed")
    served.wait_for("ready")
    with App(settings=app.settings) as fresh:
        assert fresh.call("greeter.hello") == "Howdy World"
    served.send(signal.SIGTERM)
    assert served.wait() == 143
    assert instances(app) == []


def test_reload_waits_for_a_broken_source_to_be_mended(
    folder: Path, start_fan: Any, app: App
) -> None:
    (folder / "greeter.py").write_text("def f(:\n")
    served = start_fan("serve", "greeter", "--reload", cwd=folder)
    served.wait_for("SyntaxError")
    served.wait_for("waiting for a change")
    replace(folder / "greeter.py", GREETER)
    served.wait_for("ready")
    assert app.call("greeter.hello") == "Hello World"
    served.send(signal.SIGINT)
    assert served.wait() == 130


def test_the_child_of_reload_dies_with_it(folder: Path, start_fan: Any, app: App) -> None:
    served = start_fan("serve", "greeter", "--reload", cwd=folder)
    served.wait_for("ready")
    (instance,) = instances(app)
    assert instance.pid != served.pid
    served.send(signal.SIGKILL)
    until(lambda: instances(app) == [], app)
    wait_for_end(instance.pid)


def replace(path: Path, text: str) -> None:
    """Write a file at once, as editors do: half of it is no change of its own."""
    (path.parent / "new.txt").write_text(text)
    (path.parent / "new.txt").replace(path)


def wait_for_end(pid: int) -> None:
    """Wait until a process that is not our child has ended."""
    import select

    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            assert select.select([fd], [], [], HANG)[0]
        finally:
            os.close(fd)


def test_a_service_that_waits_says_for_what_and_is_ready_later(
    start_fan: Any, registry_url: str, tmp_path: Path
) -> None:
    (tmp_path / "needy.py").write_text(
        "from fan import Service, rpc\n\n\n"
        "class Shop(Service):\n"
        '    name, version = "shop", "1.0.0"\n'
        '    depend = {"hard": {"users": ">=1.2"}}\n\n\n'
        "class Users(Service):\n"
        '    name, version = "users", "1.3.0"\n'
    )
    shop = start_fan("serve", "needy:Shop", cwd=tmp_path)
    shop.wait_for("shop waits for users>=1.2 (have none)")
    shop.wait_for("waiting: shop")
    users = start_fan("serve", "needy:Users", cwd=tmp_path)
    users.wait_for("ready")
    shop.wait_for("ready")


def test_a_service_that_waited_and_cannot_start_ends_it_as_any_other(
    start_fan: Any, registry_url: str, tmp_path: Path
) -> None:
    (tmp_path / "needy.py").write_text(
        "from fan import Service, rpc\n\n\n"
        "class Shop(Service):\n"
        '    name, version = "shop", "1.0.0"\n'
        '    depend = {"hard": ["users"]}\n\n'
        "    def service_start(self):\n"
        "        raise OSError('no disk')\n\n\n"
        "class Users(Service):\n"
        '    name, version = "users", "1.3.0"\n'
    )
    shop = start_fan("serve", "needy:Shop", cwd=tmp_path)
    shop.wait_for("waiting: shop")
    start_fan("serve", "needy:Users", cwd=tmp_path).wait_for("ready")
    assert shop.wait() == 5
    said = "".join(shop.stderr)
    assert "fan: unknown: shop 1.0.0 could not start: OSError: no disk" in said
    assert "ready" not in said
    assert "Traceback" not in said
