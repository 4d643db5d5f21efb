"""Places in a JSON value as they are typed: `a.b[0]`, `.a["b c"]`, `/a/b/0`; and where two values
differ."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from fancli.params import Usage

Step = str | int

_STEP = re.compile(
    r"""
    \.?(?P<name>[^.\[\]"'/\s][^.\[\]]*)
    | \.?\[(?P<index>-?\d+)\]
    | \.?\[(?P<quote>["'])(?P<key>.*?)(?P=quote)\]
    """,
    re.VERBOSE,
)


class Missing(Exception):
    """There is nothing at the place."""


class Difference(NamedTuple):
    """One place where two values differ; one of them may be `msgspec.UNSET`: it has none there."""

    path: str
    left: Any
    right: Any

    def as_json(self, left: str, right: str) -> dict[str, Any]:
        """An object with the two values under these names; a value that is not there is left
        out."""
        pairs = ((left, self.left), (right, self.right))
        there = {name: value for name, value in pairs if value is not msgspec.UNSET}
        return {"path": self.path, **there}


def parse_path(text: str) -> tuple[Step, ...]:
    """The steps of a path. Raises Usage."""
    if text.startswith("/"):
        parts = text[1:].split("/") if text != "/" else []
        return tuple(part.replace("~1", "/").replace("~0", "~") for part in parts)
    steps: list[Step] = []
    rest = text.strip().removeprefix("$")
    if rest in ("", "."):
        return ()
    while rest:
        match = _STEP.match(rest)
        if not match:
            raise Usage(f"--get {text!r} is no path", "a.b[0], ['a b'], /a/b/0")
        index = match["index"]
        steps.append(int(index) if index is not None else match["name"] or match["key"])
        rest = rest[match.end() :]
    return tuple(steps)


def part_of(value: Any, steps: tuple[Step, ...]) -> Any:
    """What stands at a place. Raises Missing."""
    for step in steps:
        try:
            if isinstance(value, list):
                value = value[int(step)]
            elif isinstance(value, dict):
                value = value[str(step)]
            else:
                raise Missing
        except (KeyError, IndexError, ValueError):
            raise Missing from None
    return value


def differences(left: Any, right: Any, path: str = "") -> Iterator[Difference]:
    """Every place where two JSON values differ, the outermost only."""
    if isinstance(left, dict) and isinstance(right, dict):
        for key in dict.fromkeys((*left, *right)):
            one, other = left.get(key, msgspec.UNSET), right.get(key, msgspec.UNSET)
            yield from differences(one, other, f"{path}.{key}" if path else str(key))
    elif isinstance(left, list) and isinstance(right, list):
        for index in range(max(len(left), len(right))):
            one = left[index] if index < len(left) else msgspec.UNSET
            other = right[index] if index < len(right) else msgspec.UNSET
            yield from differences(one, other, f"{path}[{index}]")
    elif not same(left, right):
        yield Difference(path or ".", left, right)


def same(left: Any, right: Any) -> bool:
    """Whether two JSON values without members are the same: 1 is 1.0, and not true."""
    return isinstance(left, bool) is isinstance(right, bool) and bool(left == right)
