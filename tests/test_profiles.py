"""Profiles: which there are, which is in force and why, and choosing one in the user's file."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from fan.errors import InvalidArgument
from fan.profiles import Profiles, load_profiles

USER = """\
# my settings
timeout = "2s"

[profiles.staging]
namespace = "staging"
timeout = "9s"

[profiles.production]
namespace = "production"
"""


@pytest.fixture
def user_file(private: Path) -> Path:
    path = private / "xdg" / "fan" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(USER)
    return path


def load(private: Path, profile: str = "", **env: str) -> Profiles:
    variables = {"XDG_CONFIG_HOME": str(private / "xdg"), **env}
    return load_profiles(profile, env=variables, cwd=private, system_file=f"{private}/no.toml")


def test_profiles_come_from_every_file_and_the_stronger_one_wins(
    private: Path, user_file: Path
) -> None:
    project = private / "fan.toml"
    project.write_text('[profiles.staging]\nnamespace = "blue"\n[profiles.ci]\nretries = 0\n')
    known = load(private)
    assert list(known.profiles) == ["ci", "production", "staging"]
    staging = known.find("staging")
    assert staging.values == {"namespace": "blue", "timeout": "9s"}
    assert staging.origins == {"namespace": f"{project}:2", "timeout": f"{user_file}:6"}
    assert set(staging.files) == {str(project), str(user_file)}


def test_the_one_in_force_is_the_flags_then_the_variables_then_a_files(
    private: Path, user_file: Path
) -> None:
    assert (load(private).chosen, load(private).origin) == ("", "")
    user_file.write_text(f'profile = "staging"\n{USER}')
    known = load(private)
    assert (known.chosen, known.origin) == ("staging", f"{user_file}:1")
    known = load(private, FAN_PROFILE="production")
    assert (known.chosen, known.origin) == ("production", "FAN_PROFILE")
    known = load(private, "ci", FAN_PROFILE="production")
    assert (known.chosen, known.origin) == ("ci", "flag")


@pytest.mark.parametrize("before", ["", 'profile = "production"\n', "'profile'='x'  # was\n"])
def test_choosing_one_changes_that_line_alone(private: Path, user_file: Path, before: str) -> None:
    user_file.write_text(before + USER)
    text = load(private).text_using("staging")
    assert text == f'profile = "staging"\n{USER}'
    assert tomllib.loads(text)["profile"] == "staging"
    user_file.write_text(text)
    assert load(private).text_using("") == USER


def test_a_line_of_a_table_is_not_mistaken_for_it(private: Path, user_file: Path) -> None:
    user_file.write_text('[profiles.x]\nnamespace = "profile = 1"\n')
    assert load(private).text_using("x").startswith('profile = "x"\n[profiles.x]\n')


def test_one_that_is_not_there_is_said_with_what_is_near(private: Path, user_file: Path) -> None:
    with pytest.raises(InvalidArgument, match="'stagin': did you mean 'staging'"):
        load(private).text_using("stagin")


def test_without_any_file_there_are_none(private: Path) -> None:
    known = load(private)
    assert known.profiles == {}
    assert known.text_using("") == ""
