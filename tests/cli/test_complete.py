"""Completion: the scripts are those that are checked in, and bash completes with them."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fancli.scripts import FILES
from tests.cli.conftest import variables

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


class Terminal:
    """A bash that somebody types into."""

    def __init__(self, vars: dict[str, str]) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], vars)

    def until(self, text: str) -> str:
        """What is shown up to and with `text`."""
        seen = ""
        while text not in seen:
            assert select.select([self.fd], [], [], 50)[0], f"{text!r} is not in {seen!r}"
            seen += os.read(self.fd, 65536).decode()
        return seen

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ("fan call gree\thel\tna\tAda", "call greeter.hello name=Ada"),
        ("fan call greeter.hello@1\tname=Ada", "call greeter.hello@1.0.0 name=Ada"),
        ("fan call greeter.hello --instance \t", "call greeter.hello --instance greeter-"),
        ("fan discover descr\tgreeter.ad\t", "discover describe greeter.add"),
        ("fan help exi\t", "help exit-codes"),
        ("fan help discover resol\t", "help discover resolve"),
    ],
)
def test_a_tab_in_a_real_bash_leaves_a_line_that_can_be_run(
    demo: Demo, private: Path, keys: str, line: str
) -> None:
    program = private / "fan"
    program.write_text(
        "#!/bin/sh\n"
        f'[ -n "$_FAN_COMPLETE" ] && exec {sys.executable} -P -m fancli\n'
        'echo "ran <$*>"\n'
    )
    program.chmod(0o755)
    path = f"{private}{os.pathsep}{os.environ['PATH']}"
    terminal = Terminal(variables({"PATH": path, "PS1": "> ", "TERM": "dumb"}))
    try:
        terminal.type(f"source {ROOT}/completions/fan.bash; echo rea''dy\n")
        terminal.until("ready\r\n")
        terminal.type(f"{keys}\n")
        shown = terminal.until(">\r\n")
        assert f"ran <{line}" in shown
    finally:
        os.close(terminal.fd)
        os.kill(terminal.pid, signal.SIGKILL)
        os.waitpid(terminal.pid, 0)
