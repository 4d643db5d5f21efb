"""What a user sets: the registry, the namespace, timeouts, limits; and where each value came from.

Order, the first that says something wins: flags, `FAN_*` variables, the chosen profile, the
project's `fan.toml` (from the current folder upward to the root of the version control), the user's
`$XDG_CONFIG_HOME/fan/config.toml`, `/etc/fan/config.toml`, the default. A file holds fields of
`Settings` as top-level keys, `profile = "NAME"`, and tables `[profiles.NAME]`. This is the only
file that reads environment variables.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from fan.errors import FailedPrecondition, InvalidArgument, PermissionDenied
from fan.message import MAX_BODY
from fan.references import (
    anchored,
    has_reference,
    is_reference,
    resolve_reference,
    without_references,
)

SYSTEM_FILE = "/etc/fan/config.toml"
PROJECT_FILE = "fan.toml"

#: Seconds per unit of a duration.
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ms|s|m|h)?")
_LINUX = frozenset({"linux"})  # in a set, so that a type checker reads both branches
_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How fan behaves in one App. Times are seconds, sizes bytes."""

    #: `sqlite:PATH`, `memory:` or `zk://h1,h2/chroot`; by default a file in the user's data folder.
    registry: str = msgspec.field(default_factory=lambda: default_registry(os.environ))
    #: A registry holds many namespaces; they do not see each other.
    namespace: str = "default"
    #: A call's whole budget where nobody says otherwise.
    timeout: float = 5.0
    #: Folder of the sockets, 0700; by default `$XDG_RUNTIME_DIR/fan` or `$TMPDIR/fan-UID`.
    runtime_dir: str = msgspec.field(default_factory=lambda: default_runtime_dir(os.environ))
    #: Preference between the addresses of an instance; what is not named comes last.
    transports: tuple[str, ...] = ("local", "ipc", "http", "amqp", "redis")
    #: Where events go, and pushes to a service that has no queue of its own: database, redis, amqp.
    queue: str = "database"
    #: RabbitMQ: `amqp://user:password@host:port/vhost`, `amqps://` over TLS.
    amqp_url: str = "amqp://localhost/"
    #: Redis: `redis://:password@host:port/0`, `rediss://` over TLS.
    redis_url: str = "redis://localhost/0"
    #: Queues without a server: `sqlite:PATH`; by default a file beside the registry's.
    database_url: str = ""
    #: What one delivery of a queued push or event may take, unless its method says.
    push_timeout: float = 60.0
    #: How often a push or event is given to a worker before it is a dead letter.
    deliveries: int = 5
    #: How long a message stays with a worker that shows no sign of life.
    lease: float = 30.0
    #: Largest arguments or result that is accepted.
    max_body: int = MAX_BODY
    #: Whether a traceback of a failed handler crosses the wire, in `details`.
    allow_tracebacks: bool = False
    #: Whether local calls copy arguments and results as remote ones do: tests then see mutation.
    strict_local: bool = False
    #: Attempts after the first.
    retries: int = 2
    #: Wait before the first retry, doubled each time, with jitter.
    retry_delay: float = 0.02
    #: Longest wait between two attempts.
    retry_max_delay: float = 1.0
    #: Retries as a share of calls: above it a failure is not retried.
    retry_budget: float = 0.2
    #: Failures in a row of one method of one instance that open its breaker; 0 turns breakers off.
    breaker_failures: int = 5
    #: Time until an open breaker lets one probe through.
    breaker_reset: float = 10.0
    #: Calls in flight to one service that a caller allows; 0 is no limit.
    bulkhead_calls: int = 0
    #: Requests of one service that a server runs at once; more are refused; 0 is no limit.
    bulkhead_requests: int = 256
    #: Threads for plain handlers.
    workers: int = 32
    #: How long the reply of an idempotency key is kept; 0 turns de-duplication off.
    dedupe_window: float = 300.0
    #: Replies that are kept at most.
    dedupe_entries: int = 10_000
    #: `Host` values that the http server answers to besides loopback and where it listens.
    http_hosts: tuple[str, ...] = ()
    #: Whether calls and requests are counted and timed (`app.metrics`).
    metrics: bool = True
    #: Whether spans are recorded, where there is a tracer.
    tracing: bool = True
    #: What records spans: noop, opentracing, or a plug-in.
    tracer: str = "noop"
    #: Share of the traces begun here whose spans are recorded.
    sample: float = 1.0
    #: Whether every request leaves a line in the log `fan.access`, at level INFO.
    access_log: bool = False
    #: How long a stop waits for calls in flight.
    drain_timeout: float = 30.0
    #: What an App does that lost its registration and refuses what is registered now: go on with
    #: the last good state (stale), or fail what uses it (fail).
    on_loss: Literal["stale", "fail"] = "stale"
    #: Oldest local snapshot that answers while the registry is down.
    max_stale: float = 3600.0

    @property
    def registry_url(self) -> str:
        """The registry in force, credentials and all: empty text means the default, here as in the
        file. Raises InvalidArgument (bad_setting) for a reference that leads nowhere."""
        return resolve_reference(self.registry or default_registry(os.environ), os.environ)

    def resolving(self) -> Any:
        """These settings for who connects with them: a credential that is a reference (`env:NAME`,
        `file:PATH`) is replaced when its setting is read, which then may raise InvalidArgument
        (bad_setting)."""
        values = (getattr(self, name) for name in _URLS)
        return _Resolving(self) if any(has_reference(value) for value in values) else self

    @property
    def queue_database(self) -> str:
        """The database of the queues in force: the one that is set, else `queues.db` beside the
        registry's file, or in the user's data folder where the registry is no file."""
        if self.database_url:
            return self.database_url
        url = self.registry_url
        if not url.startswith("sqlite:"):
            url = default_registry(os.environ)
        return f"{url.rpartition('/')[0]}/queues.db"

    def runtime_folder(self) -> str:
        """The folder of the sockets, created if need be. Raises PermissionDenied for one that
        others may use: whoever can write there can answer our calls."""
        path = self.runtime_dir or default_runtime_dir(os.environ)
        try:
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
            found = os.lstat(path)
        except OSError as exc:
            raise FailedPrecondition(
                f"the runtime folder {path} cannot be used: {exc.strerror}",
                reason="bad_runtime_dir",
            ) from exc
        is_folder = (found.st_mode & 0o170000) == 0o040000
        if not is_folder or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise PermissionDenied(
                f"the runtime folder {path} must be a folder of your own with mode 0700:"
                " set FAN_RUNTIME_DIR to one",
                reason="bad_runtime_dir",
            )
        return path


