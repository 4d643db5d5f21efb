"""Versions and version constraints, compared by PEP 440, never as text."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from fan.errors import InvalidArgument


@lru_cache(maxsize=4096)
def parse(text: str) -> Version:
    """A version that sorts. Text that is no version sorts below all that are."""
    try:
        return Version(text)
    except InvalidVersion:
        return Version("0.dev0")


def newest_last(versions: Iterable[str]) -> list[str]:
    """The versions in ascending order, the same everywhere: equal ones (1.0 and 1.0.0) by text."""
    return sorted(versions, key=lambda text: (parse(text), text))


@lru_cache(maxsize=4096)
def matches(version: str, want: str) -> bool:
    """Whether a version satisfies a constraint: `2` and `2.1` are prefixes (any 2.x, any 2.1.x),
    `2.1.0` is also itself, anything with an operator is a PEP 440 specifier. Empty: any. Raises
    InvalidArgument for what is none of these."""
    if not want or version == want:
        return True
    if want[0] in "<>=!~":
        try:
            return SpecifierSet(want).contains(parse(version), prereleases=_names_prerelease(want))
        except InvalidSpecifier:
            raise _no_constraint(want) from None
    try:
        wanted = Version(want)
    except InvalidVersion:
        raise _no_constraint(want) from None
    found = parse(version)
    if found == wanted:
        return True
    if wanted.is_prerelease or wanted.is_postrelease or found.is_prerelease:
        return False
    release = (*found.release, *(0,) * len(wanted.release))[: len(wanted.release)]
    return found.epoch == wanted.epoch and release == wanted.release


def best(want: str, versions: Iterable[str]) -> str | None:
    """The highest of the versions that satisfies `want`, None where none does. A pre-release is
    chosen only where `want` names one."""
    found = [v for v in versions if matches(v, want)]
    final = [v for v in found if not parse(v).is_prerelease]
    pool = final if final or not _names_prerelease(want) else found
    if want in found:
        return want
    return max(pool, key=parse, default=None)


def _names_prerelease(want: str) -> bool:
    return any(mark in want for mark in ("a", "b", "rc", "dev")) if want else False


def _no_constraint(want: str) -> InvalidArgument:
    return InvalidArgument(
        f"{want!r} is no version constraint: 2, 2.1.0, ~=2.1 or >=1,<2", reason="bad_version"
    )
