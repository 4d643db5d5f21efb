"""Where things lie unless somebody says otherwise: the registry, the sockets, files of settings.

Together with `settings` this is all that reads environment variables.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping

from fan.errors import InvalidArgument

SYSTEM_FILE = "/etc/fan/config.toml"
PROJECT_FILE = "fan.toml"

_LINUX = frozenset({"linux"})  # in a set, so that a type checker reads both branches


def default_registry(env: Mapping[str, str]) -> str:
    """The SQLite file in the user's data folder, as a URL."""
    return f"sqlite:{os.path.join(_data_folder(env), 'registry.db')}"


def default_cache_dir(env: Mapping[str, str]) -> str:
    """`$XDG_CACHE_HOME/fan`, or that in the user's home: what may go at any time."""
    cache = env.get("XDG_CACHE_HOME", "")
    return os.path.join(cache if os.path.isabs(cache) else _home(env, ".cache"), "fan")


def default_runtime_dir(env: Mapping[str, str]) -> str:
    """`$XDG_RUNTIME_DIR/fan`, or a folder of the user's own in the temp folder."""
    folder = env.get("XDG_RUNTIME_DIR", "")
    if folder and os.path.isdir(folder):
        return os.path.join(folder, "fan")
    temp = env.get("TMPDIR") or "/tmp"
    if not os.path.isdir(temp):
        import tempfile

        temp = tempfile.gettempdir()
    return os.path.join(temp, f"fan-{os.geteuid()}")


def user_file(env: Mapping[str, str]) -> str:
    """The user's own file of settings, whether it is there or not."""
    config = env.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(config):
        config = _home(env, ".config")
    return os.path.join(config, "fan", "config.toml")


def found_files(env: Mapping[str, str], here: str, system_file: str) -> dict[str, bool]:
    """The files of settings that there are, the strongest first, and whether each is a project's:
    that comes with a checkout."""
    project = _project_file(here)
    others = (path for path in (user_file(env), system_file) if os.path.isfile(path))
    return {**({project: True} if project else {}), **dict.fromkeys(others, False)}


def _project_file(here: str) -> str:
    """The project's own file, empty text for none: `fan.toml` in `here` or above, up to the root of
    the version control. Outside of any only `here` is looked at: a file in `/tmp` is nobody's
    project."""
    folders = [here]
    while not any(
        os.path.exists(os.path.join(folders[-1], vcs)) for vcs in (".git", ".hg", ".svn")
    ):
        above = os.path.dirname(folders[-1])
        if above == folders[-1]:
            folders = [here]
            break
        folders.append(above)
    paths = (os.path.join(folder, PROJECT_FILE) for folder in folders)
    return next((path for path in paths if os.path.isfile(path)), "")


def config_variables() -> Mapping[str, str]:
    """The variables of this process, for those that override a service's configs."""
    return os.environ


def expand(text: str, env: Mapping[str, str] | None = None) -> str:
    """The text with `{VARIABLE}` replaced from the environment; empty where it is not set. Raises
    InvalidArgument (bad_setting) for braces that name none."""
    env = os.environ if env is None else env
    out = re.sub(r"\{([A-Za-z_][A-Za-z0-9_]*)\}", lambda m: env.get(m[1], ""), text)
    if "{" in out or "}" in out:
        raise InvalidArgument(
            f"{text!r} names no environment variable: write {{NAME}}", reason="bad_setting"
        )
    return out


def _data_folder(env: Mapping[str, str]) -> str:
    if sys.platform in _LINUX:  # what platformdirs says there, for a tenth of a command's start
        data = env.get("XDG_DATA_HOME", "")
        return os.path.join(data if os.path.isabs(data) else _home(env, ".local/share"), "fan")
    import platformdirs

    return platformdirs.user_data_dir("fan", appauthor=False)


def _home(env: Mapping[str, str], path: str) -> str:
    return os.path.join(env.get("HOME") or os.path.expanduser("~"), path)
