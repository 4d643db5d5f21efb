"""`fan serve` refuses: what a mistake says."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from fan import App
from tests.cli.test_serve.conftest import GREETER, instances

pytestmark = pytest.mark.usefixtures("registry_url")


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
        status, said = refused(start_fan, folder, "greeter", "-t", where)
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
