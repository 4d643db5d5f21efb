"""The tree of commands: a lazy table, help with examples, and options that may stand anywhere.

A command is a row in `COMMANDS`, or a plug-in's (`fancli.extensions`); nothing is imported until it
is run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from fancli.exits import Exit
from fancli.params import BareGroup, Usage, did_you_mean

if TYPE_CHECKING:
    from fancli.env import Environment
    from fancli.extensions import Extension


class Row(NamedTuple):
    """One command: where its click command is, `module:attribute`, and a line for the list."""

    path: str
    short: str


#: In the order of the help.
COMMANDS: dict[str, Row] = {
    "call": Row("fancli.commands.call:call", "Call a method and print its result."),
    "push": Row("fancli.commands.push:push", "Send a message without waiting for the work."),
    "listen": Row("fancli.commands.listen:listen", "Print the events of a topic as they come."),
    "queue": Row("fancli.commands.queue:queue", "See, empty, end queues; requeue dead letters."),
    "replay": Row("fancli.commands.replay:replay", "Make recorded calls again."),
    "bench": Row("fancli.commands.bench:bench", "Put load on a method and measure it."),
    "shell": Row("fancli.commands.shell:shell", "A prompt for commands and calls."),
    "discover": Row("fancli.commands.discover:discover", "See services, methods and instances."),
    "config": Row(
        "fancli.commands.config:config", "See and change the services' configuration."
    ),
    "version": Row(
        "fancli.commands.version:version", "Switch versions, and take it back."
    ),
    "run": Row("fancli.commands.run:run", "Run a program with configs in its environment."),
    "serve": Row("fancli.commands.serve:serve", "Run your services."),
    "demo": Row("fancli.commands.demo:demo", "Run example services, or take a tour."),
    "mock": Row("fancli.commands.mock:mock", "Answer in a service's place."),
    "dev": Row("fancli.commands.dev:dev", "Run private Redis, RabbitMQ and ZooKeeper servers."),
    "profile": Row("fancli.commands.profile:profile", "See and choose profiles of settings."),
    "settings": Row("fancli.commands.settings:settings", "See what is set, and where."),
    "plugins": Row("fancli.commands.plugins:plugins", "List transports, stores and plug-ins."),
    "completion": Row("fancli.commands.completion:completion", "Print a completion script."),
    "help": Row("fancli.commands.help:help_", "Explain a topic: payload, exit-codes, env, ..."),
}

#: Options that every command takes -> how many values follow. They may also stand before the
#: command.
COMMON: dict[str, int] = {
    "-n": 1, "--namespace": 1, "--registry": 1, "--profile": 1, "--timeout": 1, "--color": 1,
    "--json": 0, "-q": 0, "--quiet": 0, "-v": 0, "--verbose": 0, "--show-secrets": 0,
}  # fmt: skip

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"]}


def dispatch(args: list[str], env: Environment) -> int:
    """Run the command line. Raises what the command raises, click's usage errors among it."""
    env.is_json = wants_json(args)
    check_text(args)
    root = root_group()
    try:
        with root.make_context("fan", args, obj=env) as ctx:
            status = root.invoke(ctx)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    return status if isinstance(status, int) else Exit.OK


def check_text(args: list[str]) -> None:
    """Refuse what is no text: bytes of the command line that are not UTF-8. Raises Usage."""
    for arg in args:
        try:
            arg.encode()
        except UnicodeEncodeError:
            raise Usage(f"{arg!a} is not UTF-8") from None


def wants_json(args: list[str]) -> bool:
    """Whether a mistake in the command line itself is to be reported as JSON too. A key of SHON
    (`[ --json 1 ]`) is no option."""
    depth = 0
    rest = iter(args)
    for arg in rest:
        if arg == "--" and not depth:
            break
        if arg == "--":
            next(rest, None)  # a literal of SHON
        elif arg == "[":
            depth += 1
        elif arg == "]":
            depth = max(0, depth - 1)
        elif arg == "--json" and not depth:
            return True
    return False