class Loaded(msgspec.Struct, frozen=True):
    """Settings, and the origin of each field: `flag`, `FAN_TIMEOUT`, `/etc/fan/config.toml:3`,
    `default`."""

    settings: Settings
    origins: dict[str, str]
    profile: str = ""
    #: The files that were read, the strongest first.
    files: tuple[str, ...] = ()


class _Resolving:
    """Settings whose references are resolved when they are read."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._settings, name)
        if name in _URLS:
            value = resolve_reference(value, os.environ)
        self.__dict__[name] = value  # from now on it is found without this
        return value


class Given(msgspec.Struct, frozen=True):
    """A value as a source gives it. Relative paths in it are relative to `folder`."""

    value: Any
    origin: str
    folder: str


class File(msgspec.Struct, frozen=True):
    """One file of settings: its top-level keys, its profiles, and the profile that it chooses."""

    path: str
    values: dict[str, Given]
    profiles: dict[str, dict[str, Given]]
    profile: Given | None


_TYPES: dict[str, Any] = {f.name: f.type for f in msgspec.structs.fields(Settings)}
#: Fields that take a duration.
_SECONDS = {name for name, kind in _TYPES.items() if kind is float} - {"retry_budget", "sample"}
#: Fields that may hold credentials.
_URLS = ("registry", "amqp_url", "redis_url", "database_url")
#: Fields that 0 makes no sense for.
_POSITIVE = {
    "timeout", "workers", "max_body", "push_timeout", "deliveries", "lease",
}  # fmt: skip
#: Words in a key that a project file may not hold: a checkout is not trusted with them.
_PRIVATE = re.compile(
    r"token|secret|password|credential|authorization|cookie|(^|_)(command|exec|run|shell|key)$"
)


def load_settings(
    overrides: Mapping[str, Any] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    profile: str = "",
    system_file: str = SYSTEM_FILE,
) -> Loaded:
    """Settings of this process as seen from `cwd`; `overrides` are flags (None: not given).

    Raises InvalidArgument (reason `bad_setting`, `unknown_profile` or `unknown_scheme`), naming
    file and line, for what cannot be understood.
    """
    env = os.environ if env is None else env
    here = os.path.abspath(os.fspath(cwd)) if cwd is not None else os.getcwd()
    files = read_files(env, here, system_file)
    flags = {
        name: Given(value, "flag", here)
        for name, value in (overrides or {}).items()
        if value is not None
    }
    for name in flags:
        _check_name(name, "flag")
    variables = {
        name: Given(env[key], key, here)
        for name in _TYPES
        if env.get(key := f"FAN_{name.upper()}")
    }
    chosen, profiles = _choose_profile(profile, env, files)
    layers = [flags, variables, *profiles, *(file.values for file in files)]
    values: dict[str, Any] = {
        "registry": default_registry(env),
        "runtime_dir": default_runtime_dir(env),
    }
    origins = dict.fromkeys(_TYPES, "default")
    for layer in reversed(layers):
        for name, given in layer.items():
            values[name] = _convert(name, given)
            origins[name] = given.origin
    return Loaded(Settings(**values), origins, chosen, tuple(file.path for file in files))


def parse_duration(text: str) -> float:
    """Seconds of `300ms`, `5s`, `2m`, `1h` or a bare number of seconds. Raises ValueError."""
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a duration: 300ms, 5s, 2m, 1h, or a number of seconds")
    return float(match[1]) * UNITS[match[2] or "s"]


def default_registry(env: Mapping[str, str]) -> str:
    """The SQLite file in the user's data folder, as a URL."""
    return f"sqlite:{os.path.join(_data_folder(env), 'registry.db')}"


