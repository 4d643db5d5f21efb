"""What a user of curl, grpcurl, yab and HTTPie tries first on `fan call`, as they would type it;
piped and on a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import HANG, PROGRAM, envelope, variables

if TYPE_CHECKING:
    from tests.cli.conftest import Demo, Fan, Ran

Shell = Callable[..., "Ran"]
Terminal = Callable[..., "Ran"]


def test_six_forms_of_a_payload_are_the_same_call(
    fan: Fan, on_terminal: Terminal, demo: Demo, private: Path
) -> None:
    text = '{"a":1,"b":{"c":["x"]}}'
    (private / "f.json").write_text(text)
    forms = [
        ("a:=1", "b[c][]=x"),
        (text,),
        ("-d", text),
        ("-d", f"@{private}/f.json"),
        ("-d", "-"),
        ("[", "--a", "1", "--b", "[", "--c", "[", "x", "]", "]", "]"),
    ]
    shown = {fan("call", "greeter.echo", *form, stdin=text.encode()).stdout for form in forms}
    assert shown == {f'{{"args":[],"kwargs":{text}}}\n'}
    seen = {
        on_terminal("call", "greeter.echo", *form, NO_COLOR="1").stdout
        for form in forms
        if form[-1] != "-"
    }
    assert [json.loads(each)["kwargs"] for each in seen] == [json.loads(text)]


def test_the_code_of_a_failure_is_in_the_object(shell: Shell, demo: Demo) -> None:
    pick = "python3 -c 'import json, sys; print(json.load(sys.stdin)[\"error\"][\"code\"])'"
    ran = shell(f'"$@" call greeter.boom --json | {pick}; exit "${{PIPESTATUS[0]}}"')
    assert (ran.exit, ran.stdout, ran.stderr) == (5, "unknown\n", "")


def test_a_slow_call_ends_with_its_time(fan: Fan, demo: Demo) -> None:
    began = time.monotonic()
    ran = fan("call", "greeter.slow", "s=40", "--timeout", "2s")
    assert (ran.exit, ran.stdout) == (7, "")
    assert "no reply within 2s (executed: maybe)" in ran.stderr
    assert time.monotonic() - began < 20  # far from the 40 of the callee, whatever the machine does


def test_a_stdin_that_never_ends_keeps_nobody_waiting(demo: Demo) -> None:
    with subprocess.Popen(
        [*PROGRAM, "call", "greeter.hello"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=variables(),
    ) as process:  # fmt: skip
        assert process.wait(HANG) == 0
        assert process.stdout is not None
        assert process.stdout.read() == b'"Hello World"\n'


def test_options_stand_anywhere_and_two_dashes_end_them(fan: Fan, demo: Demo) -> None:
    lines = [
        ("-r", "call", "greeter.hello", "name=Ada"),
        ("call", "-r", "greeter.hello", "name=Ada"),
        ("call", "greeter.hello", "-r", "name=Ada"),
        ("call", "greeter.hello", "name=Ada", "-r"),
        ("call", "-r", "greeter.hello", "--", "name=Ada"),
        ("--timeout", "9s", "call", "greeter.hello", "name=Ada", "-r"),
    ]
    assert {fan(*line).stdout for line in lines[1:]} == {"Hello Ada\n"}
    assert fan(*lines[0]).exit == 2  # of one command, not of all


def test_an_option_whose_name_is_a_key_of_shon_is_one(fan: Fan, demo: Demo) -> None:
    ran = fan("call", "greeter.echo", "[", "--wait-ready", "1", "]", "--wait-ready")
    assert ran.stdout == '{"args":[],"kwargs":{"wait-ready":1}}\n'
    assert fan("call", "greeter.echo", "--wait-ready", "a=1").stdout.endswith('{"a":"1"}}\n')


def test_a_mistyped_name_is_told_with_the_right_one(fan: Fan, demo: Demo) -> None:
    for args, status, near in (
        (("gretter.hello",), 3, "greeter"),
        (("greeter.helo",), 3, "hello"),
        (("greeter.hello", "--timeot", "3"), 2, "--timeout"),
        (("greeter.hello", "--wait-redy"), 2, "--wait-ready"),
        (("greeter.hello", "--fan-out"), 2, "--fanout"),
    ):
        ran = fan("call", *args)
        assert (ran.exit, ran.stdout) == (status, "")
        assert f"did you mean {near}" in ran.stderr


def test_what_users_of_other_programs_type_is_told_in_the_words_of_this_one(
    fan: Fan, registry_url: str
) -> None:
    for args, hint in (
        (("call", "greeter.hello", "--name", "Ada"), "an argument of the method is an item: name="),
        (("call", "greeter.hello", "Ada"), "NAME=Ada, or =Ada"),
        (("call", "greeter", "hello", "name=Ada"), "hint: greeter.hello"),
        (("call", "http://h:1/rpc/greeter/hello"), "fan call greeter.hello -p http://HOST:PORT"),
        (("greeter.hello", "name=Ada"), "did you mean fan call greeter.hello?"),
        (("describe", "greeter.hello"), "did you mean fan discover describe?"),
        (("switch", "greeter=2"), "did you mean fan version switch?"),
        (("bench", "greeter.hello", "-N", "many"), "'many' is no number"),
    ):
        ran = fan(*args)
        assert (ran.exit, ran.stdout) == (2, ""), ran
        assert hint in ran.stderr


def test_a_batch_on_a_terminal_is_a_line_for_each(on_terminal: Terminal, demo: Demo) -> None:
    ran = on_terminal("call", "greeter.whoami", "--fanout")
    assert [json.loads(line)["version"] for line in ran.stdout.splitlines()] == ["1.0.0", "2.0.0"]
    ran = on_terminal("call", "greeter.add", "a=1", "b=2", "-N", "3")
    assert ran.stdout == "3\n3\n3\n"
    ran = on_terminal("call", "greeter.count", "n=2")
    assert ran.stdout == "0\n1\n"


def test_parts_on_a_terminal_are_indented(on_terminal: Terminal, demo: Demo) -> None:
    ran = on_terminal("call", "greeter.echo", "a=1", "--print", "Bb", NO_COLOR="1")
    assert ran.stdout.split("\n\n")[0] == '{\n  "a": "1"\n}'


def test_a_failure_on_a_terminal_leaves_it_empty(on_terminal: Terminal, demo: Demo) -> None:
    ran = on_terminal("call", "greeter.boom")
    assert (ran.exit, ran.stdout) == (5, "")
    assert "ValueError: boom" in ran.stderr


def test_a_difference_on_a_terminal_is_a_diff(on_terminal: Terminal, demo: Demo) -> None:
    ran = on_terminal("call", "greeter.hello", "--against", "@1", "@2")
    assert (ran.exit, ran.stdout.splitlines()[3:]) == (9, ['-"Hello World"', '+"Hi World"'])


@pytest.mark.parametrize("more", [("--each",), ("-N", "2"), ("--fanout",), ("--print", "hb")])
def test_a_batch_to_a_full_disk_is_exit_1(shell: Shell, demo: Demo, more: tuple[str, ...]) -> None:
    args = " ".join(more)
    ran = shell(f"echo '{{}}' | \"$@\" call greeter.hello {args} >/dev/full")
    assert (ran.exit, ran.stderr) == (
        1, "fan: cannot write to stdout: No space left on device\n"
    )  # fmt: skip


def test_a_batch_speaks_utf8_whatever_the_locale(fan: Fan, demo: Demo) -> None:
    c = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = fan("call", "greeter.hello", "--each", "-r", stdin='{"name":"Åsa"}'.encode(), **c)
    assert (ran.exit, ran.stdout) == (0, "Hello Åsa\n")
    ran = fan("call", "greeter.hello", "name=Åsa", "-N", "1", **c)
    assert ran.stdout == '"Hello Åsa"\n'


def test_a_dry_run_of_a_file_sends_nothing(fan: Fan, demo: Demo, private: Path) -> None:
    before = json.loads(fan("call", "greeter.stats").stdout)
    (private / "x.fan").write_text("target: greeter.boom\nheaders: {authorization: hush}\n")
    found = envelope(fan("call", "-f", f"{private}/x.fan", "--dry-run"))
    assert found["request"]["headers"] == {"authorization": "****"}
    after = json.loads(fan("call", "greeter.stats").stdout)
    assert after["methods"].get("boom") == before["methods"].get("boom")


def test_a_loop_over_lines_keeps_its_lines(shell: Shell, demo: Demo) -> None:
    loop = 'while read -r n; do "$@" call greeter.add a=$n b=1 -N 2 --retry 1; done'
    assert shell(f"printf '1\\n2\\n' | {loop}").stdout.split() == ["2", "2", "3", "3"]


def test_a_request_file_on_a_pipe_needs_no_seek(fan: Fan, demo: Demo, private: Path) -> None:
    fifo = private / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["sh", "-c", f'echo "target: greeter.hello" >{fifo}']) as writer:
        assert fan("call", "-f", str(fifo)).stdout == '"Hello World"\n'
        assert writer.wait(HANG) == 0
