"""`fan call --record` and `fan replay`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import envelope

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Demo, Fan


@pytest.fixture
def tape(fan: Fan, demo: Demo, private: Path) -> str:
    """Four recorded calls: one that goes well, one with headers, a failure and a stream."""
    path = f"{private}/calls.ndjson"
    fan("call", "greeter.hello", "name=Ada", "--record", path)
    secret = ("-H", "Authorization: hush", "-H", "x-a: b", "-B", "token=hush", "-B", "user=7")
    fan("call", "greeter.echo", "=1", "a=2", "--record", path, *secret)
    fan("call", "greeter.boom", "--record", path)
    fan("call", "greeter.count", "n=2", "--record", path)
    return path


def test_a_recording_has_a_line_for_each_call_and_no_secret(tape: str) -> None:
    with open(tape) as file:
        text = file.read()
    first, second, third, fourth = map(json.loads, text.splitlines())
    assert (first["v"], first["target"], first["body"]) == (1, "greeter.hello", {"name": "Ada"})
    assert (first["reply"]["ok"], first["reply"]["result"]) == (True, "Hello Ada")
    assert (second["headers"], second["baggage"]) == ({"x-a": "b"}, {"user": "7"})
    assert "hush" not in text
    assert third["reply"]["error"]["type"] == "ValueError"
    assert fourth["reply"]["result"] == [0, 1]


def test_a_replay_prints_the_results_again(fan: Fan, tape: str) -> None:
    ran = fan("replay", tape)
    echoed = '{"args":["1"],"kwargs":{"a":"2"}}'
    assert (ran.exit, ran.stdout) == (9, f'"Hello Ada"\n{echoed}\n[0,1]\n')
    assert "line 3: unknown: greeter.boom: ValueError: boom" in ran.stderr


def test_a_check_is_silent_where_all_is_as_it_was(fan: Fan, tape: str, demo: Demo) -> None:
    assert fan("replay", tape, "--check", "-q") == (0, "", "")
    assert fan("replay", tape, "--check", "-p", demo.url, "-q", "-c", "4") == (0, "", "")


def test_a_check_prints_what_has_become_different(fan: Fan, tape: str) -> None:
    ran = fan("replay", tape, "--check", "--want", "@2")
    assert ran.exit == 9
    assert ran.stdout.splitlines()[3:] == ['-"Hello Ada"', '+"Hi Ada"']
    assert ran.stderr == "* 4 replayed, 1 different\n"
    ran = fan("replay", tape, "--check", "--want", "2", "--json", "-q")
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [o["ok"] for o in found] == [False, True, True, True]
    assert found[0]["error"]["reason"] == "replay_differs"
    assert (found[0]["was"], found[0]["now"]) == (
        {"result": "Hello Ada"}, {"result": "Hi Ada"}
    )  # fmt: skip


def test_several_are_made_at_once_by_the_name_that_call_has_for_it(fan: Fan, tape: str) -> None:
    ran = fan("replay", tape, "--check", "--concurrency", "2")
    assert (ran.exit, ran.stdout) == (0, ""), ran


def test_a_check_of_what_nobody_answers_says_so(fan: Fan, tape: str) -> None:
    ran = fan("replay", tape, "--check", "-p", "http://127.0.0.1:1", "--fail-fast")
    assert (ran.exit, ran.stdout) == (9, "")
    assert "unavailable" in ran.stderr


@pytest.mark.parametrize(
    "line", ["nonsense", "{}", '{"v":1,"target":"x"}', '{"v":2,"target":"a.b"}']
)
def test_what_is_no_recording_is_refused_with_its_line(
    fan: Fan, private: Path, registry_url: str, line: str
) -> None:
    (private / "r").write_text(f"\n{line}\n")
    ran = fan("replay", f"{private}/r", "--json")
    assert ran.exit == 2
    assert f"{private}/r:2: " in envelope(ran)["error"]["message"]
    assert fan("replay", f"{private}/nothing").exit == 2


def test_a_recording_that_cannot_grow_is_exit_1(fan: Fan, demo: Demo) -> None:
    ran = fan("call", "greeter.hello", "--record", "/dev/full")
    assert (ran.exit, ran.stderr) == (
        1, "fan: cannot write to /dev/full: No space left on device\n"
    )  # fmt: skip
