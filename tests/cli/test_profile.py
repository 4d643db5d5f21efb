"""`fan profile` and `fan settings`: what is listed and chosen, and secrets that stay secret."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import envelope

if TYPE_CHECKING:
    from tests.cli.conftest import Fan

USER = """\
[profiles.staging]
namespace = "staging"
redis_url = "redis://:hunter2@host/0"
amqp_url = "env:RABBIT_URL"

[profiles.production]
namespace = "production"
"""


@pytest.fixture
def config(isolated: None) -> Path:
    path = Path(os.environ["XDG_CONFIG_HOME"], "fan", "config.toml")
    path.parent.mkdir()
    path.write_text(USER)
    return path


def active(fan: Fan, **vars: str) -> list[str]:
    rows = map(json.loads, fan("profile", "list", "--json", **vars).stdout.splitlines())
    return [row["name"] for row in rows if row["active"]]


def test_profiles_are_listed_with_the_one_in_force(fan: Fan, config: Path) -> None:
    assert fan("profile", "list").stdout.splitlines() == [
        f"production\t\t1\t{config}",
        f"staging\t\t3\t{config}",
    ]
    assert fan("profile", "list", "--format", "name").stdout == "production\nstaging\n"
    assert active(fan) == []
    assert active(fan, FAN_PROFILE="staging") == ["staging"]


def test_one_that_is_used_is_in_force_from_then_on(fan: Fan, config: Path) -> None:
    found = envelope(fan("profile", "use", "staging", "--json"))
    assert (found["ok"], found["changed"], found["profile"]) == (True, True, "staging")
    assert envelope(fan("profile", "use", "staging", "--json"))["changed"] is False
    assert active(fan) == ["staging"]
    rows = map(json.loads, fan("settings", "show", "--json").stdout.splitlines())
    (namespace,) = [row for row in rows if row["name"] == "namespace"]
    assert namespace == {"name": "namespace", "value": "staging", "origin": f"{config}:3"}
    assert fan("profile", "use", "--none") == (0, "", "")
    assert active(fan) == []
    assert config.read_text() == USER


def test_a_file_that_is_made_for_it_is_the_users_alone(
    fan: Fan, private: Path, isolated: None
) -> None:
    project = private / "project"
    project.mkdir()
    (project / "fan.toml").write_text("[profiles.ci]\nretries = 0\n")
    assert fan("profile", "use", "ci", cwd=project).exit == 0
    made = Path(os.environ["XDG_CONFIG_HOME"], "fan", "config.toml")
    assert made.read_text() == 'profile = "ci"\n'
    assert made.stat().st_mode & 0o777 == 0o600


def test_what_wins_over_it_is_said(fan: Fan, config: Path) -> None:
    ran = fan("profile", "use", "staging", FAN_PROFILE="production")
    assert ran.exit == 0
    assert "FAN_PROFILE wins" in ran.stderr


@pytest.mark.parametrize(
    "args",
    [("use", "stagin"), ("use",), ("use", "staging", "--none"), ("show", "stagin"), ("show",)],
    ids=" ".join,
)
def test_a_name_that_is_none_is_exit_2(fan: Fan, config: Path, args: tuple[str, ...]) -> None:
    ran = fan("profile", *args)
    assert (ran.exit, ran.stdout) == (2, "")
    assert config.read_text() == USER


def test_a_profile_is_shown_with_secrets_masked(fan: Fan, config: Path) -> None:
    rows = fan("profile", "show", "staging").stdout.splitlines()
    assert rows == [
        f"namespace\tstaging\t{config}:2",
        f"redis_url\tredis://****@host/0\t{config}:3",
        f"amqp_url\tenv:RABBIT_URL\t{config}:4",
    ]
    assert "hunter2" in fan("profile", "show", "staging", "--show-secrets").stdout


def test_settings_show_a_reference_and_never_what_it_stands_for(fan: Fan, config: Path) -> None:
    vars = {"FAN_PROFILE": "staging", "RABBIT_URL": "amqp://me:hunter3@mq/"}
    ran = fan("settings", "show", **vars)
    assert f"amqp_url\tenv:RABBIT_URL\t{config}:4" in ran.stdout
    assert f"redis_url\tredis://****@host/0\t{config}:3" in ran.stdout
    assert "hunter" not in ran.stdout
    assert "hunter3" not in fan("settings", "show", "--show-secrets", **vars).stdout


def test_a_profile_that_is_none_is_2_and_says_where_they_are(fan: Fan, config: Path) -> None:
    for args in (
        ("profile", "show", "none"),
        ("profile", "use", "none"),
        ("--profile", "none", "discover", "list"),
    ):
        ran = fan(*args)
        assert (ran.exit, ran.stdout) == (2, ""), ran
        assert "fan profile list" in ran.stderr


def test_a_profile_of_the_file_that_is_gone_can_be_replaced(fan: Fan, config: Path) -> None:
    config.write_text(f'profile = "gone"\n{USER}')
    assert fan("settings", "show").exit == 2
    ran = fan("profile", "list")
    assert ran.exit == 0
    assert "there is no profile 'gone'" in ran.stderr
    assert fan("profile", "use", "staging").exit == 0
    assert fan("settings", "show").exit == 0


def test_a_registry_behind_a_reference_is_used(fan: Fan, config: Path, private: Path) -> None:
    secret = private / "url"
    secret.write_text(f"sqlite:{private}/other.db\n")
    config.write_text(f'registry = "file:{secret}"\n')
    assert fan("config", "set", "a/b", "1").exit == 0
    assert (private / "other.db").exists()
    secret.unlink()
    ran = fan("config", "get", "a/b")
    assert (ran.exit, ran.stdout) == (2, "")
    assert str(secret) in ran.stderr


def test_a_registry_and_a_peer_on_the_command_line_may_be_references(
    fan: Fan, private: Path
) -> None:
    secret = private / "url"
    secret.write_text(f"sqlite:{private}/other.db\n")
    given = {"OTHER": f"sqlite:{private}/other.db"}
    assert fan("--registry", "env:OTHER", "config", "set", "a/b", "1", **given).exit == 0
    assert fan("--registry", f"file:{secret}", "config", "get", "a/b").stdout == "1\n"
    ran = fan("--registry", "env:GONE", "config", "get", "a/b")
    assert (ran.exit, ran.stdout) == (2, "")
    assert "env:GONE: the variable GONE is not set" in ran.stderr
    ran = fan("call", "a.b", "-p", "env:PEER", "-v", PEER="redis://me:hunter2@127.0.0.1:1/0")
    assert ran.exit == 6
    assert "redis://****@127.0.0.1:1/0" in ran.stderr
    assert "hunter2" not in ran.stderr
