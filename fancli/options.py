"""The options that every command takes, and what they come to: settings, an App, an Output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, cast

import click

from fancli.complete import complete_profile
from fancli.env import Environment
from fancli.output import Format, Output
from fancli.params import Duration, Usage, check_registry

if TYPE_CHECKING:
    from fan import App, Loaded, Profiles


class Common:
    """The common options of one run."""

    def __init__(
        self,
        env: Environment,
        *,
        namespace: str | None,
        registry: str | None,
        profile: str,
        timeout: float | None,
        verbose: int,
    ) -> None:
        self.env = env
        self.out = Output(env)
        #: Seconds, None where the flag was not given: then the method's or the settings' counts.
        self.timeout = timeout
        self.verbose = verbose
        #: Whether what was read last may answer while the registry is down.
        self.takes_stale = False
        self._profile = profile
        given = {"namespace": namespace, "registry": registry, "timeout": timeout}
        self._flags: dict[str, Any] = given

    def load_profiles(self) -> Profiles:
        """The profiles that there are, and the one that is in force. Raises FanError."""
        from fan import load_profiles

        return load_profiles(self._profile, env=self.env.vars)

    def allow_stale(self, max_stale: float | None) -> None:
        """Let what was read last answer, at most that old; None leaves it to the settings."""
        self.takes_stale = True
        self._flags["max_stale"] = max_stale

    @property
    def on_stale(self) -> Callable[[float], None] | None:
        """Told of an answer that is old, how old; None where there must be none."""
        return self._tell_stale if self.takes_stale else None

    def _tell_stale(self, age: float) -> None:
        if self.env.stale_age is None:
            self.out.warn(f"the registry cannot be reached: this was read {age:.0f}s ago")
            self.out.hint("--fresh takes nothing old")
        self.env.stale_age = age

    def load(self, more: dict[str, Any] | None = None) -> Loaded:
        """The settings and their origins, with `more` flags than the common ones. Raises FanError
        for what cannot be understood."""
        from fan import load_settings

        flags = {**self._flags, **(more or {})}
        return load_settings(flags, env=self.env.vars, profile=self._profile)

    @property
    def again(self) -> str:
        """The options that another command takes to reach the same registry, as they were
        given."""
        from shlex import quote

        given = (("-n", self._flags["namespace"]), ("--registry", self._flags["registry"]),
                 ("--profile", self._profile))  # fmt: skip
        return "".join(f" {option} {quote(str(value))}" for option, value in given if value)

    def app(self, *, live: bool = False, **how: Any) -> App:
        """An App for one command: nothing is watched, every look-up reads the registry, unless it
        is a `live` one."""
        settings = self.load().settings
        on_stale = None if live else self.on_stale
        if self.env.keeper is not None and not how:
            kept: App = self.env.keeper.app(settings, live=live, on_stale=on_stale)
            return kept
        how.setdefault("on_stale", on_stale)
        from fan import App

        return App(settings=settings, live=live, name="fan", **how)

    def variables(self) -> dict[str, str]:
        """The variables of this process, with what the command line sets: for further commands."""
        given = {f"FAN_{name.upper()}": str(value) for name, value in self.given_settings.items()}
        if self._profile:
            given["FAN_PROFILE"] = self._profile
        return {**self.env.vars, **given}

    @property
    def given_settings(self) -> dict[str, Any]:
        """The settings that the command line itself has."""
        return {name: value for name, value in self._flags.items() if value is not None}

    def fall_back(self, timeout: float) -> None:
        """Take this timeout where the command line has none."""
        if self.timeout is None:
            self.timeout = self._flags["timeout"] = timeout


def common(f: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the common options; its first parameter is their `Common`."""

    @wraps(f)
    def run(
        namespace: str | None,
        registry: str | None,
        profile: str,
        timeout: float | None,
        verbose: int,
        **options: Any,
    ) -> Any:
        env = click.get_current_context().obj
        if registry is not None:
            check_registry(registry)
        picked = Common(
            env,
            namespace=namespace,
            registry=registry,
            profile=profile,
            timeout=timeout,
            verbose=verbose,
        )
        return f(picked, **options)

    return add_options(_COMMON)(run)


def add_options(options: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Callable[..., Any]]:
    """Several option decorators as one; help shows them in this order."""

    def decorate(f: Any) -> Callable[..., Any]:
        for option in reversed(options):
            f = option(f)
        return cast("Callable[..., Any]", f)

    return decorate


def _set(name: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A callback that stores an option in the Environment, where failures see it too."""

    def store(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        if isinstance(ctx.obj, Environment) and value:
            setattr(ctx.obj, name, value)
        return value

    return store


_COMMON: tuple[Callable[[Any], Any], ...] = (
    click.option("-n", "--namespace", metavar="NAME", help="Registry namespace."),
    click.option("--registry", metavar="URL", help="sqlite:PATH, memory:, zk://HOSTS/CHROOT."),
    click.option(
        "--profile",
        metavar="NAME",
        default="",
        shell_complete=complete_profile,
        help="Profile of the settings.",
    ),
    click.option(
        "--timeout", type=Duration(), metavar="DUR", help="Whole budget: 300ms, 5s, 2m. [5s]"
    ),
    click.option(
        "--json",
        "is_json",
        is_flag=True,
        expose_value=False,
        callback=_set("is_json"),
        help="One JSON object, failures too.",
    ),
    click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=_set("is_quiet"),
        help="No warnings, no hints.",
    ),
    click.option(
        "-v",
        "--verbose",
        count=True,
        help="Route and meta on stderr; -vv bodies; -vvv the envelope.",
    ),
    click.option(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        expose_value=False,
        callback=_set("color_mode"),
        help="When to use colour.",
    ),
    click.option(
        "--show-secrets",
        is_flag=True,
        expose_value=False,
        callback=_set("show_secrets"),
        help="Do not mask secrets in echoes.",
    ),
)


def reading(f: Callable[..., Any]) -> Callable[..., Any]:
    """Options of a command that only reads the registry: while that is down, what was read last
    answers. Stands below `common`."""

    @wraps(f)
    def run(picked: Common, fresh: bool, max_stale: float | None, **options: Any) -> Any:
        if fresh and max_stale is not None:
            raise Usage("--fresh and --max-stale", "one of them")
        if not fresh:
            picked.allow_stale(max_stale)
        return f(picked, **options)

    return add_options(
        (
            click.option("--fresh", is_flag=True, help="Fail while the registry is down."),
            click.option(
                "--max-stale",
                type=Duration(),
                metavar="DUR",
                help="While the registry is down, take what was read at most that long ago. [1h]",
            ),
        )
    )(run)


def listing(f: Callable[..., Any]) -> Callable[..., Any]:
    """Options of a command that prints a list; its `render` says how: (format, wants_head)."""

    @wraps(f)
    def run(picked: Common, format: Format | None, headers: bool, **options: Any) -> Any:
        if format is not None and picked.env.is_json and format != "json":
            raise Usage(f"--json and --format {format}", "one of them")
        render: tuple[Format, bool] = (
            format or ("json" if picked.env.is_json else "table"),
            headers,
        )
        return f(picked, render=render, **options)

    return add_options(
        (
            click.option(
                "--format",
                type=click.Choice(["table", "json", "yaml", "name"]),
                help="How to print the list. [table]",
            ),
            click.option("--headers", is_flag=True, help="A head line when piped, too."),
        )
    )(run)
