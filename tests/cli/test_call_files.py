"""Requests in files: `fan call -f`, what fills them, and what is expected of the reply."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fancli.documents import read_document
from fancli.env import Environment
from fancli.params import Usage
from fancli.payload import Text
from fancli.request_file import RequestFile, read_request
from tests.cli.conftest import HANG, PROGRAM, envelope, variables

if TYPE_CHECKING:
    from tests.cli.conftest import Demo, Fan

GREET = """\
#!/usr/bin/env -S fan call -f
target: greeter.hello
timeout: 2s
args:
  name: ${name:-World}
"""


def written(folder: Path, text: str, name: str = "get.fan") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def read(folder: Path, text: str, *arguments: str, name: str = "x", **vars: str) -> RequestFile:
    return read_request(written(folder, text, name), arguments, Environment(vars=vars))


def plain(value: Any) -> Any:
    """Values, with what is `Text` as a tuple of it."""
    if isinstance(value, Text):
        return (value.data,)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def test_a_file_is_filled_by_arguments_or_its_defaults(fan: Fan, demo: Demo, private: Path) -> None:
    path = written(private, GREET)
    assert fan("call", "-f", path).stdout == '"Hello World"\n'
    assert fan("call", "-f", path, "-A", "name=Bob").stdout == '"Hello Bob"\n'
    assert fan("call", "-f", "-", stdin=GREET.encode()).stdout == '"Hello World"\n'


def test_flags_and_items_win_over_the_file(fan: Fan, demo: Demo, private: Path) -> None:
    path = written(private, GREET + "headers: {x-a: file, x-b: file}\nbaggage: {u: file}\n")
    assert fan("call", "-f", path, "name=Zed").stdout == '"Hello Zed"\n'
    assert fan("call", "greeter.hello@2", "-f", path).stdout == '"Hi World"\n'
    assert fan("call", "-f", path, "-d", '{"name":"Ada"}').stdout == '"Hello Ada"\n'
    ran = fan("call", "-f", path, "--dry-run", "-H", "x-a: flag", "--timeout", "9s")
    request = envelope(ran)["request"]
    assert request["headers"] == {"x-a": "flag", "x-b": "file"}
    assert (request["timeout_ms"], request["baggage"]) == (9000, {"u": "file"})
    assert envelope(fan("call", "-f", path, "--dry-run"))["request"]["timeout_ms"] == 2000


def test_a_file_runs_by_itself(demo: Demo, private: Path) -> None:
    path = written(private, GREET)
    os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)
    script = private / "fan"
    script.write_text(f'#!/bin/sh\nexec {" ".join(PROGRAM)} "$@"\n')
    script.chmod(0o755)
    env = variables({"PATH": f"{private}{os.pathsep}{os.environ['PATH']}"})
    done = subprocess.run(
        [path, "-A", "name=Bob"], env=env, stdin=subprocess.DEVNULL, capture_output=True,
        timeout=HANG, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, b'"Hello Bob"\n'), done.stderr


FORMS = {
    "a.yaml": 'target: a.b\ntimeout: 300ms\nheaders: {X-A: 1, b: "${b}"}\nargs: [1, "${n:-2}"]\n',
    "a.json": '{"target":"a.b","timeout":"300ms","headers":{"X-A":1,"b":"${b}"},'
    '"args":[1,"${n:-2}"]}',
    "a.toml": 'target = "a.b"\ntimeout = "300ms"\nargs = [1, "${n:-2}"]\n'
    '[headers]\nX-A = 1\nb = "${b}"\n',
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("is_named", [True, False])
def test_yaml_json_and_toml_say_the_same(private: Path, name: str, is_named: bool) -> None:
    found = read(private, FORMS[name], "b=x", name=name if is_named else "x")
    assert (found.target, found.timeout) == ("a.b", 0.3)
    assert found.headers == {"x-a": "1", "b": "x"}
    assert found.payload is not None
    assert plain(found.payload.args) == [1, ("2",)]


UNKNOWN = {
    "a.yaml": "target: a.b\n# a remark\ntimeuot: 3\n",
    "a.json": '{\n "target": "a.b",\n "timeuot": 3}\n',
    "a.toml": 'target = "a.b"\n\ntimeuot = 3\n',
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_key_is_named_with_its_line(fan: Fan, private: Path, name: str) -> None:
    path = written(private, UNKNOWN[name], name)
    ran = fan("call", "-f", path)
    assert (ran.exit, ran.stdout) == (2, "")
    assert f"{path}:3: unknown key 'timeuot'" in ran.stderr
    assert "did you mean timeout?" in ran.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("target: a.b\nargs: {n: ${n}}\n", "x:2: "),
        ('target: a.b\nargs:\n  n: "${n}"\n', "x:3: ${n} has no value"),
        ('target: a.b\nargs:\n- "${env:NOBODY}"\n', "x:3: ${env:NOBODY} has no value"),
        ('target: a.b\nargs:\n- "${a b}"\n', "x:3: ${a b} cannot be read"),
        ("target: a.b\ntarget: c.d\n", "x:2: target is given twice"),
        ("target: a.b\ntimeout: soon\n", "x:2: timeout"),
        ("target: a.b\nheaders: [1]\n", "x:2: headers is a map"),
        ("target: a.b\nheaders:\n  a b: 1\n", "x:3: "),
        ("target: a.b\nargs: 3\n", "x:2: args"),
        ("target: a.b\nargs: [1]\ndata: [2]\n", "x:3: two payloads"),
        ("target: a.b\ndata: '{nonsense'\n", "x:2: data"),
        ("- a\n", "x:1: a request is a map"),
        ("target: [1\n", "x:2: "),
        ('target = "a.b\n', "x:1: "),
        ('{"target":\n}', "line 2"),
        ("n: .nan\n", "x:1: .nan is no number"),
        ("a: &a [*a]\n", "nested too deeply"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_its_line(private: Path, text: str, said: str) -> None:
    with pytest.raises(Usage) as caught:
        read(private, text)
    assert said in caught.value.message.replace(f"{private}/", "")


def test_text_with_braces_in_braces_is_told_to_be_quoted(private: Path) -> None:
    with pytest.raises(Usage) as caught:
        read(private, "args: {n: ${n}}\n")
    assert "quotes" in caught.value.hint


def test_the_environment_fills_and_an_empty_variable_leaves_the_default(private: Path) -> None:
    text = "args: ['${env:A}', '${env:B:-b}', 'x${env:A}y', '$${A}']\n"
    found = read(private, text, A="1", B="")
    assert found.payload is not None
    assert plain(found.payload.args) == [("1",), ("b",), "x1y", "${A}"]


def test_an_argument_may_be_json_and_one_that_nothing_stands_for_is_one_of_the_call(
    private: Path,
) -> None:
    found = read(private, "args: {n: '${n}'}\n", "n:=[1]", "more=x")
    assert found.payload is not None
    assert plain(found.payload.kwargs) == {"n": [1], "more": ("x",)}


def test_arguments_beside_data_are_the_defaults_of_what_fills_it(private: Path) -> None:
    text = "args: {who: Ada}\ndata: {name: '${who}'}\n"
    for given, name in (((), "Ada"), (("who=Bob",), ("Bob",))):
        found = read(private, text, *given)
        assert found.payload is not None
        assert plain(found.payload.kwargs) == {"name": name}


def test_data_may_be_json_or_a_file_beside_it(private: Path) -> None:
    (private / "body.json").write_text('{"a": "${a}"}')
    found = read(private, "data: '@body.json'\n")
    assert found.payload is not None
    assert found.payload.raw == b'{"a": "${a}"}'
    found = read(private, """data: '{"a": "${a}", "b": 1}'\n""", 'a=say "x"')
    assert found.payload is not None
    assert plain(found.payload.kwargs) == {"a": ('say "x"',), "b": 1}


def test_yaml_is_read_as_json_would_have_it() -> None:
    text = "{a: no, b: 2026-01-02, c: 0x10, d: 1e3, e: ~, f: 007, g: '1', h: |-\n  x}\n"
    text = "a: no\nb: 2026-01-02\nc: 0x10\nd: 1e3\ne: ~\nf: 0o7\ng: '1'\nh: |-\n  x\ni: 1_0\n"
    assert read_document(text.encode(), "x").value == {
        "a": "no", "b": "2026-01-02", "c": 16, "d": 1000.0, "e": None, "f": 7, "g": "1", "h": "x",
        "i": "1_0",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("expect", "status"),
    [
        ("expect: Hello Ada", 0),
        ("expect: {result: Hello Ada, version: 1.0.0, code: ok}", 0),
        ("expect: Hello Bob", 9),
        ("expect: {result: Hello Ada, version: 2.0.0}", 9),
        ("expect: {code: unknown}", 9),
        ("expect: 'Hello ${name:-Ada}'", 0),
    ],
)
def test_what_is_expected_decides_the_status(
    fan: Fan, demo: Demo, private: Path, expect: str, status: int
) -> None:
    path = written(private, f"target: greeter.hello\nargs: {{name: Ada}}\n{expect}\n")
    ran = fan("call", "-f", path)
    assert (ran.exit, ran.stdout) == (status, '"Hello Ada"\n' if not status else "")
    assert ("expected" in ran.stderr) is bool(status)
    found = envelope(fan("call", "-f", path, "--json"))
    assert (found["ok"], found["result"]) == (not status, "Hello Ada")
    assert status == 0 or found["error"]["exit"] == 9


def test_of_an_object_only_what_is_named_is_expected(fan: Fan, demo: Demo, private: Path) -> None:
    head = "target: greeter.echo\nargs: {a: 1, b: [1, 2]}\n"
    for expect, status in (
        ("{kwargs: {a: 1}}", 0),
        ("{result: {kwargs: {b: [1, 2]}}}", 0),
        ("{'result.kwargs.b[1]': 2}", 0),
        ("{kwargs: {b: [1]}}", 9),
        ("{kwargs: {c: 1}}", 9),
        ("{kwargs: {a: true}}", 9),
    ):
        path = written(private, f"{head}expect: {expect}\n")
        assert fan("call", "-f", path).exit == status, expect


def test_a_failure_may_be_what_is_expected(fan: Fan, demo: Demo, private: Path) -> None:
    path = written(private, "target: greeter.boom\nexpect: {code: unknown, type: ValueError}\n")
    ran = fan("call", "-f", path)
    assert (ran.exit, ran.stdout) == (0, "")
    path = written(private, "target: greeter.boom\nexpect: Hello\n")
    ran = fan("call", "-f", path)
    assert ran.exit == 9
    assert "boom" in ran.stderr
    path = written(private, "target: ghost.x\nexpect: Hello\n")
    assert fan("call", "-f", path).exit == 3


def test_the_items_of_a_stream_are_expected_as_a_list(
    fan: Fan, demo: Demo, private: Path
) -> None:
    for expect, status in (("[0, 1]", 0), ("[0, 2]", 9)):
        path = written(private, f"target: greeter.count\nargs: {{n: 2}}\nexpect: {expect}\n")
        ran = fan("call", "-f", path)
        assert (ran.exit, ran.stdout) == (status, "0\n1\n")


def test_every_call_of_a_batch_is_held_against_what_is_expected(
    fan: Fan, demo: Demo, private: Path
) -> None:
    path = written(private, "target: greeter.add\nexpect: 3\n")
    ran = fan("call", "-f", path, "--each", stdin=b'{"a":1,"b":2}\n{"a":2,"b":2}\n')
    assert ran.exit == 9
    assert [json.loads(line)["ok"] for line in ran.stdout.splitlines()] == [True, False]
