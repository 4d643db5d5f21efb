"""`fan config` as scripts use it: one config read and changed, on a registry in a file."""

from __future__ import annotations

import json
import shlex
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.conftest import PROGRAM, envelope, variables
from tests.configs import BOTH

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Fan, Ran

pytestmark = pytest.mark.usefixtures("registry_url")


def told(ran: Ran) -> Any:
    """The object of a run that went well."""
    found = envelope(ran)
    assert (ran.exit, found["v"], found["ok"]) == (0, 1, True), ran
    return found


@BOTH
def test_a_missing_key_is_3_with_nothing_on_stdout_and_an_empty_value_is_0(fan: Fan) -> None:
    missing = fan("config", "get", "k")
    assert (missing.exit, missing.stdout) == (3, "")
    assert "no such config: k" in missing.stderr
    fan("config", "set", "k", "")
    assert fan("config", "get", "k")[:2] == (0, "\n")
    assert fan("config", "get", "k", "--raw")[:2] == (0, "")


def test_get_prints_a_string_bare_and_the_rest_as_json(fan: Fan) -> None:
    fan("config", "set", "text", "5")
    fan("config", "set", "number", "5", "--type", "int")
    fan("config", "set", "object", '{"b": [1], "a": null}', "--type", "json")
    assert fan("config", "get", "text").stdout == "5\n"
    assert fan("config", "get", "object").stdout == '{"a":null,"b":[1]}\n'
    assert told(fan("config", "get", "text", "--json"))["value"] == "5"
    found = told(fan("config", "get", "number", "--json"))
    assert found == {"v": 1, "ok": True, "key": "number", "value": 5, "rev": 2, "gen": 3}


def test_get_has_a_default_and_looks_back(fan: Fan) -> None:
    assert fan("config", "get", "k", "--default", "light")[:2] == (0, "light\n")
    fan("config", "set", "k", "one")
    fan("config", "set", "k", "two")
    assert fan("config", "get", "k", "--default", "light").stdout == "two\n"
    assert fan("config", "get", "k", "--rev", "1").stdout == "one\n"
    assert fan("config", "get", "k", "--gen", "1").stdout == "one\n"
    assert fan("config", "get", "k", "--gen", "0").exit == 3
    assert fan("config", "get", "k", "--gen", "9").exit == 3
    assert fan("config", "get", "k", "--rev", "9").exit == 3


@BOTH
def test_an_equal_value_changes_nothing(fan: Fan) -> None:
    first = told(fan("config", "set", "k", "dark", "--json"))
    again = told(fan("config", "set", "k", "dark", "--json"))
    assert (first["changed"], first["gen"]) == (True, 1)
    assert (again["changed"], again["gen"]) == (False, 1)
    assert len(fan("config", "history", "k").stdout.splitlines()) == 1


def test_a_write_prints_nothing_on_stdout_and_its_op_on_stderr(fan: Fan) -> None:
    fan("config", "set", "other", "1")
    ran = fan("config", "set", "k", "v")
    assert (ran.exit, ran.stdout) == (0, "")
    op = ran.stderr.splitlines()[0].removeprefix("op ")
    epoch, gen, id = op.split(":")
    assert epoch
    assert gen == "1"
    assert id
    assert fan("config", "set", "k", "v", "-q").stderr == ""


@BOTH
def test_of_twenty_racing_writers_with_if_rev_one_is_0_and_nineteen_are_10(fan: Fan) -> None:
    fan("config", "set", "k", "start")

    def race(number: int) -> int:
        line = [*PROGRAM, "config", "set", "k", f"v{number}", "--if-rev", "1", "--timeout", "40s"]
        done = subprocess.run(
            line, env=variables(), stdin=subprocess.DEVNULL, capture_output=True, timeout=50,
            check=False,
        )  # fmt: skip
        return done.returncode

    with ThreadPoolExecutor(20) as pool:
        exits = sorted(pool.map(race, range(20)))
    assert exits == [0] + [10] * 19
    assert told(fan("config", "get", "k", "--json"))["gen"] == 2


@pytest.mark.parametrize("key", ["a/b", "50%", "with space", "ключ", "-k", "--json"])
@BOTH
def test_a_key_may_be_any_text(fan: Fan, key: str) -> None:
    assert fan("config", "set", "--", key, "-v").exit == 0
    assert fan("config", "get", "--", key).stdout == "-v\n"
    assert fan("config", "list", "--format", "name").stdout == f"{key}\n"


