"""Commands of plug-ins: found by entry point, loaded when used, and skipped when broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fancli.extensions import Extension, extensions
from tests.cli.conftest import envelope, variables

if TYPE_CHECKING:
    from tests.cli.conftest import Demo, Fan, Ran

SNAIL = '''
import click
from fancli.options import common

@click.command("snail", short_help="Send it by snail.")
@click.argument("word", default="hm")
@common
def snail(common, word):
    """Slow and sure."""
    common.out.object({"word": word})
    return 4 if word == "no" else 0
'''


def distribution(folder: Path, name: str, entries: str) -> None:
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entries)


@pytest.fixture
def fan_with(fan: Fan, private: Path) -> Callable[..., Ran]:
    """The program beside two plug-ins: one that works, and one that does not."""
    (private / "fan_snail.py").write_text(SNAIL)
    (private / "fan_odd.py").write_text("thing = 3\n")
    snail = "[console_scripts]\nx = y:z\n[fan.commands]\nsnail = fan_snail:snail\ncall = x:y\n"
    distribution(private, "fan_snail", snail)
    distribution(private, "fan_wreck", "[fan.commands]\nwreck = fan_wreck:main\n")
    distribution(private, "fan_odd", "[fan.commands]\nodd=fan_odd:thing [extra]\n")
    path = f"{private}:{variables().get('PYTHONPATH', '')}".rstrip(":")

    def run(*args: str, **vars: str) -> Ran:
        return fan(*args, PYTHONPATH=path, **vars)

    return run


def test_a_command_of_a_plug_in_is_a_command(fan_with: Callable[..., Ran]) -> None:
    assert fan_with("snail", "mail") == (0, '{"word":"mail"}\n', "")
    assert fan_with("--json", "snail", "no").exit == 4
    assert "Slow and sure." in fan_with("snail", "--help").stdout
    assert "Slow and sure." in fan_with("help", "snail").stdout


def test_help_lists_them_and_warns_of_the_broken_ones_by_name(
    fan_with: Callable[..., Ran],
) -> None:
    ran = fan_with("--help")
    assert ran.exit == 0
    assert "snail  Send it by snail." in ran.stdout
    assert "wreck" not in ran.stdout
    said = "fan: the command '{0}' of fan-{0} cannot be loaded: {1}"
    assert ran.stderr.splitlines() == [
        said.format("odd", "TypeError: fan_odd:thing is no click command"),
        said.format("wreck", "ModuleNotFoundError: No module named 'fan_wreck'"),
    ]


def test_a_broken_one_is_skipped_and_hurts_no_other(
    fan_with: Callable[..., Ran], demo: Demo
) -> None:
    ran = fan_with("wreck")
    assert (ran.exit, ran.stdout) == (2, "")
    assert "'wreck' of fan-wreck cannot be loaded" in ran.stderr
    assert fan_with("call", "greeter.hello") == (0, '"Hello World"\n', "")
    assert "did you mean snail?" in fan_with("snial").stderr


def test_plugins_lists_them(fan_with: Callable[..., Ran]) -> None:
    rows = [json.loads(line) for line in fan_with("plugins", "--json").stdout.splitlines()]
    commands = {row["name"]: row for row in rows if row["kind"] == "command"}
    assert commands["snail"]["state"] == "ok"
    assert commands["snail"]["origin"] == "fan-snail"
    assert commands["wreck"]["error"].startswith("ModuleNotFoundError")
    assert commands["call"]["error"] == "the name is taken by a command of fan's own"


def test_a_tab_knows_them_and_loads_none(fan_with: Callable[..., Ran]) -> None:
    line = {"COMP_LINE": "fan ", "COMP_POINT": "4"}
    ran = fan_with(_FAN_COMPLETE="bash_complete", **line)
    assert ran.stderr == ""
    assert {"plain\tsnail", "plain\twreck", "plain\tcall"} <= set(ran.stdout.splitlines())
    assert ran.stdout.count("plain\tcall\n") == 1


def test_the_first_on_the_path_counts(private: Path) -> None:
    for name in ("one", "two"):
        (private / name).mkdir()
        distribution(private / name, "fan_x", f"[fan.commands]\nx = {name}:cli\n")
    distribution(private / "two", "other", "[fan.commands]\nx = other:cli\n# y = z\n")
    distribution(private / "two", "none", "[fan.transports]\ny = none:cli\n")
    path = [f"{private}/gone", f"{private}/one", f"{private}/two"]
    assert extensions(path) == [Extension("x", "one:cli", "fan-x")]


def test_json_holds_a_broken_ones_failure_too(fan_with: Callable[..., Ran]) -> None:
    ran = fan_with("wreck", "--json")
    assert (ran.exit, envelope(ran)["error"]["exit"]) == (2, 2)