class Documented(click.Command):
    """What has a help that ends in `Examples`: one command line each, as they would be typed."""

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), **attrs: Any) -> None:
        attrs["context_settings"] = CONTEXT | (attrs.get("context_settings") or {})
        super().__init__(*args, **attrs)
        self.examples = examples
        self._help: click.Option | None = None

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        write_examples(self.examples, formatter)

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        if self._help is None:
            self._help = help_option(self.get_help_option_names(ctx))
        return self._help


class Command(Documented):
    """A command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing and args and self._awaits_value(args[-1]):
            # A TAB behind `--instance`: with it, click would give up, and forget the target.
            args = args[:-1]
        return super().parse_args(ctx, args)

    def make_parser(self, ctx: click.Context) -> Any:
        # click looks for `-t` among the long options first, and makes a whole error, with names
        # that are alike, before it thinks of the short ones: 3 ms of a command's start.
        parser = super().make_parser(ctx)
        for name, option in getattr(parser, "_short_opt", {}).items():
            parser._long_opt.setdefault(name, option)
        return parser

    def _awaits_value(self, arg: str) -> bool:
        return any(
            isinstance(param, click.Option) and arg in param.opts and not param.is_flag
            for param in self.params
        )


class Group(Documented, click.Group):
    """A group that finds its commands in a table and imports one when it is run."""

    def __init__(
        self, *args: Any, table: Mapping[str, Row] | None = None, **attrs: Any
    ) -> None:
        attrs.setdefault("no_args_is_help", False)
        super().__init__(*args, **attrs)
        self.table = table or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.table, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        row = self.table.get(cmd_name)
        return load(row.path) if row else super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        command = self.get_command(ctx, args[0])
        if command is None and not ctx.resilient_parsing:
            raise Usage(f"no such command: {args[0]}", self.near(ctx, args[0]), ctx)
        return args[0] if command else None, command, args[1:]

    def near(self, ctx: click.Context, name: str) -> str:
        """What may have been meant by the name of no command; may be empty."""
        return did_you_mean(name, self.list_commands(ctx))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        moved = hoist(args)
        if not moved and not ctx.resilient_parsing:
            raise BareGroup("a command is needed", ctx)
        return super().parse_args(ctx, moved)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, row.short) for name, row in self.table.items()]
        for name, command in self.commands.items():
            rows.append((name, command.get_short_help_str(limit=60)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        # click's own would import every command for its one-line help.
        from click.shell_completion import CompletionItem

        names = [(name, row.short) for name, row in self.table.items()]
        names += [(name, c.get_short_help_str()) for name, c in self.commands.items()]
        found = [CompletionItem(n, help=h) for n, h in names if n.startswith(incomplete)]
        return found + click.Command.shell_complete(self, ctx, incomplete)


class Root(Group):
    """`fan` itself: its own commands, and those of plug-ins. One that cannot be loaded warns by
    name and is skipped."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from fancli.extensions import extensions

        return list(dict.fromkeys([*self.table, *(each.name for each in extensions())]))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.table:
            return load(self.table[cmd_name].path)
        from fancli.extensions import find

        extension = find(cmd_name)
        return self._loaded(ctx, extension) if extension is not None else None

    def near(self, ctx: click.Context, name: str) -> str:
        if "." in name.partition("@")[0].strip("."):
            return f"did you mean fan call {name}?"
        # A verb without its noun: `fan describe` for `fan discover describe`.
        groups = [each for each in self.table if isinstance(self.get_command(ctx, each), Group)]
        below = [
            f"fan {each} {name}"
            for each in groups
            if name in getattr(self.get_command(ctx, each), "table", {})
        ]
        return f"did you mean {' or '.join(below)}?" if below else super().near(ctx, name)

    def _loaded(self, ctx: click.Context, extension: Extension) -> click.Command | None:
        try:
            return load_extension(extension)
        except Usage as exc:
            if not ctx.resilient_parsing:  # a TAB is silent
                from fancli.output import Output

                Output(ctx.obj).warn(exc.message)
            return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_commands(ctx, formatter)
        from fancli.extensions import extensions

        rows = []
        for extension in extensions():
            if extension.name not in self.table:
                command = self._loaded(ctx, extension)
                if command is not None:
                    rows.append((extension.name, command.get_short_help_str(limit=60)))
        if rows:
            with formatter.section("Commands of plug-ins"):
                formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        from fancli.extensions import extensions

        found: list[Any] = super().shell_complete(ctx, incomplete)
        return found + [
            CompletionItem(each.name, help=f"of {each.origin}")
            for each in extensions()
            if each.name.startswith(incomplete) and each.name not in self.table
        ]


