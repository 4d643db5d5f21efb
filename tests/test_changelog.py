"""The changelog and the version agree."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest

import fan

CHANGELOG = Path(__file__).parent.parent / "CHANGELOG.md"
HEADING = re.compile(
    r"^## \[(?P<version>[^\]]+)\](?: - (?P<date>\d{4}-\d{2}-\d{2}))?$", re.MULTILINE
)


def headings() -> list[tuple[str, str | None]]:
    return [(found["version"], found["date"]) for found in HEADING.finditer(CHANGELOG.read_text())]


def test_unreleased_is_on_top() -> None:
    assert headings()[0] == ("Unreleased", None)


def test_the_version_has_an_entry_with_a_date() -> None:
    dated = dict(headings())
    assert fan.__version__ in dated
    assert dated[fan.__version__] is not None


def test_no_newer_version_has_an_entry() -> None:
    assert headings()[1][0] == fan.__version__


def test_the_installed_version_is_the_one_in_the_code() -> None:
    try:
        installed = metadata.version("fan")
    except metadata.PackageNotFoundError:
        pytest.skip("fan is not installed here, only on the path")
    assert installed == fan.__version__
