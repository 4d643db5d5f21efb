"""Profiles: named sets of settings in the files, and which of them is in force."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from fan.errors import InvalidArgument
from fan.settings_files import asked_profile, read_files
from fan.settings_places import SYSTEM_FILE, found_files, user_file
from fan.settings_values import did_you_mean

#: `profile = ...` as a line of its own.
_LINE = re.compile(r"[ \t]*(?:profile|\"profile\"|'profile')[ \t]*=[^\n]*\n?", re.MULTILINE)


class Profile(msgspec.Struct, frozen=True):
    """One profile: the value of each setting as the files have it, and its `FILE:LINE`."""

    name: str
    values: dict[str, Any]
    origins: dict[str, str]

    @property
    def files(self) -> list[str]:
        """The files that have a part of it, the strongest first."""
        return list(dict.fromkeys(origin.rpartition(":")[0] for origin in self.origins.values()))


class Profiles(msgspec.Struct, frozen=True):
    """Every profile by name. `chosen` is in force, empty for none, and `origin` says why: `flag`,
    `FAN_PROFILE` or `FILE:LINE`. It may name one that is not there."""

    profiles: dict[str, Profile]
    chosen: str
    origin: str
    #: The user's own file, which may not be there.
    user_file: str

    def find(self, name: str) -> Profile:
        """The profile of that name. Raises InvalidArgument (unknown_profile)."""
        found = self.profiles.get(name)
        if found is None:
            near = did_you_mean(name, self.profiles)
            raise InvalidArgument(f"there is no profile {name!r}{near}", reason="unknown_profile")
        return found

    def text_using(self, name: str) -> str:
        """The user's own file as it would be with `profile = NAME`, or without for an empty name;
        all else in it stays. Raises InvalidArgument (unknown_profile)."""
        if name:
            self.find(name)
        try:
            with open(self.user_file, encoding="utf-8") as file:
                text = file.read()
        except FileNotFoundError:
            text = ""
        # Top-level keys come before the first table.
        table = re.search(r"^[ \t]*\[", text, re.MULTILINE)
        end = table.start() if table else len(text)
        head, rest = text[:end], text[end:]
        line = f"profile = {_quoted(name)}\n" if name else ""
        if _LINE.search(head):
            return _LINE.sub(lambda _: line, head, count=1) + rest
        return line + head + rest


def load_profiles(
    profile: str = "",
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    system_file: str = SYSTEM_FILE,
) -> Profiles:
    """The profiles that are seen from `cwd`; `profile` is the flag. Raises InvalidArgument
    (bad_setting) for a file that cannot be understood."""
    env = os.environ if env is None else env
    here = os.path.abspath(os.fspath(cwd)) if cwd is not None else os.getcwd()
    files = read_files(found_files(env, here, system_file))
    found: dict[str, Profile] = {}
    for file in reversed(files):  # the strongest last
        for name, table in file.profiles.items():
            known = found.get(name, Profile(name, {}, {}))
            found[name] = Profile(
                name,
                {**known.values, **{key: given.value for key, given in table.items()}},
                {**known.origins, **{key: given.origin for key, given in table.items()}},
            )
    chosen, where = asked_profile(profile, env, files)
    origin = where or ("flag" if chosen else "")
    return Profiles(dict(sorted(found.items())), chosen, origin, user_file(env))


def _quoted(name: str) -> str:
    """A name as a string of TOML, whose escapes are those of JSON."""
    return msgspec.json.encode(name).decode()