def load_extension(extension: Extension) -> click.Command:
    """The click command of a plug-in. Raises Usage, which names it, for one that cannot be used."""
    try:
        command = load(extension.target)
        if not isinstance(command, click.Command):
            raise TypeError(f"{extension.target} is no click command")
    except (Exception, SystemExit) as exc:  # whatever a plug-in may raise
        why = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
        raise Usage(
            f"the command {extension.name!r} of {extension.origin} cannot be loaded: {why}",
            "fan plugins",
        ) from exc
    return command


def load(path: str) -> click.Command:
    """The click command at `module:attribute`."""
    from importlib import import_module

    module, _, attribute = path.partition(":")
    command: click.Command = getattr(import_module(module), attribute)
    return command


def hoist(args: list[str]) -> list[str]:
    """Move common options from before a command's name to behind it: `--json call x` is
    `call --json x`. Options alone are nothing to run: an empty list."""
    moved: list[str] = []
    here = 0
    while here < len(args) and args[here].startswith("-"):
        step = _width(args[here])
        if not step:
            return args
        moved += args[here : here + step]
        here += step
    if here >= len(args):
        return []
    return [args[here], *moved, *args[here + 1 :]]


def _width(arg: str) -> int:
    """How many arguments a common option takes up, itself included; 0 for what is none. Short ones
    may stand together, with the value of the last: `-qv`, `-vvvv`, `-nblue`."""
    name, has_value, _ = arg.partition("=")
    if name in COMMON:
        return 1 if has_value or not COMMON[name] else 2
    if arg.startswith("--"):
        return 0
    for end, letter in enumerate(arg[1:], 2):
        values = COMMON.get(f"-{letter}")
        if values is None:
            return 0
        if values:
            return 1 if arg[end:] else 2
    return min(1, len(arg) - 1)


def help_option(names: list[str]) -> click.Option | None:
    """The option that prints help through `Output`, so that a full disk or a closed pipe is noticed
    as everywhere. It is not click's own, which has its one sentence translated: that imports
    `locale` at every start. None where a command took the names for something else."""
    if not names:
        return None
    return click.Option(
        [*names, "wants_help"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_help,
        help="Show this message.",
    )


def _print_help(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from fancli.output import Output

        Output(ctx.obj).text(ctx.get_help())
        ctx.exit()


def write_examples(examples: tuple[str, ...], formatter: click.HelpFormatter) -> None:
    """The heading that every help has."""
    if examples:
        with formatter.section("Examples"):
            for line in examples:
                formatter.write(f"{' ' * formatter.current_indent}{line}\n")


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from fan import __version__
        from fancli.output import Output

        Output(ctx.obj).text(f"fan {__version__}")
        ctx.exit()


def root_group() -> Root:
    """`fan` itself."""
    return Root(
        "fan",
        table=COMMANDS,
        help="Call, see and run services.",
        params=[
            click.Option(
                ["--version"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_print_version,
                help="Show the version.",
            )
        ],
        examples=(
            "fan demo --tour",
            "fan call greeter.hello name=Ada",
            "fan discover list",
            "fan help exit-codes",
        ),
    )


def command(
    name: str, *, examples: tuple[str, ...], **attrs: Any
) -> Callable[[Callable[..., Any]], Command]:
    """`click.command` for a documented command; a new one cannot forget its examples."""
    return click.command(name, cls=Command, examples=examples, **attrs)