def expand(text: str, env: Mapping[str, str] | None = None) -> str:
    """The text with `{VARIABLE}` replaced from the environment; empty where it is not set. Raises
    InvalidArgument (bad_setting) for braces that name none."""
    env = os.environ if env is None else env
    out = re.sub(r"\{([A-Za-z_][A-Za-z0-9_]*)\}", lambda m: env.get(m[1], ""), text)
    if "{" in out or "}" in out:
        raise _bad(f"{text!r} names no environment variable: write {{NAME}}")
    return out


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


def config_variables() -> Mapping[str, str]:
    """The variables of this process, for those that override a service's configs."""
    return os.environ


def _data_folder(env: Mapping[str, str]) -> str:
    if sys.platform in _LINUX:  # what platformdirs says there, for a tenth of a command's start
        data = env.get("XDG_DATA_HOME", "")
        return os.path.join(data if os.path.isabs(data) else _home(env, ".local/share"), "fan")
    import platformdirs

    return platformdirs.user_data_dir("fan", appauthor=False)


def _home(env: Mapping[str, str], path: str) -> str:
    return os.path.join(env.get("HOME") or os.path.expanduser("~"), path)


def user_file(env: Mapping[str, str]) -> str:
    """The user's own file of settings, whether it is there or not."""
    config = env.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(config):
        config = _home(env, ".config")
    return os.path.join(config, "fan", "config.toml")


def read_files(env: Mapping[str, str], here: str, system_file: str) -> list[File]:
    """The files that exist, the strongest first. Raises InvalidArgument (bad_setting)."""
    project = _find_project_file(here)
    found = [_read_file(project, is_project=True)] if project else []
    others = (user_file(env), system_file)
    return found + [_read_file(path, is_project=False) for path in others if os.path.isfile(path)]


def _find_project_file(here: str) -> str:
    """`fan.toml` in `here` or above, up to the root of the version control. Outside of any only
    `here` is looked at: a file in `/tmp` is nobody's project."""
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


def _read_file(path: str, *, is_project: bool) -> File:
    import tomllib

    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        data = tomllib.loads(text)
    except OSError as exc:
        raise _bad(f"{path}: {exc.strerror}") from exc
    except ValueError as exc:  # TOMLDecodeError and UnicodeDecodeError; the first names the line
        raise _bad(f"{path}: {exc}") from exc
    folder = os.path.dirname(path)

    def given(table: Mapping[str, Any], name: str) -> dict[str, Given]:
        out = {}
        for key, value in table.items():
            origin = f"{path}:{_line_of(text, name, key)}"
            if is_project:
                _check_public(key, value, origin)
            _check_name(key, origin)
            out[key] = Given(value, origin, folder)
        return out

    profiles = data.pop("profiles", {})
    if not isinstance(profiles, dict) or not all(isinstance(p, dict) for p in profiles.values()):
        raise _bad(f"{path}:{_line_of(text, '', 'profiles')}: profiles are tables: [profiles.NAME]")
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


