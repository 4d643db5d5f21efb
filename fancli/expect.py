"""`expect` of a request file: what the outcome has to be.

A map of nothing but `CONDITIONS` (and places in the result, `result.a[0]`) says what each has to
be; anything else is the result itself. Of an object only the members that are named count.
"""

from __future__ import annotations

from typing import Any

import msgspec

from fancli.paths import Difference, Missing, differences, parse_path, part_of, same
from fancli.payload import Text

#: What may be said of an outcome: members of its object, and of its error.
CONDITIONS = ("result", "ok", "code", "reason", "type", "message", "executed", "exit", "version",
              "transport", "instance", "headers", "items")  # fmt: skip


def wants_failure(expect: Any) -> bool:
    """Whether a failure may be what is expected."""
    if not (isinstance(expect, dict) and _is_conditions(expect)):
        return False
    return not any(name == "items" or name.startswith("result") for name in expect)


def unmet(expect: Any, outcome: dict[str, Any]) -> list[Difference]:
    """What of `outcome`, the object of `--json`, is not as expected: (place, expected, actual)."""
    if not (isinstance(expect, dict) and _is_conditions(expect)):
        expect = {"result": expect}
    found: list[Difference] = []
    for name, wanted in expect.items():
        actual = _actual(name, outcome)
        found += _compare(wanted, actual, name)
    return found


def _is_conditions(expect: dict[str, Any]) -> bool:
    return bool(expect) and all(
        name in CONDITIONS or name.startswith(("result.", "result[")) for name in expect
    )


def _actual(name: str, outcome: dict[str, Any]) -> Any:
    error = outcome.get("error") or {}
    if name == "code":
        return error.get("code", "ok")
    if name == "exit":
        return error.get("exit", 0)
    if name in ("reason", "type", "message", "executed"):
        return error.get(name, "" if name != "executed" else "yes")
    try:
        return part_of(outcome, parse_path(name))
    except Missing:
        return msgspec.UNSET


def _compare(wanted: Any, actual: Any, path: str) -> list[Difference]:
    if isinstance(wanted, Text):
        return [] if _text_fits(wanted, actual) else [Difference(path, _text(wanted), actual)]
    if isinstance(wanted, dict) and isinstance(actual, dict):
        return [
            each
            for key, item in wanted.items()
            for each in _compare(item, actual.get(key, msgspec.UNSET), f"{path}.{key}")
        ]
    if isinstance(wanted, list) and isinstance(actual, list) and len(wanted) == len(actual):
        pairs = enumerate(zip(wanted, actual, strict=True))
        return [each for i, (a, b) in pairs for each in _compare(a, b, f"{path}[{i}]")]
    if isinstance(wanted, (dict, list)):
        return list(differences(_plain(wanted), actual, path))
    return [] if same(wanted, actual) else [Difference(path, wanted, actual)]


def told(difference: Difference) -> str:
    """`result: "Hi Ada", expected "Hello Ada"`."""
    wanted, actual = _shown(difference.left), _shown(difference.right)
    return f"{difference.path}: {actual}, expected {wanted}"


def _shown(value: Any) -> str:
    if value is msgspec.UNSET:
        return "nothing"
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 200 else f"{text[:197]}..."


def _plain(value: Any) -> Any:
    if isinstance(value, Text):
        return _text(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _text(text: Text) -> str:
    return text.data.decode("utf-8", "replace") if isinstance(text.data, bytes) else text.data


def _text_fits(wanted: Text, actual: Any) -> bool:
    """Whether a text of which nobody said what type it is means the value."""
    text = _text(wanted)
    if isinstance(actual, str):
        return text == actual
    try:
        return same(msgspec.json.decode(text), actual)
    except msgspec.DecodeError:
        return False
