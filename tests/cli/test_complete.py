"""Completion: the scripts are those that are checked in, and bash completes with them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fan.testing.servers import require
from fancli.scripts import FILES
from tests.cli.conftest import variables
from tests.cli.terminal import Terminal

if TYPE_CHECKING:
    from tests.cli.brokers import Shop
    from tests.cli.conftest import Demo, Fan

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("shell", FILES)
def test_the_scripts_are_those_that_are_checked_in(fan: Fan, shell: str) -> None:
    assert fan("completion", shell).stdout == (ROOT / "completions" / FILES[shell]).read_text()


def complete(fan: Fan, line: str, **vars: str) -> list[str]:
    """What bash would be told for `line`, the cursor at its end."""
    point = str(len(line))
    ran = fan(_FAN_COMPLETE="bash_complete", COMP_LINE=line, COMP_POINT=point, **vars)
    assert (ran.exit, ran.stderr) == (0, "")
    return ran.stdout.splitlines()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("fan ca", ["plain\tcall"]),
        ("fan discover res", ["plain\tresolve", "plain\treshard"]),
        ("fan discover drain gre", ["part\tgreeter/"]),
        ("fan discover drain greeter@2", ["plain\tgreeter@2.0.0"]),
        ("fan call --time", ["plain\t--timeout"]),
        ("fan call gr", ["part\tgreeter."]),
        ("fan call greeter.he", ["plain\tgreeter.health", "plain\tgreeter.hello"]),
        ("fan call greeter.hello@", ["plain\tgreeter.hello@1.0.0", "plain\tgreeter.hello@2.0.0"]),
        ("fan call greeter.add ", ["part\ta=", "part\tb="]),
        ("fan call greeter.add a=1 ", ["part\tb="]),
        ("fan call -t ht", ["plain\thttp"]),
        ("fan discover show gr", ["plain\tgreeter"]),
        ("fan call nobody.x", []),
        ("fan call -t r", ["plain\tredis"]),
        ("fan queue re", ["plain\trequeue"]),
        ("fan queue show -t a", ["plain\tauto", "plain\tamqp"]),
        ("fan queue show greeter@", ["plain\tgreeter@1.0.0", "plain\tgreeter@2.0.0"]),
        ("fan listen ", []),
    ],
)
def test_what_may_stand_next(fan: Fan, demo: Demo, line: str, found: list[str]) -> None:
    assert complete(fan, line) == found


def test_the_scripts_that_click_makes_are_answered_too(fan: Fan, demo: Demo) -> None:
    words = {"COMP_WORDS": "fan call greeter.he", "COMP_CWORD": "2"}
    ran = fan(_FAN_COMPLETE="bash_complete", **words)
    assert ran == (0, "plain,greeter.health\nplain,greeter.hello\n", "")
    ran = fan(_FAN_COMPLETE="bash_complete", COMP_WORDS="fan call gr", COMP_CWORD="2")
    assert ran == (0, "plain,greeter.\n", "")
    for shell in FILES:
        ran = fan(_FAN_COMPLETE=f"{shell}_source")
        assert ran == (0, fan("completion", shell).stdout, "")


def test_topics_and_what_their_events_hold(fan: Fan, shop: Shop) -> None:
    shop.register()
    for line in (f"fan listen {shop.topic[:8]}", f"fan push --topic {shop.topic[:8]}"):
        assert complete(fan, line) == [f"plain\t{shop.topic}"]
    assert complete(fan, f"fan listen {shop.topic} {shop.topic[:8]}") == []
    assert complete(fan, f"fan push --topic {shop.topic} ") == ["part\titem=", "part\tcount="]
    assert complete(fan, f"fan push --topic {shop.topic} item=a ") == ["part\tcount="]
    events = f"{shop.topic}/{shop.service}"
    assert complete(fan, f"fan queue purge {shop.topic}") == [f"plain\t{events}"]


SLOW_FILES = """
import sqlite3, time
connect = sqlite3.connect
def slow(*args, **kwargs):
    time.sleep(0.3)
    return connect(*args, **kwargs)
