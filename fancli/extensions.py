"""Commands that other distributions bring, by the entry point `fan.commands`.

They are found by reading `entry_points.txt` of what is installed, for a fiftieth of what importing
`importlib.metadata` costs, and only for a name that is not built in, for the help and for a TAB.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_GROUP = "fan.commands"
_FOLDERS = (".dist-info", ".egg-info")


class Extension(NamedTuple):
    """One command of a plug-in: `target` is `module:attribute` of a click command, `origin` the
    distribution that brings it."""

    name: str
    target: str
    origin: str


def extensions(path: Sequence[str] | None = None) -> list[Extension]:
    """What is installed, by name; of two commands of one name the first on `sys.path` counts."""
    found: dict[str, Extension] = {}
    seen: set[str] = set()
    for folder in sys.path if path is None else path:
        for origin, file in _distributions(folder or "."):
            if origin in seen:  # an older copy, further down
                continue
            seen.add(origin)
            for name, target in _entries(file):
                found.setdefault(name, Extension(name, target, origin))
    return sorted(found.values())


def find(name: str) -> Extension | None:
    """The command of that name, None where nobody brings it."""
    return next((each for each in extensions() if each.name == name), None)


def _distributions(folder: str) -> Iterator[tuple[str, str]]:
    """Name and entry points file of every distribution in a folder."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:  # not there, or an archive
        return
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix in _FOLDERS:
            origin = stem.partition("-")[0].replace("_", "-").lower()
            yield origin, os.path.join(folder, name, "entry_points.txt")


def _entries(path: str) -> Iterator[tuple[str, str]]:
    """Name and target of our group's lines; the file is an ini file
    (https://packaging.python.org/specifications/entry-points)."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, ValueError):
        return
    if f"[{_GROUP}]" not in text:
        return
    is_ours = False
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("["):
            is_ours = line == f"[{_GROUP}]"
        elif is_ours and "=" in line and line[0] not in "#;":
            name, _, target = line.partition("=")
            yield name.strip(), target.partition("[")[0].strip()  # without extras