def _choose_profile(
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


def _check_name(name: str, origin: str) -> None:
    if name not in _TYPES:
        raise _bad(f"{origin}: there is no setting {name!r}{did_you_mean(name, _TYPES)}")


def _check_public(key: str, value: Any, origin: str) -> None:
    """Refuse credentials and commands in a project's file: it comes with a checkout."""
    bare = without_references(value)[0] if isinstance(value, str) else ""
    has_password = bare == value and re.match(r"\w+:(//)?[^/@\s]*:[^/@\s]*@", bare)
    if _PRIVATE.search(key.lower()) or has_password:
        raise _bad(
            f"{origin}: a project file may hold no credentials and no commands: {key!r} belongs"
            " in your own config.toml or the environment, and `env:NAME` may stand for it here"
        )


def convert_setting(name: str, value: Any, folder: str = "") -> Any:
    """A value as the field of that name has it: `300ms` is 0.3 seconds, `a, b` a tuple. Raises
    ValueError for what it cannot be."""
    if isinstance(value, str):
        if name in _SECONDS:
            value = parse_duration(value)
        elif _TYPES[name] is not str and "tuple" in str(_TYPES[name]):
            value = tuple(part.strip() for part in value.split(",") if part.strip())
        elif _TYPES[name] is bool:
            value = _parse_bool(value)
    value = msgspec.convert(value, _TYPES[name], strict=not isinstance(value, str))
    return _checked(name, value, folder)  # msgspec.ValidationError is a ValueError


def _convert(name: str, given: Given) -> Any:
    """The same of a layer's value. Raises InvalidArgument with its origin."""
    try:
        return convert_setting(name, given.value, given.folder)
    except ValueError as exc:
        raise _bad(f"{given.origin}: {name}: {exc}") from exc


def _parse_bool(text: str) -> bool:
    word = text.strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def _checked(name: str, value: Any, folder: str) -> Any:
    """The value with its path made absolute. Raises ValueError for one out of range."""
    if name in _URLS:
        value = anchored(value, folder)
        if is_reference(value):
            return value  # what it stands for is checked when it is used
    if name == "registry":
        return normal_registry(value, folder)
    if name == "runtime_dir":
        return os.path.abspath(os.path.join(folder, os.path.expanduser(value))) if value else value
    if name == "database_url" and value.startswith("sqlite:"):
        return normal_registry(value, folder)
    if name == "namespace" and not _NAMESPACE.fullmatch(value):
        raise ValueError(f"{value!r} is not a name of letters, digits, '.', '_' and '-'")
    if isinstance(value, int | float) and not isinstance(value, bool) and value < 0:
        raise ValueError(f"{value} is below 0")
    if name in _POSITIVE and not value:
        raise ValueError("must be above 0")
    return value


def normal_registry(url: str, folder: str = "") -> str:
    """A registry URL with its path made absolute. Raises InvalidArgument (unknown_scheme) for a
    scheme without a store, ValueError for a URL that is incomplete."""
    scheme, colon, rest = url.partition(":")
    if not colon:
        raise ValueError(
            f"{url!r} is not a registry: sqlite:PATH, memory: or zk://HOST[,HOST]/CHROOT"
        )
    if scheme == "sqlite":
        path = os.path.expanduser(rest.removeprefix("//"))
        if not path or path.endswith("/"):
            raise ValueError(f"{url!r} names no file: sqlite:PATH")
        return f"sqlite:{os.path.abspath(os.path.join(folder, path))}"
    if scheme == "zk":
        from fan.stores.zookeeper_url import normal

        plain, restore = without_references(rest)
        return restore(f"zk:{normal(plain, folder)}")
    if scheme != "memory":
        from fan.plugins import store_names

        known = store_names()
        if scheme not in known:
            raise InvalidArgument(
                f"no store for the registry {url!r}{did_you_mean(scheme, known)}",
                reason="unknown_scheme",
            )
    return url


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`: did you mean 'x'?`, or a list of what there is when nothing is close, or nothing."""
    import difflib

    names = sorted(known)
    close = difflib.get_close_matches(name, names, 1, 0.6)
    if close:
        return f": did you mean {close[0]!r}?"
    return f": known are {', '.join(names)}" if 0 < len(names) <= 8 else ""


def _bad(message: str) -> InvalidArgument:
    return InvalidArgument(message, reason="bad_setting")