sqlite3.connect = slow
"""


def test_a_busy_machine_makes_a_tab_slow_not_silent(fan: Fan, demo: Demo, private: Path) -> None:
    (private / "sitecustomize.py").write_text(SLOW_FILES)
    path = f"{private}:{variables().get('PYTHONPATH', '')}".rstrip(":")
    assert complete(fan, "fan call gr", PYTHONPATH=path) == ["part\tgreeter."]


def test_a_broken_registry_is_silence(fan: Fan, private: Path) -> None:
    (private / "broken.db").write_bytes(b"not a database" * 1000)
    for url in (f"sqlite:{private}/broken.db", "sqlite:/does/not/exist.db", "nonsense"):
        assert complete(fan, "fan call gr", FAN_REGISTRY=url) == []
    assert not Path("/does").exists()


def test_bash_completes_behind_an_equals_sign_and_holds_back_the_space(
    demo: Demo, private: Path
) -> None:
    program = private / "fan"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m fancli "$@"\n')
    program.chmod(0o755)
    script = f"""
        source {ROOT}/completions/fan.bash
        compopt() {{ echo "compopt $*"; }}
        try() {{
            COMP_LINE=$1 COMP_POINT=${{#1}}
            _fan_completion fan
            printf '[%s]\\n' "${{COMPREPLY[@]}}"
        }}
        try 'fan call gree'
        try 'fan call greeter.hello na'
    """
    path = f"{private}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=variables({"PATH": path}),
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "compopt -o nospace", "[greeter.]", "compopt -o nospace", "[name=]",
    ]  # fmt: skip


@pytest.fixture
def typing(demo: Demo, private: Path) -> Callable[[str], AbstractContextManager[Terminal]]:
    """A shell that somebody types into, with the completion of `fan` and a `fan` that only says
    with what it is run."""
    program = private / "fan"
    program.write_text(
        "#!/bin/sh\n"
        f'[ -n "$_FAN_COMPLETE" ] && exec {sys.executable} -P -m fancli\n'
        'echo "ran <$*>"\n'
    )
    program.chmod(0o755)
    path = f"{private}{os.pathsep}{os.environ['PATH']}"
    vars = variables({"PATH": path, "PS1": "> ", "TERM": "dumb"})

    @contextmanager
    def start(shell: str) -> Iterator[Terminal]:
        command, term, set_up = SHELLS[shell]
        with Terminal(command, {**vars, "TERM": term}, cwd=private) as terminal:
            terminal.type(f"{set_up.format(folder=ROOT / 'completions')}; echo rea''dy\r")
            terminal.until("ready\r\n")
            yield terminal

    return start


#: How each shell is started without anybody's settings, on which terminal, and what it is told.
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "dumb", "source {folder}/fan.bash"),
    "zsh": (
        ["zsh", "-f", "-i"],
        "vt100",
        "fpath=({folder} $fpath); autoload -Uz compinit; compinit -u -D",
    ),
    "fish": (["fish", "--no-config", "-i"], "vt100", "source {folder}/fan.fish"),
}


@pytest.fixture(
    params=["bash", *(pytest.param(name, marks=getattr(pytest.mark, name)) for name in FILES
                      if name != "bash")]
)  # fmt: skip
def shell_name(request: pytest.FixtureRequest) -> str:
    """Each shell in turn; one that is not installed is skipped, or fails, as a server is."""
    name: str = request.param
    if name != "bash":
        require(request.config, name)
    return name


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (("fan call gree", "hel", " na", "Ada"), "call greeter.hello name=Ada"),
        (("fan call greeter.hello@1", "name=Ada"), "call greeter.hello@1.0.0 name=Ada"),
        (("fan call greeter.hello --instance ", ""), "call greeter.hello --instance greeter-"),
        (("fan discover descr", "greeter.ad", ""), "discover describe greeter.add"),
        (("fan call greeter.add a=1 ", "2 -t ht", ""), "call greeter.add a=1 b=2 -t http"),
        (("fan help exi", ""), "help exit-codes"),
        (("fan help discover resol", ""), "help discover resolve"),
    ],
    ids=" ".join,
)
def test_a_tab_in_a_real_shell_leaves_a_line_that_can_be_run(
    typing: Callable[[str], AbstractContextManager[Terminal]],
    shell_name: str,
    keys: tuple[str, ...],
    line: str,
) -> None:
    with typing(shell_name) as terminal:
        terminal.type("\t".join(keys) + "\r")
        shown = terminal.until(">\r\n")
        assert f"ran <{line}" in shown


def test_a_registry_that_is_down_is_silence_in_a_real_shell(
    typing: Callable[[str], AbstractContextManager[Terminal]], shell_name: str,
    monkeypatch: pytest.MonkeyPatch, private: Path,
) -> None:  # fmt: skip
    with typing(shell_name) as terminal:
        assign = "set -x" if shell_name == "fish" else "export"
        equals = " " if shell_name == "fish" else "="
        terminal.type(f"{assign} FAN_REGISTRY{equals}zk://127.0.0.1:1\r")
        terminal.type("fan call gree\tx\r")
        shown = terminal.until(">\r\n")
        assert "ran <call greex" in shown
        assert "rror" not in shown