@pytest.mark.parametrize(
    "args",
    [
        ("get", ""),
        ("get", "a/"),
        ("set", "a/", "x"),
        ("set", "k"),
        ("set", "k", "x", "--type", "int"),
        ("set", "k", "nan", "--type", "float"),
        ("set", "k", "yes", "--type", "bool"),
        ("set", "k", "{", "--type", "json"),
        ("set", "k", "@/does/not/exist"),
        ("set", "k", "x", "--if-rev", "-1"),
        ("set", "k", "x", "--create", "--if-rev", "1"),
        ("set", "k", "x", "--op", "nonsense"),
        ("set", "k", "x", "--schema", "{"),
        ("patch", "k", "--merge", "{"),
        ("get", "k", "--rev", "1", "--gen", "1"),
        ("get", "k", "--rev", "0"),
        ("watch",),
        ("watch", "k", "--since", "nonsense"),
        ("watch", "k", "--since", "a:1", "--cursor-file", "f"),
        ("watch", "k", "--render", "template"),
        ("watch", "k", "--cursor-file", "/does/not/exist/cursor"),
        ("apply", "-f", "/does/not/exist"),
        ("frobnicate",),
    ],
)
def test_a_mistake_on_the_command_line_is_2_and_changes_nothing(
    fan: Fan, args: tuple[str, ...]
) -> None:
    ran = fan("config", *args)
    assert (ran.exit, ran.stdout) == (2, ""), ran
    assert fan("config", "list").stdout == ""


def test_a_revision_that_never_was_is_told_by_the_name_that_was_given(fan: Fan) -> None:
    fan("config", "set", "orders/theme", "dark")
    ran = fan("config", "get", "orders/theme", "--rev", "99")
    assert (ran.exit, ran.stdout) == (3, "")
    assert "config orders/theme has no revision 99" in ran.stderr


def test_values_come_from_files_and_from_stdin_only_when_asked_for(
    fan: Fan, private: Path
) -> None:
    (private / "pem").write_text("-----\nline\n")
    fan("config", "set", "pem", f"@{private}/pem")
    assert fan("config", "get", "pem", "--raw").stdout == "-----\nline\n"
    fan("config", "set", "k", "-", stdin=b"from stdin")
    assert fan("config", "get", "k").stdout == "from stdin\n"
    fan("config", "set", "k", "given", stdin=b"unasked")
    assert fan("config", "get", "k").stdout == "given\n"
    assert fan("config", "set", "k", "-", stdin=b"\xff").exit == 2


def test_the_type_is_the_one_of_the_schema(fan: Fan) -> None:
    schema = '{"type":["integer","null"],"minimum":1}'
    assert fan("config", "set", "port", "80", "--schema", schema).exit == 0
    assert told(fan("config", "get", "port", "--json"))["value"] == 80
    fan("config", "set", "port", "null")
    assert told(fan("config", "get", "port", "--json"))["value"] is None
    fan("config", "set", "name", "5", "--schema", '{"type":"string"}')
    assert told(fan("config", "get", "name", "--json"))["value"] == "5"
    kept = fan("config", "get", "port", "--schema").stdout
    assert kept == '{"minimum":1,"type":["integer","null"]}\n'
    assert fan("config", "set", "port", "x", "--schema", "none").exit == 0
    assert fan("config", "get", "port", "--schema").exit == 3


def test_an_invalid_value_is_4_and_names_the_path(fan: Fan) -> None:
    schema = '{"properties":{"db":{"properties":{"port":{"type":"integer"}}}}}'
    fan("config", "set", "k", "{}", "--type", "json", "--schema", schema)
    ran = fan("config", "set", "k", '{"db":{"port":"x"}}')
    assert (ran.exit, ran.stdout) == (4, "")
    assert "config k: $.db.port: it must be of type integer" in ran.stderr
    found = envelope(fan("config", "set", "k", '{"db":{"port":"x"}}', "--json"))
    assert found["error"]["exit"] == 4
    assert found["error"]["details"]["path"] == "$.db.port"
    assert fan("config", "get", "k").stdout == "{}\n"


def test_a_patch_changes_the_members_that_it_names(fan: Fan) -> None:
    fan("config", "set", "k", '{"max":5,"min":1}', "--type", "json")
    assert told(fan("config", "patch", "k", "--merge", '{"max":7,"min":null}', "--json"))["changed"]
    assert fan("config", "get", "k").stdout == '{"max":7}\n'
    assert not told(fan("config", "patch", "k", "--merge", "{}", "--json"))["changed"]
    assert fan("config", "patch", "none", "--merge", "{}").exit == 3


