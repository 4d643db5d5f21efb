"""Files of settings: their top-level keys, their profiles, and the profile that is asked for.

Imported where there is a file, or a profile is asked for: most commands find neither.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from typing import Any

import msgspec

from fan.errors import InvalidArgument
from fan.references import without_references
from fan.settings import Given, check_name
from fan.settings_values import bad_setting, did_you_mean

#: Words in a key that a project file may not hold: a checkout is not trusted with them.
_PRIVATE = re.compile(
    r"token|secret|password|credential|authorization|cookie|(^|_)(command|exec|run|shell|key)$"
)


class File(msgspec.Struct, frozen=True):
    """One file of settings: its top-level keys, its profiles, and the profile that it chooses."""

    path: str
    values: dict[str, Given]
    profiles: dict[str, dict[str, Given]]
    profile: Given | None


def read_files(paths: Mapping[str, bool]) -> list[File]:
    """What these files hold (`settings_places.found_files`). Raises InvalidArgument
    (bad_setting)."""
    return [_read_file(path, is_project=is_project) for path, is_project in paths.items()]


def _read_file(path: str, *, is_project: bool) -> File:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        data = tomllib.loads(text)
    except OSError as exc:
        raise bad_setting(f"{path}: {exc.strerror}") from exc
    except ValueError as exc:  # TOMLDecodeError and UnicodeDecodeError; the first names the line
        raise bad_setting(f"{path}: {exc}") from exc
    folder = os.path.dirname(path)

    def given(table: Mapping[str, Any], name: str) -> dict[str, Given]:
        out = {}
        for key, value in table.items():
            origin = f"{path}:{_line_of(text, name, key)}"
            if is_project:
                _check_public(key, value, origin)
            check_name(key, origin)
            out[key] = Given(value, origin, folder)
        return out

    profiles = data.pop("profiles", {})
    if not isinstance(profiles, dict) or not all(isinstance(p, dict) for p in profiles.values()):
        raise bad_setting(
            f"{path}:{_line_of(text, '', 'profiles')}: profiles are tables: [profiles.NAME]"
        )
    chosen = data.pop("profile", None)
    return File(
        path=path,
        values=given(data, ""),
        profiles={name: given(table, f"profiles.{name}") for name, table in profiles.items()},
        profile=chosen and Given(chosen, f"{path}:{_line_of(text, '', 'profile')}", folder),
    )


def _line_of(text: str, table: str, key: str) -> int:
    """Line of a key in a TOML text, which `tomllib` does not tell; 1 where it is not found."""
    current = ""
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line.startswith("["):
            current = re.sub(r"[\s\"']", "", line.strip("[]").partition("]")[0])
            if f"{table}.{key}".lstrip(".") == current:
                return number
        elif current == table and re.match(rf"[\"']?{re.escape(key)}[\"']?\s*[=.]", line):
            return number
    return 1


def asked_profile(name: str, env: Mapping[str, str], files: list[File]) -> tuple[str, str]:
    """The profile that is asked for, and by what: empty for the flag."""
    if name:
        return name, ""
    if env.get("FAN_PROFILE"):
        return env["FAN_PROFILE"], "FAN_PROFILE"
    by_file = next((file.profile for file in files if file.profile), None)
    return (str(by_file.value), by_file.origin) if by_file else ("", "")


def choose_profile(
    name: str, env: Mapping[str, str], files: list[File]
) -> tuple[str, list[dict[str, Given]]]:
    """The profile that was asked for, and its values in each file that has it."""
    asked, where = asked_profile(name, env, files)
    if not asked:
        return "", []
    found = [file.profiles[asked] for file in files if asked in file.profiles]
    if not found:
        known = sorted({profile for file in files for profile in file.profiles})
        said = f"{where}: " if where else ""
        raise InvalidArgument(
            f"{said}there is no profile {asked!r}{did_you_mean(asked, known)}",
            reason="unknown_profile",
        )
    return asked, found


def _check_public(key: str, value: Any, origin: str) -> None:
    """Refuse credentials and commands in a project's file: it comes with a checkout."""
    bare = without_references(value)[0] if isinstance(value, str) else ""
    has_password = bare == value and re.match(r"\w+:(//)?[^/@\s]*:[^/@\s]*@", bare)
    if _PRIVATE.search(key.lower()) or has_password:
        raise bad_setting(
            f"{origin}: a project file may hold no credentials and no commands: {key!r} belongs"
            " in your own config.toml or the environment, and `env:NAME` may stand for it here"
        )
