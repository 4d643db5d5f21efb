"""`fan config apply`, `export`, `import` and `validate`: many configs, all or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import envelope
from tests.configs import BOTH

if TYPE_CHECKING:
    from tests.cli.conftest import Fan

pytestmark = pytest.mark.usefixtures("registry_url")


def test_apply_is_one_generation(fan: Fan, private: Path) -> None:
    (private / "f.json").write_text('{"a": 1, "b/c": "two", "d": {"e": null}}')
    found = envelope(fan("config", "apply", "-f", str(private / "f.json"), "--json"))
    assert (found["changed"], found["gen"]) == (True, 1)
    assert fan("config", "get", "b/c").stdout == "two\n"
    again = envelope(fan("config", "apply", "-f", str(private / "f.json"), "--json"))
    assert (again["changed"], again["gen"]) == (False, 1)


@BOTH
def test_three_keys_of_which_the_third_is_invalid_change_none(fan: Fan) -> None:
    fan("config", "set", "c", "1", "--schema", '{"type":"integer"}')
    ran = fan("config", "apply", "-f", "-", stdin=b'{"a":1,"b":2,"c":"three"}')
    assert (ran.exit, ran.stdout) == (4, "")
    assert "config c: $" in ran.stderr
    assert fan("config", "list", "--format", "name").stdout == "c\n"
    assert fan("config", "get", "c").stdout == "1\n"
    bad_name = fan("config", "apply", "-f", "-", stdin=b'{"a":1,"b":2,"c/":3}')
    assert (bad_name.exit, bad_name.stdout) == (2, "")
    assert fan("config", "list", "--format", "name").stdout == "c\n"


@pytest.mark.parametrize("text", ["", "[1]", "{", '"x"', '{"$schemas":[]}'])
def test_what_is_no_map_is_2(fan: Fan, text: str) -> None:
    assert fan("config", "apply", "-f", "-", stdin=text.encode()).exit == 2


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_what_was_exported_can_be_imported(
    fan: Fan, private: Path, form: tuple[str, ...]
) -> None:
    fan("config", "set", "a/port", "80", "--schema", '{"type":"integer"}')
    fan("config", "set", "a/text", "x\ty\n")
    fan("config", "set", "b", "[1]", "--type", "json")
    kept = fan("config", "export", *form).stdout
    done = fan("config", "import", "-", "-n", "elsewhere", "--json", stdin=kept.encode())
    assert envelope(done)["gen"] == 1
    assert fan("config", "export", "-n", "elsewhere").stdout == fan("config", "export").stdout
    assert fan("config", "set", "a/port", "x", "-n", "elsewhere").exit == 4
    part = json.loads(fan("config", "export", "b").stdout)
    assert part == {"b": [1]}


def test_an_export_may_be_of_a_past_generation(fan: Fan) -> None:
    fan("config", "set", "a", "1")
    fan("config", "set", "a", "2")
    assert json.loads(fan("config", "export", "--gen", "1").stdout) == {"a": "1"}


def test_validate_says_what_does_not_fit(fan: Fan) -> None:
    fan("config", "set", "port", "80", "--schema", '{"type":"integer","minimum":1}')
    assert fan("config", "validate")[:2] == (0, "")
    assert fan("config", "validate", "port").exit == 0
    assert fan("config", "validate", "port", "81").exit == 0
    ran = fan("config", "validate", "port", "0")
    assert (ran.exit, ran.stdout) == (4, "")
    assert '$: it must fit {"minimum":1}' in ran.stderr
    assert fan("config", "validate", "port", "--schema", '{"type":"string"}').exit == 4
    assert fan("config", "validate", "-f", "-", stdin=b'{"port":0,"x":1}').exit == 4
    assert fan("config", "validate", "-f", "-", stdin=b'{"port":5,"x":1}').exit == 0
    assert fan("config", "validate", "none").exit == 3
    found = envelope(fan("config", "validate", "--json"))
    assert (found["valid"], found["keys"]) == (True, ["port"])