def test_delete_rollback_and_history(fan: Fan) -> None:
    fan("config", "set", "k", "one", "-m", "first")
    fan("config", "set", "k", "two")
    fan("config", "delete", "k", "-y")
    assert fan("config", "get", "k").exit == 3
    assert not told(fan("config", "delete", "k", "--json"))["changed"]
    assert fan("config", "delete", "never").exit == 3
    assert told(fan("config", "rollback", "k", "--json"))["gen"] == 4
    assert fan("config", "get", "k").stdout == "two\n"
    fan("config", "rollback", "k", "--to-rev", "1")
    assert fan("config", "get", "k").stdout == "one\n"
    nothing = fan("config", "rollback", "k")
    assert (nothing.exit, nothing.stdout) == (3, "")
    lines = fan("config", "history", "k", "--json").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["gen"], row["verb"], row["value"]) for row in rows] == [
        (5, "rollback", "one"), (4, "rollback", "two"), (3, "delete", None),
        (2, "set", "two"), (1, "set", "one"),
    ]  # fmt: skip
    assert rows[-1]["message"] == "first"
    assert rows[-1]["who"]
    assert fan("config", "history", "none").exit == 3


def test_diff_shows_what_changed(fan: Fan) -> None:
    fan("config", "set", "k", '{"max":5}', "--type", "json")
    fan("config", "set", "k", '{"max":7}', "--type", "json")
    ran = fan("config", "diff", "k")
    assert ran.exit == 0
    assert ran.stdout.splitlines()[-4:] == [" {", '-  "max": 5', '+  "max": 7', " }"]
    found = told(fan("config", "diff", "k", "1", "2", "--json"))
    assert found["from"] == {"rev": 1, "value": {"max": 5}}
    assert found["to"] == {"rev": 2, "value": {"max": 7}}
    assert fan("config", "diff", "k", "2", "2")[:2] == (0, "")


@BOTH
def test_the_same_op_is_never_applied_twice(fan: Fan) -> None:
    fan("config", "set", "k", "one")
    fan("config", "set", "k", "two")
    op = told(fan("config", "rollback", "k", "--json"))["op"]
    again = told(fan("config", "rollback", "k", "--op", op, "--json"))
    assert (again["gen"], again["op"]) == (3, op)
    assert fan("config", "get", "k").stdout == "one\n"
    assert fan("config", "rollback", "k").exit == 3
    assert fan("config", "set", "k", "other", "--op", op).exit == 10


def test_if_gen_and_create_are_conditions(fan: Fan) -> None:
    assert fan("config", "set", "k", "1", "--create", "--if-gen", "0").exit == 0
    assert fan("config", "set", "k", "2", "--create").exit == 10
    assert fan("config", "set", "k", "2", "--if-gen", "0").exit == 10
    assert fan("config", "set", "k", "2", "--if-gen", "1").exit == 0
    assert fan("config", "delete", "k", "--if-rev", "1").exit == 10
    assert fan("config", "patch", "k", "--merge", "3", "--if-rev", "1").exit == 10


def test_a_dry_run_says_what_would_change_and_changes_nothing(fan: Fan) -> None:
    fan("config", "set", "k", "one")
    ran = fan("config", "set", "k", "two", "--dry-run")
    assert (ran.exit, ran.stdout) == (0, "set k: one -> two\n")
    found = told(fan("config", "set", "k", "two", "--dry-run", "--json"))
    assert (found["changed"], found["gen"], found["op"]) == (True, 1, None)
    assert found["changes"][0]["to"]["value"] == "two"
    assert fan("config", "set", "k", "two", "--dry-run", "--if-rev", "7").exit == 10
    assert fan("config", "get", "k").stdout == "one\n"


def test_secrets_are_masked_in_echoes_and_never_where_they_were_asked_for(fan: Fan) -> None:
    value = '{"user":"ada","password":"hunter2"}'
    dry = fan("config", "set", "db", value, "--type", "json", "--dry-run", "--json").stdout
    assert "hunter2" not in dry
    assert "ada" in dry
    fan("config", "set", "db", value, "--type", "json", "-m", "see http://u:hunter2@host/")
    fan("config", "set", "api_token", "hunter2")
    assert "hunter2" in fan("config", "get", "db").stdout
    assert fan("config", "get", "api_token").stdout == "hunter2\n"
    assert "hunter2" in fan("config", "export").stdout
    for key in ("db", "api_token"):
        assert "hunter2" not in fan("config", "history", key, "--json").stdout
        assert "hunter2" in fan("config", "history", key, "--json", "--show-secrets").stdout


def test_a_list_is_rows_by_key(fan: Fan) -> None:
    fan("config", "set", "b", "2", "--type", "int")
    fan("config", "set", "a/x", "1")
    rows = [line.split("\t")[:3] for line in fan("config", "list").stdout.splitlines()]
    assert rows == [["a/x", "1", "2"], ["b", "2", "1"]]
    assert fan("config", "list", "a/", "--format", "name").stdout == "a/x\n"
    assert fan("config", "list", "zzz")[:2] == (0, "")
    assert json.loads(fan("config", "list", "b", "--json").stdout)["value"] == 2


