"""`fan shell`: lines as commands, the last result, warm connections; and the prompt on a pty."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fan import load_settings
from fancli.history import without_secrets
from fancli.keeper import Keeper
from tests.cli.conftest import PROGRAM, variables
from tests.cli.terminal import Terminal

if TYPE_CHECKING:
    from tests.cli.conftest import Demo, Fan, Ran

Script = Callable[..., "Ran"]


@pytest.fixture
def script(fan: Fan, demo: Demo) -> Script:
    """Run lines through a shell without a terminal."""

    def run(*lines: str, args: tuple[str, ...] = ()) -> Ran:
        return fan("shell", *args, stdin="\n".join(lines).encode())

    return run


def test_a_line_is_a_command_or_a_call(script: Script) -> None:
    ran = script(
        "greeter.hello name=Ada",
        "call greeter.hello name=Bob -t http",
        "fan discover list --format name",
        "greeter/add a=1 b=2",
        "greeter.echo [ --a 1 ]",
        "",
        "  # nothing",
    )
    assert (ran.exit, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == [
        '"Hello Ada"', '"Hello Bob"', "greeter", "3", '{"args":[],"kwargs":{"a":1}}',
    ]  # fmt: skip


def test_underscore_is_the_last_result(script: Script) -> None:
    ran = script(
        "greeter.echo 'tags[]=x' n:=3",
        "_",
        "_.kwargs.tags[0]",
        "greeter.hello name=_.kwargs.tags[0]",
        "greeter.hello name=_",
        "greeter.add a=2 b:=3 --json",
        "greeter.add a=_ b:=_",
        "greeter.echo _.x",
        "greeter.hello -r",
        "greeter.hello name=_",
        "greeter.hello name=_tail",
    )
    echo, last, tag, hello, again, _, six, *rest = ran.stdout.splitlines()
    assert last == echo
    assert (tag, hello, again) == ('"x"', '"Hello x"', '"Hello Hello x"')
    assert six == "10"
    assert rest == ["Hello World", '"Hello Hello World"', '"Hello _tail"']
    assert "the last result has no such part" in ran.stderr


def test_a_result_that_is_not_there_is_said(script: Script) -> None:
    ran = script("_")
    assert (ran.exit, ran.stdout) == (2, "")
    assert "there is no result yet" in ran.stderr


def test_a_failure_is_told_and_does_not_end_the_shell(script: Script) -> None:
    ran = script("greeter.boom", "gretter.hello", "nonsense", "call 'x", "greeter.hello")
    assert (ran.exit, ran.stdout) == (0, '"Hello World"\n')
    assert [line[:12] for line in ran.stderr.splitlines() if line.startswith("fan:")] == [
        "fan: unknown", "fan: not_fou", "fan: usage: ", "fan: usage: ",
    ]  # fmt: skip
    assert script("greeter.hello", "greeter.boom").exit == 5
    assert script("greeter.boom", "exit", "greeter.hello") == (5, "", script("greeter.boom").stderr)


def test_a_hint_says_what_to_type_in_the_shell(script: Script) -> None:
    ran = script("nonsense", "call greeter.add a=x b=1", "call greeter.hello --jsno")
    hints = [line for line in ran.stderr.splitlines() if line.startswith("hint:")]
    assert hints == [
        "hint: help", "hint: discover describe greeter.add", "hint: did you mean --json?",
    ]  # fmt: skip


def test_the_options_of_the_shell_are_those_of_its_lines(script: Script, private: Path) -> None:
    ran = script("settings show --json", args=("-n", "blue", "--timeout", "7s"))
    rows = {row["name"]: row["value"] for row in map(json.loads, ran.stdout.splitlines())}
    assert (rows["namespace"], rows["timeout"]) == ("blue", 7.0)
    ran = script("greeter.hello", "greeter.hello -n default", args=("-n", "blue"))
    assert ran.stdout == '"Hello World"\n'


def test_json_and_verbosity_of_the_shell_are_those_of_its_lines(script: Script) -> None:
    ran = script("greeter.hello", "greeter.boom", "nonsense", '"', args=("--json",))
    hello, *failed = map(json.loads, ran.stdout.splitlines())
    assert hello["result"] == "Hello World"
    assert [each["error"]["code"] for each in failed] == ["unknown", *["invalid_argument"] * 2]
    assert "* greeter.hello" in script("greeter.hello", args=("-v",)).stderr


def test_the_app_of_one_line_is_that_of_the_next(registry_url: str) -> None:
    one, other = (load_settings({"namespace": name}).settings for name in ("a", "b"))
    with Keeper() as keeper:
        with keeper.app(one, live=False) as first:
            first.sample = 1.0
        with keeper.app(one, live=False) as second:
            assert second is first
            assert second.sample == 0.0, "what a line asked for is over with it"
        with keeper.app(other, live=False) as third:
            assert third is not first
        assert repr(keeper) == "<Keeper apps=2>"
    assert "closed" in repr(first)


def test_there_is_no_shell_in_a_shell(script: Script) -> None:
    assert "this is a shell already" in script("shell").stderr


def test_a_closed_stdin_is_an_end(shell: Callable[..., Ran]) -> None:
    assert shell('"$@" shell <&-') == (0, "", "")
    assert shell('"$@" shell </dev/null') == (0, "", "")


# --- on a terminal ---


@pytest.fixture
def typed(demo: Demo) -> Callable[..., AbstractContextManager[Terminal]]:
    @contextmanager
    def start(**vars: str) -> Iterator[Terminal]:
        given = {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", **vars}
        with Terminal([*PROGRAM, "shell"], variables(given)) as terminal:
            terminal.until("fan>")
            yield terminal

    return start


Typed = Callable[..., AbstractContextManager[Terminal]]


def test_tab_completes_commands_targets_parameters_and_values(typed: Typed) -> None:
    with typed() as terminal:
        for keys, shown in (
            ("gree\t", "ter."), ("hel\t", "lo"), (" na\t", "me="), ("Ada\r", '"Hello Ada"'),
            ("disc\t", "over"), (" list --form\t", "at"), (" name\r", "greeter\r"),
            ("call greeter.add a=1 \t", "b="), ("2 -t ht\t", "tp"), ("\r", "3\r"),
        ):  # fmt: skip
            terminal.type(keys)
            terminal.until(shown)
        terminal.until("fan>")
        terminal.type("\x04")
        assert terminal.wait() == 0


def test_a_line_is_there_again_the_next_time_less_its_secrets(typed: Typed) -> None:
    with typed() as terminal:
        terminal.type("greeter.echo token=hunter2 x=1 -H 'Authorization: Bearer abc'\r")
        terminal.until("hunter2")
        terminal.type("exit\r")
        assert terminal.wait() == 0
    kept = Path(os.environ["XDG_STATE_HOME"], "fan", "history")
    assert kept.stat().st_mode & 0o777 == 0o600
    text = kept.read_text()
    assert "hunter2" not in text
    assert "abc" not in text
    assert "+greeter.echo token=**** x=1 -H 'Authorization: ****'\n" in text
    with typed() as terminal:
        terminal.type("\x1b[A\x1b[A")
        assert "greeter.echo" in terminal.until("greeter.echo")


def test_ctrl_c_gives_up_a_line_or_a_command_and_ctrl_d_ends_it(typed: Typed) -> None:
    with typed() as terminal:
        terminal.type("greeter.hello na")
        terminal.until("na")
        terminal.type("\x03")
        terminal.until("fan>")
        terminal.type("discover watch\r")
        terminal.until("+ instance")
        terminal.type("\x03")
        terminal.until("interrupted")
        terminal.until("fan>")
        terminal.type("greeter.hello name=Eve\r")
        terminal.until('"Hello Eve"')
        terminal.until("fan>")
        terminal.type("\x04")
        assert terminal.wait() == 0


def test_sigterm_ends_it_with_143(typed: Typed) -> None:
    with typed() as terminal:
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.wait() == 143
        assert "Traceback" not in terminal.seen


def test_a_dumb_terminal_will_do(demo: Demo) -> None:
    with Terminal([*PROGRAM, "shell"], variables({"TERM": "dumb"})) as terminal:
        terminal.until("fan>")
        terminal.type("greeter.hello\r")
        terminal.until('"Hello World"')
        assert "\x1b" not in terminal.seen
        terminal.until("fan>")
        terminal.type("\x04")
        assert terminal.wait() == 0


def test_a_shell_without_a_home_to_write_to_has_no_history(typed: Typed) -> None:
    with typed(XDG_STATE_HOME="/proc/nowhere") as terminal:
        terminal.type("greeter.hello\r")
        terminal.until('"Hello World"')


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("greeter.hello name=Ada", "greeter.hello name=Ada"),
        ("greeter.hello   name='A  b'", "greeter.hello   name='A  b'"),
        ("x.y password=a", "x.y password=****"),
        ("x.y user[password]:=1", "x.y user[password]:=****"),
        ("x.y -Hcookie:a", "x.y '-Hcookie: ****'"),
        ("x.y --header='X-Token: a b'", "x.y '--header=X-Token: ****'"),
        ("x.y -B token=1", "x.y -B token=****"),
        ("""x.y '{"secret":"a","b":1}'""", """x.y '{"secret":"****","b":1}'"""),
        ("x.y [ --password a --b c ]", "x.y [ --password **** --b c ]"),
        ("x.y --show-secrets -v", "x.y --show-secrets -v"),
        ("x.y -p http://me:pw@host/", "x.y -p http://****@host/"),
        ("x.y 'no end http://me:pw@host/", "x.y 'no end http://****@host/"),
    ],
)
def test_what_is_kept_of_a_line(line: str, kept: str) -> None:
    assert without_secrets(line) == kept
