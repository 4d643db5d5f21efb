"""Settings: the order of the sources, their origins, and what a mistake says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fan.errors import FailedPrecondition, InvalidArgument, PermissionDenied
from fan.settings import Loaded, Settings, load_settings
from fan.settings_values import parse_duration


class World:
    """A home, a project and a system file of one test's own."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.project = root / "project"
        self.system = root / "etc.toml"
        self.env: dict[str, str] = {"HOME": str(self.home), "TMPDIR": str(root)}
        self.inside = self.project / "src" / "deep"
        self.inside.mkdir(parents=True)
        (self.project / ".git").mkdir()
        (self.home / ".config" / "fan").mkdir(parents=True)

    def user_file(self, text: str) -> Path:
        path = self.home / ".config" / "fan" / "config.toml"
        path.write_text(text)
        return path

    def project_file(self, text: str) -> Path:
        path = self.project / "fan.toml"
        path.write_text(text)
        return path

    def load(self, overrides: dict[str, Any] | None = None, profile: str = "") -> Loaded:
        return load_settings(
            overrides, env=self.env, cwd=self.inside, profile=profile, system_file=str(self.system)
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_with_nothing_set_the_registry_is_a_file_in_the_users_data_folder(world: World) -> None:
    loaded = world.load()
    assert loaded.settings.registry == f"sqlite:{world.home}/.local/share/fan/registry.db"
    assert loaded.origins["registry"] == "default"
    assert set(loaded.origins) == set(Settings.__struct_fields__)


def test_the_default_registry_is_where_platformdirs_puts_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import platformdirs

    for data in ("", str(tmp_path / "data")):
        monkeypatch.setenv("XDG_DATA_HOME", data)
        folder = platformdirs.user_data_dir("fan", appauthor=False)
        assert Settings().registry_url == f"sqlite:{folder}/registry.db"


def test_each_source_wins_over_the_next_one(world: World) -> None:
    world.system.write_text("timeout = 1\n")
    assert world.load().settings.timeout == 1.0
    world.user_file("timeout = 2\n")
    assert world.load().settings.timeout == 2.0
    world.project_file("timeout = '3s'\n")
    assert world.load().settings.timeout == 3.0
    world.env["FAN_TIMEOUT"] = "4000ms"
    assert world.load().settings.timeout == 4.0
    assert world.load({"timeout": 5.5}).settings.timeout == 5.5


def test_an_origin_names_the_file_and_the_line(world: World) -> None:
    user = world.user_file("# mine\n\nnamespace = 'dev'\n")
    project = world.project_file("timeout = 3\n")
    world.env["FAN_RETRIES"] = "0"
    origins = world.load({"max_body": 10}).origins
    assert origins["namespace"] == f"{user}:3"
    assert origins["timeout"] == f"{project}:1"
    assert origins["retries"] == "FAN_RETRIES"
    assert origins["max_body"] == "flag"
    assert origins["workers"] == "default"


def test_a_flag_that_was_not_given_says_nothing(world: World) -> None:
    assert world.load({"timeout": None}).origins["timeout"] == "default"


def test_a_project_file_is_found_upward_only_to_the_root_of_the_version_control(
    world: World,
) -> None:
    (world.project.parent / "fan.toml").write_text("timeout = 9\n")
    assert world.load().settings.timeout == 5.0
    world.project_file("timeout = 3\n")
    assert world.load().settings.timeout == 3.0


def test_outside_of_version_control_only_the_current_folder_is_looked_at(world: World) -> None:
    (world.project / ".git").rmdir()
    world.project_file("timeout = 3\n")
    assert world.load().settings.timeout == 5.0
    (world.inside / "fan.toml").write_text("timeout = 4\n")
    assert world.load().settings.timeout == 4.0


def test_a_relative_path_is_relative_to_the_file_that_says_it(world: World) -> None:
    world.project_file("registry = 'sqlite:data/fan.db'\n")
    assert world.load().settings.registry == f"sqlite:{world.project}/data/fan.db"
    world.env["FAN_REGISTRY"] = "sqlite:here.db"
    assert world.load().settings.registry == f"sqlite:{world.inside}/here.db"


def test_a_profile_wins_over_the_files_and_loses_to_the_environment(world: World) -> None:
    path = world.user_file("timeout = 2\n[profiles.slow]\ntimeout = 60\nnamespace = 'slow'\n")
    world.project_file("timeout = 3\n")
    loaded = world.load(profile="slow")
    assert (loaded.settings.timeout, loaded.settings.namespace) == (60.0, "slow")
    assert loaded.origins["timeout"] == f"{path}:3"
    assert loaded.profile == "slow"
    world.env["FAN_TIMEOUT"] = "4"
    assert world.load(profile="slow").settings.timeout == 4.0


def test_a_file_or_a_variable_may_choose_the_profile(world: World) -> None:
    world.user_file("profile = 'a'\n[profiles.a]\ntimeout = 1\n[profiles.b]\ntimeout = 2\n")
    assert world.load().settings.timeout == 1.0
    world.env["FAN_PROFILE"] = "b"
    assert world.load().settings.timeout == 2.0


def test_an_unknown_profile_names_what_is_close(world: World) -> None:
    world.user_file("[profiles.staging]\ntimeout = 1\n")
    with pytest.raises(InvalidArgument, match="did you mean 'staging'") as caught:
        world.load(profile="stagin")
    assert caught.value.reason == "unknown_profile"


def test_an_unknown_key_is_an_error_with_file_line_and_suggestion(world: World) -> None:
    path = world.user_file("namespace = 'x'\ntimeuot = 3\n")
    with pytest.raises(InvalidArgument) as caught:
        world.load()
    assert f"{path}:2" in str(caught.value)
    assert "did you mean 'timeout'?" in str(caught.value)
    assert caught.value.reason == "bad_setting"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("timeout = = 3", "line 1"),
        ("timeout = 'soon'", ":1: timeout: 'soon' is not a duration"),
        ("timeout = -1", ":1: timeout: -1.0 is below 0"),
        ("\nworkers = 'many'", ":2: workers: Expected `int`"),
        ("namespace = 'a b'", "is not a name"),
        ("registry = 'mysql:x'", "no store for the registry"),
        ("registry = 'sqlite:'", "names no file"),
        ("registry = 'zk:host'", "names no host"),
        ("registry = 'nothing'", "is not a registry"),
        ("[profiles]\nx = 3", ":1: profiles are tables"),
    ],
)
def test_a_bad_value_is_one_sentence_with_its_place(world: World, text: str, says: str) -> None:
    path = world.user_file(text)
    with pytest.raises(InvalidArgument) as caught:
        world.load()
    assert says in str(caught.value)
    if "no store" not in says:
        assert str(path) in str(caught.value)


