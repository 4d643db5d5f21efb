"""What is printed on a terminal and piped: results, lists, colours, help, widths."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from fancli.group import COMMANDS
from fancli.render import blocks, is_crowded
from tests.cli.conftest import HANG, envelope, variables

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Demo, Fan, Ran

Terminal = Callable[..., "Ran"]


def test_a_result_is_pretty_and_coloured_on_a_terminal(on_terminal: Terminal, demo: Demo) -> None:
    ran = on_terminal("call", "greeter.echo", "a:=1")
    assert ran.exit == 0
    assert "\x1b[" in ran.stdout
    assert ran.stdout.count("\n") > 3


@pytest.mark.parametrize("quiet", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colour_can_be_turned_off(on_terminal: Terminal, demo: Demo, quiet: dict[str, str]) -> None:
    ran = on_terminal("call", "greeter.echo", "a:=1", **quiet)
    assert "\x1b" not in ran.stdout
    assert json.loads(ran.stdout) == {"args": [], "kwargs": {"a": 1}}
    assert "\x1b" in on_terminal("call", "greeter.echo", "--color", "always", **quiet).stdout
    assert "\x1b" not in on_terminal("call", "greeter.echo", "--color", "never").stdout


@pytest.mark.parametrize("vars", [{"FORCE_COLOR": "1"}, {"NO_COLOR": "1"}])
def test_colour_that_is_asked_for_comes_through_a_pipe_but_not_into_json(
    fan: Fan, demo: Demo, vars: dict[str, str]
) -> None:
    asked = () if "FORCE_COLOR" in vars else ("--color", "always")
    ran = fan("call", "greeter.echo", "a:=1", *asked, **vars)
    assert ran.stdout.startswith("\x1b[")
    assert ran.stdout.count("\n") == 1
    assert "\x1b" in fan("call", "greeter.boom", *asked, **vars).stderr
    assert "\x1b" not in fan("call", "greeter.hello", "--json", *asked, **vars).stdout
    assert "\x1b" not in fan("discover", "list", *asked, **vars).stdout


#: Ways to print one thing -> what is the same of them on a terminal and in a pipe.
MODES: dict[str, Callable[[str], object]] = {
    "call greeter.echo a:=1": json.loads,
    "call greeter.echo a:=1 --get kwargs": json.loads,
    "call greeter.hello -r": str,
    "call greeter.hello --print b": json.loads,
    "call greeter.hello --json": lambda text: {
        name: json.loads(text)[name] for name in ("v", "ok", "target", "result", "version")
    },
    "call greeter.boom --json": lambda text: json.loads(text)["error"],
    "call greeter.count n=3": str.split,
    "call greeter.count n=2 --json": lambda text: [
        json.loads(line).get("result", "end") for line in text.splitlines()
    ],
    "call greeter.hello -N 2": str,
    "call greeter.whoami --fanout --get version": str,
    "call greeter.hello --fanout --diff": str.split,
    "call greeter.hello --against @1 @2": str.split,
    "call greeter.hello --as curl": str,
    "call greeter.hello --as python": str,
    "call greeter.hello --as file": str,
    "call greeter.hello --dry-run --instance {one}": json.loads,
    "discover list": lambda text: {word for word in text.lower().split() if "." in word},
    "discover list --format name": str,
    "discover list --format yaml": str,
    "discover list --format json": str,
    "discover describe greeter.add --skeleton": json.loads,
    "plugins --format name": str,
    "help exit-codes": str,
    "completion bash": str,
}


@pytest.mark.parametrize("line", MODES)
def test_a_terminal_and_a_pipe_are_told_the_same(
    fan: Fan, on_terminal: Terminal, demo: Demo, line: str
) -> None:
    one = fan("call", "greeter.whoami", "--get", "instance", "-r").stdout.strip()
    args = line.format(one=one).split()
    piped, seen = fan(*args), on_terminal(*args, NO_COLOR="1")
    assert piped.stdout
    assert seen.exit == piped.exit
    assert "\x1b" not in seen.stdout
    assert MODES[line](seen.stdout) == MODES[line](piped.stdout)


def test_a_piped_result_is_one_plain_line(fan: Fan, demo: Demo) -> None:
    assert fan("call", "greeter.echo", "a:=1").stdout == '{"args":[],"kwargs":{"a":1}}\n'


def test_unicode_survives_a_c_locale(fan: Fan, demo: Demo) -> None:
    ran = fan(
        "call", "greeter.hello", "name=Åsa", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"
    )
    assert ran.stdout == '"Hello Åsa"\n'


def test_a_list_is_tab_separated_when_piped(fan: Fan, demo: Demo) -> None:
    rows = ["greeter\t1.0.0\t100%\t1/1\thttp,ipc\t", "greeter\t2.0.0\t0%\t1/1\thttp,ipc\t"]
    assert fan("discover", "list").stdout.splitlines() == rows
    head = "service\tversion\tweight\tup\ttransports\tunmet"
    assert fan("discover", "list", "--headers").stdout.splitlines() == [head, *rows]


def test_a_list_has_other_formats(fan: Fan, demo: Demo) -> None:
    assert fan("discover", "list", "--format", "name").stdout == "greeter\n"
    assert "- service: greeter\n" in fan("discover", "list", "--format", "yaml").stdout
    rows = [json.loads(line) for line in fan("discover", "list", "--json").stdout.splitlines()]
    assert [(row["version"], row["weight"], row["up"]) for row in rows] == [
        ("1.0.0", 10_000, 1),
        ("2.0.0", 0, 1),
    ]


@pytest.mark.parametrize("columns", [60, 80, 140])
@pytest.mark.parametrize("args", [("list",), ("show", "greeter")])
def test_a_list_fits_the_terminal(
    on_terminal: Terminal, demo: Demo, columns: int, args: tuple[str, ...]
) -> None:
    ran = on_terminal("discover", *args, columns=columns, NO_COLOR="1")
    # A URL is longer than a narrow terminal now and then, and stays whole: it will be copied.
    lines = [line for line in ran.stdout.splitlines() if "://" not in line or columns > 60]
    assert max(map(len, lines)) <= columns
    assert "version" in ran.stdout.lower()
    assert "1.0.0" in ran.stdout


def test_what_is_too_long_for_a_narrow_terminal_goes_on_below() -> None:
    rows = [{"gen": 7, "changes": "greeter: 1.0.0 -> 2.0.0; config a/b", "message": ""}]
    assert blocks(rows, ("gen", "changes", "message"), 34).splitlines() == [
        "7", "  changes     greeter: 1.0.0 ->", "              2.0.0; config a/b",
    ]  # fmt: skip


def test_a_table_never_breaks_words_into_scraps() -> None:
    at = "2026-11-26T14:00:10.734Z"
    row = {"id": "serve-44d2ff73f190", "app": "serve", "uses": ["greeter"], "pid": 31572, "at": at}
    assert is_crowded([row], tuple(row), 60)
    assert not is_crowded([row], tuple(row), 80)
    path = {"name": "registry", "value": "sqlite:/home/ada/.local/share/fan/registry.db"}
    assert not is_crowded([path], tuple(path), 40), "a long value may go on below itself"


def test_an_empty_list_is_a_success(fan: Fan, registry_url: str) -> None:
    ran = fan("discover", "list")
    assert (ran.exit, ran.stdout) == (0, "")
    assert ran.stderr.startswith("hint: nothing is registered")
    assert fan("discover", "list", "-q") == (0, "", "")


def test_describe_needs_no_running_service_and_resolve_says_where(fan: Fan, demo: Demo) -> None:
    text = fan("discover", "describe", "greeter").stdout
    assert 'hello(name: string = "World") -> string' in text
    assert "version 2.0.0" in fan("discover", "describe", "greeter.hello@2").stdout
    assert fan("discover", "describe", "greeter.add", "--skeleton").stdout == '{"a":0,"b":0}\n'
    assert envelope(fan("discover", "describe", "greeter.add", "--json"))["name"] == "add"
    assert fan("discover", "resolve", "greeter.hello").stdout.startswith("unix:///")
    assert envelope(fan("discover", "resolve", "greeter@2", "--json"))["version"] == "2.0.0"


@pytest.mark.parametrize(
    ("args", "status"),
    [
        (("show", "gretter"), 3),
        (("show", "greeter/nobody"), 3),
        (("describe", "greeter.helo"), 3),
        (("describe", "greeter@9"), 3),
        (("describe", "greeter@"), 2),
        (("resolve", "greeter@"), 2),
        (("resolve", "greeter.helo"), 3),
        (("resolve", "gretter.hello"), 3),
        (("resolve", "greeter@9"), 3),
        (("show", "gre eter"), 2),
        (("lst",), 2),
    ],
)
def test_what_is_not_there_is_said(
    fan: Fan, demo: Demo, args: tuple[str, ...], status: int
) -> None:
    ran = fan("discover", *args)
    assert (ran.exit, ran.stdout) == (status, "")


def test_watch_prints_the_present_first_and_a_change_when_it_happens(
    start: Callable[..., subprocess.Popen[bytes]], registry_url: str
) -> None:
    watch = start("discover", "watch", "--json")
    server = start("serve", "fan.demo.v1")
    assert watch.stdout is not None
    seen = []
    for line in watch.stdout:
        event = json.loads(line)
        seen.append((event["kind"], event.get("state")))
        if event["kind"] == "instance" and event["state"] == "up":
            break
    assert ("version", None) in seen
    server.terminate()
    for line in watch.stdout:
        event = json.loads(line)
        if event["event"] == "gone":
            break
    assert event["kind"] == "instance"
    watch.send_signal(signal.SIGINT)
    assert watch.wait(HANG) == 130


LEAVES = [
    *((name,) for name in COMMANDS),
    *(("discover", name) for name in ("list", "show", "describe", "resolve", "watch")),
    ("settings", "show"),
]


@pytest.mark.parametrize("path", [(), *LEAVES], ids=" ".join)
def test_every_help_has_examples(fan: Fan, path: tuple[str, ...]) -> None:
    ran = fan(*path, "-h")
    assert (ran.exit, ran.stderr) == (0, "")
    assert "\nExamples:\n  " in ran.stdout
    assert ran.stdout == fan(*path, "--help").stdout


def test_the_list_of_commands_says_what_the_commands_say() -> None:
    from fancli.group import load

    for row in COMMANDS.values():
        assert load(row.path).short_help == row.short


def test_help_explains_topics_errors_and_commands(fan: Fan) -> None:
    from fancli.topics import TOPICS, error_codes

    for name in TOPICS:
        assert fan("help", name).exit == 0
    assert "143" in fan("help", "exit-codes").stdout
    for code in error_codes()[:2]:
        assert fan("help", "error", code).stdout.startswith(code)
    assert "--skeleton" in fan("help", "discover", "describe").stdout
    ran = fan("help", "payloads")
    assert ran.exit == 2
    assert "did you mean payload?" in ran.stderr


def test_every_error_code_is_explained() -> None:
    from fan.errors import CLASSES
    from fancli.topics import error_codes

    assert set(error_codes()) == set(CLASSES)


def test_a_missing_choice_is_one_sentence(fan: Fan) -> None:
    ran = fan("completion")
    assert (ran.exit, ran.stdout) == (2, "")
    assert ran.stderr.splitlines()[0].endswith("Choose from: bash, zsh, fish")
    assert len(ran.stderr.splitlines()) == 2


def test_version_is_that_of_the_library(fan: Fan) -> None:
    import fan as library

    assert fan("--version").stdout == f"fan {library.__version__}\n"


def test_settings_say_where_they_come_from(fan: Fan, registry_url: str) -> None:
    ran = fan("settings", "show", "--timeout", "2s", "--json", FAN_NAMESPACE="blue")
    rows = {row["name"]: row for row in map(json.loads, ran.stdout.splitlines())}
    assert rows["timeout"] == {"name": "timeout", "value": 2.0, "origin": "flag"}
    assert rows["namespace"]["origin"] == "FAN_NAMESPACE"
    assert rows["workers"]["origin"] == "default"


def test_plugins_are_listed(fan: Fan) -> None:
    listed = fan("plugins", "--format", "name").stdout.split()
    assert {"amqp", "database", "http", "ipc", "local", "redis", "sqlite", "zk"} <= {*listed}


def test_a_plug_in_that_cannot_be_loaded_is_told_in_sentences(
    fan: Fan, demo: Demo, private: Path
) -> None:
    info = private / "fan_snail-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fan-snail\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fan.transports]\nsnail = fan_snail:Snail\n")
    path = f"{private}:{variables().get('PYTHONPATH', '')}".rstrip(":")
    rows = fan("plugins", PYTHONPATH=path).stdout
    assert "snail\ttransport\tfan-snail\tbroken\tModuleNotFoundError: " in rows
    assert fan("call", "greeter.hello", PYTHONPATH=path) == (0, '"Hello World"\n', "")
    ran = fan("call", "greeter.hello", "-p", "snail://x", PYTHONPATH=path)
    assert (ran.exit, ran.stdout) == (4, "")
    said = "'snail' of fan-snail cannot be loaded: ModuleNotFoundError: No module named 'fan_snail'"
    assert [said in line for line in ran.stderr.splitlines()] == [True, True]
    assert all(line.startswith("fan: ") for line in ran.stderr.splitlines())