@BOTH
def test_a_config_of_a_megabyte_is_4_with_a_sentence(fan: Fan, private: Path) -> None:
    (private / "big").write_text("x" * 1_000_000)
    ran = fan("config", "set", "k", f"@{private}/big")
    assert (ran.exit, ran.stdout) == (4, "")
    assert "the registry takes at most 900000" in ran.stderr


def test_a_registry_that_is_busy_for_too_long_is_6(fan: Fan, registry_url: str) -> None:
    fan("config", "set", "k", "v")
    with closing(sqlite3.connect(registry_url.partition(":")[2], isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        ran = fan("config", "set", "k", "w", "--timeout", "300ms")
        assert (ran.exit, ran.stdout) == (6, "")
        other.execute("ROLLBACK")
    assert fan("config", "get", "k").stdout == "v\n"


@pytest.fixture
def editor(private: Path) -> Callable[[str], str]:
    """An $EDITOR that runs Python on `path`."""

    def make(code: str) -> str:
        script = private / "editor.py"
        script.write_text(f"import sys, pathlib\npath = pathlib.Path(sys.argv[1])\n{code}\n")
        return f"{shlex.quote(sys.executable)} {shlex.quote(str(script))}"

    return make


def test_edit_writes_back_what_the_editor_left(fan: Fan, editor: Callable[[str], str]) -> None:
    fan("config", "set", "text", "one\ntwo")
    fan("config", "set", "object", '{"max":5}', "--type", "json")
    change = editor("path.write_text(path.read_text().replace('5', '7').replace('two', '2'))")
    assert told(fan("config", "edit", "object", "--json", EDITOR=change))["changed"]
    assert fan("config", "get", "object").stdout == '{"max":7}\n'
    fan("config", "edit", "text", EDITOR="false", VISUAL=change)
    assert fan("config", "get", "text").stdout == "one\n2\n"
    assert not told(fan("config", "edit", "text", "--json", EDITOR="true"))["changed"]
    # What it draws is no result.
    ran = fan("config", "edit", "text", EDITOR="echo drawn")
    assert (ran.exit, ran.stdout) == (0, "")
    assert "drawn" in ran.stderr


def test_edit_refuses_what_somebody_else_changed_meanwhile(
    fan: Fan, editor: Callable[[str], str]
) -> None:
    fan("config", "set", "k", "one")
    program = shlex.join(PROGRAM)
    meanwhile = editor(
        f"import os\nos.system({program + ' config set k theirs'!r})\npath.write_text('mine')"
    )
    ran = fan("config", "edit", "k", EDITOR=meanwhile)
    assert (ran.exit, ran.stdout) == (10, "")
    left = Path(ran.stderr.partition("what was edited is in ")[2].split()[0])
    assert left.read_text() == "mine"
    assert fan("config", "get", "k").stdout == "theirs\n"


def test_edit_refuses_what_is_invalid_or_what_the_editor_did_not_finish(
    fan: Fan, editor: Callable[[str], str]
) -> None:
    fan("config", "set", "k", "5", "--schema", '{"type":"integer"}')
    assert fan("config", "edit", "k", EDITOR=editor("path.write_text('\"x\"')")).exit == 4
    assert fan("config", "edit", "k", EDITOR=editor("path.write_text('{')")).exit == 2
    assert fan("config", "edit", "k", EDITOR=editor("sys.exit(1)")).exit == 4
    assert fan("config", "edit", "k", EDITOR="/does/not/exist").exit == 4
    assert fan("config", "edit", "none", EDITOR="true").exit == 3
    assert fan("config", "get", "k").stdout == "5\n"


def test_a_tab_completes_keys_up_to_the_next_slash(fan: Fan) -> None:
    fan("config", "apply", "-f", "-", stdin=b'{"orders/theme":1,"orders/limit":2,"other":3}')

    def tab(line: str) -> list[str]:
        words = {"COMP_LINE": line, "COMP_POINT": str(len(line))}
        return fan(_FAN_COMPLETE="bash_complete", **words).stdout.splitlines()

    assert tab("fan config get o") == ["part\torders/", "plain\tother"]
    assert tab("fan config get orders/") == ["plain\torders/limit", "plain\torders/theme"]
    assert tab("fan config wat") == ["plain\twatch"]


def test_a_policy_that_cannot_be_meant_is_4_and_says_what_may_be_meant(fan: Fan) -> None:
    wrong = fan("config", "set", "orders/policy", '{"retrie": 3}', "--type", "json")
    assert (wrong.exit, wrong.stdout) == (4, "")
    assert "there is no field 'retrie': did you mean 'retries'?" in wrong.stderr
    assert fan("config", "get", "orders/policy").exit == 3
    right = fan("config", "set", "orders/policy", '{"retries": 3}', "--type", "json")
    assert right.exit == 0
