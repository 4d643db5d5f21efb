"""What a user sets: the registry, the namespace, timeouts, limits; and where each value came from.

Order, the first that says something wins: flags, `FAN_*` variables, the chosen profile, the
project's `fan.toml` (from the current folder upward to the root of the version control), the user's
`$XDG_CONFIG_HOME/fan/config.toml`, `/etc/fan/config.toml`, the default. A file holds fields of
`Settings` as top-level keys, `profile = "NAME"`, and tables `[profiles.NAME]`.

The parts: `settings_places` knows where things lie by default, `settings_values` what a value may
be, `settings_files` reads the files.
"""

# Without `from __future__ import annotations`: the types of the fields are used at every start, and
# would be text that has to be evaluated first.

import contextlib
import os
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from fan.errors import FailedPrecondition, PermissionDenied
from fan.message import MAX_BODY
from fan.references import has_reference, resolve_reference
from fan.settings_places import SYSTEM_FILE, default_registry, default_runtime_dir, found_files
from fan.settings_values import URLS, bad_setting, converted, did_you_mean


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
    #: Threads for plain handlers over http and from queues; a call over ipc has its own, of 512.
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
        values = (getattr(self, name) for name in URLS)
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
        if name in URLS:
            value = resolve_reference(value, os.environ)
        self.__dict__[name] = value  # from now on it is found without this
        return value


class Given(msgspec.Struct, frozen=True):
    """A value as a source gives it. Relative paths in it are relative to `folder`."""

    value: Any
    origin: str
    folder: str


_TYPES: dict[str, Any] = Settings.__annotations__


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
    paths = found_files(env, here, system_file)
    chosen = ""
    of_profile: list[dict[str, Given]] = []
    of_files: list[dict[str, Given]] = []
    if paths or profile or env.get("FAN_PROFILE"):
        from fan.settings_files import choose_profile, read_files

        files = read_files(paths)
        chosen, of_profile = choose_profile(profile, env, files)
        of_files = [file.values for file in files]
    flags = {
        name: Given(value, "flag", here)
        for name, value in (overrides or {}).items()
        if value is not None
    }
    for name in flags:
        check_name(name, "flag")
    variables = {
        name: Given(env[key], key, here)
        for name in _TYPES
        if env.get(key := f"FAN_{name.upper()}")
    }
    values: dict[str, Any] = {
        "registry": default_registry(env),
        "runtime_dir": default_runtime_dir(env),
    }
    origins = dict.fromkeys(_TYPES, "default")
    for layer in reversed([flags, variables, *of_profile, *of_files]):
        for name, given in layer.items():
            values[name] = _convert(name, given)
            origins[name] = given.origin
    return Loaded(Settings(**values), origins, chosen, tuple(paths))


def check_name(name: str, origin: str) -> None:
    """Raise InvalidArgument (bad_setting) for the name of no setting."""
    if name not in _TYPES:
        raise bad_setting(f"{origin}: there is no setting {name!r}{did_you_mean(name, _TYPES)}")


def convert_setting(name: str, value: Any, folder: str = "") -> Any:
    """A value as the field of that name has it: `300ms` is 0.3 seconds, `a, b` a tuple. Raises
    ValueError for what it cannot be."""
    return converted(name, _TYPES[name], value, folder)


def _convert(name: str, given: Given) -> Any:
    """The same of a layer's value. Raises InvalidArgument with its origin."""
    try:
        return convert_setting(name, given.value, given.folder)
    except ValueError as exc:
        raise bad_setting(f"{given.origin}: {name}: {exc}") from exc
