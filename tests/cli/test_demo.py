"""`fan demo` and its tour: real processes, which leave nothing behind."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fan import App, RemoteError, load_settings
from fancli.processes import fan_command, fan_environment
from tests.lives import until

#: Seconds after which a test that waits has failed.
HANG = 30.0
#: The same for a whole tour: two dozen programs.
TOUR = 150.0


@pytest.fixture
def app(registry_url: str) -> Iterator[App]:
    """An App that sees the registry of the demo."""
    with App(settings=load_settings().settings) as app:
        yield app


def instances(app: App) -> list[Any]:
    found = [info for info in app.discovery.services() if info.name == "greeter"]
    return list(found[0].instances) if found else []


def gone(pids: list[int]) -> bool:
    """Wait until processes that are not our children have ended."""
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert select.select([fd], [], [], HANG)[0]
        finally:
            os.close(fd)
    return True


def test_the_demo_serves_both_versions_over_ipc_and_http(start_fan: Any, app: App) -> None:
    demo = start_fan("demo")
    demo.wait_for("ready", "stdout")
    assert demo.stdout == ["ready"]
    found = {i.version: i for i in instances(app)}
    assert set(found) == {"1.0.0", "2.0.0"}
    assert len({i.pid for i in found.values()} | {demo.pid}) == 3
    for instance in found.values():
        assert instance.state == "up"
        urls = {address.scheme: address.url for address in instance.addresses}
        assert set(urls) == {"unix", "http"}
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", urls["http"])
    for transport in ("ipc", "http"):
        client = app.using(transport=transport)
        assert client.call("greeter.hello", name="Ada") == "Hello Ada"
        assert client.call("greeter.hello@2", name="Ada") == "Hi Ada"


def test_the_route_goes_to_the_version_that_registered_first(start_fan: Any, app: App) -> None:
    start_fan("demo").wait_for("ready", "stdout")
    info = app.discovery.service("greeter")
    assert info.route is not None
    assert info.route.versions == {"1.0.0": 10_000}


def test_the_demos_methods_do_what_they_say(start_fan: Any, app: App) -> None:
    start_fan("demo").wait_for("ready", "stdout")
    assert app.call("greeter.hello") == "Hello World"
    assert app.call("greeter.add", a=2, b=3) == 5
    assert app.call("greeter.slow", s=0.001) == 0.001
    assert app.call("greeter.echo", 1, [2], x={"y": None}) == {
        "args": [1, [2]],
        "kwargs": {"x": {"y": None}},
    }
    assert list(app.stream("greeter.count", n=3)) == [0, 1, 2]
    with pytest.raises(RemoteError, match="boom") as caught:
        app.call("greeter.boom")
    assert (caught.value.type, caught.value.executed) == ("ValueError", "yes")
    said = app.using(headers={"x-team": "blue"}, baggage={"k": "v"}).call("greeter.whoami")
    (first,) = [i for i in instances(app) if i.version == "1.0.0"]
    assert said == {
        "instance": first.id,
        "version": "1.0.0",
        "caller": said["caller"],
        "headers": {"x-team": "blue"},
        "baggage": {"k": "v"},
    }


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_demo_with_its_children(
    start_fan: Any, app: App, number: int, status: int
) -> None:
    demo = start_fan("demo")
    demo.wait_for("ready", "stdout")
    pids = [i.pid for i in instances(app)]
    demo.send(number)
    assert demo.wait() == status
    assert instances(app) == []
    assert gone(pids)
    assert os.listdir(load_settings().settings.runtime_dir) == []


def test_the_children_die_with_a_demo_that_was_killed(start_fan: Any, app: App) -> None:
    demo = start_fan("demo")
    demo.wait_for("ready", "stdout")
    pids = [i.pid for i in instances(app)]
    demo.send(signal.SIGKILL)
    assert gone(pids)
    until(lambda: instances(app) == [], app)


def test_a_demo_whose_child_died_ends_and_says_which(start_fan: Any, app: App) -> None:
    demo = start_fan("demo")
    demo.wait_for("ready", "stdout")
    (second,) = [i for i in instances(app) if i.version == "2.0.0"]
    os.kill(second.pid, signal.SIGKILL)
    demo.wait_for("greeter 2.0.0 ended (exit -9)")
    assert demo.wait() == 5
    assert instances(app) == []


def test_a_demo_whose_child_cannot_start_says_why(start_fan: Any, private: Path) -> None:
    (private / "registry.db").write_text("this is no database " * 1000)
    demo = start_fan("demo", FAN_REGISTRY=f"sqlite:{private / 'registry.db'}")
    assert demo.wait() == 5
    assert demo.stdout == []
    assert demo.stderr[0].startswith("fan: data_loss: ")
    assert "greeter 1.0.0 could not start" in demo.stderr[-1]
    assert "Traceback" not in "".join(demo.stderr)


def test_a_registry_that_processes_cannot_share_is_refused(start_fan: Any) -> None:
    demo = start_fan("demo", "--registry", "memory:")
    assert demo.wait() == 2
    assert "cannot share it" in "".join(demo.stderr)


def test_the_demo_follows_the_flags(start_fan: Any, private: Path) -> None:
    url = f"sqlite:{private / 'other.db'}"
    start_fan("demo", "--registry", url, "-n", "dev").wait_for("ready", "stdout")
    settings = load_settings({"registry": url, "namespace": "dev"}).settings
    with App(settings=settings) as app:
        assert app.call("greeter.hello") == "Hello World"


def test_the_demo_is_ready_in_json_too(start_fan: Any, app: App) -> None:
    demo = start_fan("demo", "--json")
    line = demo.wait_for("ready", "stdout")
    assert json.loads(line) == {"v": 1, "ok": True, "ready": True}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("ipc,carrier", "--transport carrier: unknown transport"),
        ("local", "--transport local: it is there without being served"),
        ("ipc,", "--transport : unknown transport"),
    ],
)
def test_a_demo_over_what_nobody_brings_is_a_usage_error(
    start_fan: Any, spec: str, said: str
) -> None:
    demo = start_fan("demo", "-t", spec)
    assert demo.wait() == 2
    assert said in demo.stderr[0]


def test_the_demo_serves_over_what_is_named_alone(start_fan: Any, app: App) -> None:
    start_fan("demo", "--transport", "ipc").wait_for("ready", "stdout")
    assert {a.scheme for i in instances(app) for a in i.addresses} == {"unix"}


# The tour


@pytest.mark.timeout(400)
def test_the_tour_shows_commands_with_their_real_output_and_leaves_nothing(
    start_fan: Any, private: Path
) -> None:
    temp = private / "temp"
    temp.mkdir()
    before = sorted(path.name for path in private.rglob("*"))
    tour = start_fan("demo", "--tour", TMPDIR=str(temp))
    assert tour.wait(TOUR) == 0
    assert tour.stderr == []
    text = "\n".join(tour.stdout)
    assert [line for line in tour.stdout if len(line) > 80] == []
    assert "\x1b" not in text
    for piece in (
        '$ fan call greeter.hello name=Ada\n"Hello Ada"',
        '$ fan call greeter.hello name=Ada -t http\n"Hello Ada"',
        '$ fan call greeter.hello@2 name=Ada -t ipc\n"Hi Ada"',
        "$ fan call greeter.count n=3\n0\n1\n2",
        "greeter.boom: ValueError: boom (executed: yes)\n[exit 5]",
        "$ fan push journal.note text=hello\n\n",
        "$ fan push --topic guest.came name=Ada\n\n",
        '$ fan call journal.entries n=2\n[\n  "',
        "Ada came",
        "$ fan queue list -t database\nQUEUE               TRANSPORT  READY  IN FLIGHT",
        "$ fan discover list\nSERVICE  VERSION  WEIGHT  UP   TRANSPORTS     UNMET\n",
        "$ fan discover describe greeter.hello",
        "$ fan call greeter.hello name=Ada -H 'X-User: 22'\n\"Hi Ada\"",
        "generation 4\nundo: fan version rollback 4\nconfirmed 2/2",
        "undoes generation 4 (switch by ",
        "$ fan config get greeter/theme\nlight",
    ):
        assert piece in text
    assert sorted(path.name for path in private.rglob("*")) == before


@pytest.mark.timeout(400)
def test_the_tour_sees_nothing_of_the_users_settings(
    start_fan: Any, private: Path, registry_url: str
) -> None:
    (private / "fan.toml").write_text("namespace = 'mine'\ntimeout = '1ms'\n")
    tour = start_fan("demo", "--tour", cwd=private, FAN_NAMESPACE="mine", FAN_TIMEOUT="1ms")
    assert tour.wait(TOUR) == 0
    assert not Path(registry_url.removeprefix("sqlite:")).exists()


def test_a_tour_whose_reader_goes_away_leaves_nothing(private: Path) -> None:
    temp = private / "temp"
    temp.mkdir()
    command = " ".join([*fan_command(), "demo --tour"])
    bash = shutil.which("bash")
    assert bash is not None
    ran = subprocess.run(
        [bash, "-c", f"{command} | head -1; exit ${{PIPESTATUS[0]}}"],
        env=fan_environment({**os.environ, "TMPDIR": str(temp)}),
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG,
    )
    assert ran.returncode == 141
    assert len(ran.stdout.splitlines()) == 1
    assert "Traceback" not in ran.stderr
    assert os.listdir(temp) == []


def test_an_interrupted_tour_leaves_nothing(start_fan: Any, private: Path) -> None:
    temp = private / "temp"
    temp.mkdir()
    tour = start_fan("demo", "--tour", TMPDIR=str(temp))
    tour.wait_for("$ fan", "stdout")
    tour.send(signal.SIGINT)
    assert tour.wait() == 130
    assert os.listdir(temp) == []