def test_a_bad_variable_is_named(world: World) -> None:
    world.env["FAN_STRICT_LOCAL"] = "perhaps"
    with pytest.raises(InvalidArgument, match="FAN_STRICT_LOCAL: strict_local: 'perhaps'"):
        world.load()


@pytest.mark.parametrize(
    "line",
    [
        "api_token = 'x'",
        "exec = 'rm'",
        "registry = 'zk://me:secret@host/fan'",
        "[profiles.p]\npassword = 'x'",
    ],
)
def test_a_project_file_may_hold_no_credentials_and_no_commands(world: World, line: str) -> None:
    world.project_file(line)
    with pytest.raises(InvalidArgument, match="no credentials and no commands"):
        world.load()


def test_the_users_own_file_may_hold_a_password(world: World) -> None:
    world.user_file("registry = 'zk://me:secret@host/fan'")
    assert world.load().settings.registry == "zk://me:secret@host/fan"


def test_values_of_the_environment_become_the_fields_types(world: World) -> None:
    world.env |= {
        "FAN_TRANSPORTS": "http, ipc",
        "FAN_STRICT_LOCAL": "yes",
        "FAN_WORKERS": "4",
        "FAN_RETRY_BUDGET": "0.5",
        "FAN_BREAKER_RESET": "2m",
    }
    settings = world.load().settings
    assert settings.transports == ("http", "ipc")
    assert settings.strict_local is True
    assert (settings.workers, settings.retry_budget, settings.breaker_reset) == (4, 0.5, 120.0)


@pytest.mark.parametrize(
    ("text", "seconds"), [("300ms", 0.3), ("5s", 5), ("2m", 120), ("1h", 3600), (".5", 0.5)]
)
def test_a_duration_has_a_unit_or_is_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5 s", "-1", "nan", "1d", "1e3"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_the_runtime_folder_is_made_for_its_user_alone(tmp_path: Path) -> None:
    folder = Settings(runtime_dir=str(tmp_path / "run" / "fan")).runtime_folder()
    assert os.stat(folder).st_mode & 0o777 == 0o700


def test_a_runtime_folder_that_others_may_use_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    for path in (shared, link):
        with pytest.raises(PermissionDenied, match="mode 0700"):
            Settings(runtime_dir=str(path)).runtime_folder()


def test_a_runtime_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedPrecondition, match="cannot be used"):
        Settings(runtime_dir=str(tmp_path / "file" / "fan")).runtime_folder()


def test_the_runtime_folder_follows_xdg(world: World, tmp_path: Path) -> None:
    assert world.load().settings.runtime_dir == str(tmp_path / f"fan-{os.geteuid()}")
    world.env["XDG_RUNTIME_DIR"] = str(tmp_path)
    assert world.load().settings.runtime_dir == str(tmp_path / "fan")


def test_no_parser_is_loaded_without_a_file(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = "import sys, fan.settings; fan.settings.load_settings(); print('tomllib' in sys.modules)"
    env = {"HOME": str(tmp_path), "PYTHONPATH": os.getcwd(), "PATH": os.environ["PATH"]}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "False\n"
