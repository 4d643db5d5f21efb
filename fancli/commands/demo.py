"""`fan demo`: a greeter in two versions to play with, and a tour that shows what `fan` can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import click

from fancli.group import command
from fancli.options import Common, common
from fancli.params import Usage, check_bind

if TYPE_CHECKING:
    from fancli.output import Output
    from fancli.processes import Child, Signals

#: The module of each version, the first of which gets the route.
VERSIONS = {"1.0.0": "fan.demo.v1", "2.0.0": "fan.demo.v2"}

#: Over what both are served.
TRANSPORTS = ("ipc", "http")
#: Where http is served: at a free port.
HTTP = "http=127.0.0.1:0"

#: The service that the tour pushes to.
JOURNAL = "fan.demo.journal"
#: Brokers that the tour shows where they can be reached, and what they are called.
BROKERS = {"amqp": "RabbitMQ", "redis": "Redis"}
#: Seconds that a broker has to answer.
PATIENCE = 1.0
#: What the tour leaves at a broker is always the same few empty queues.
NAMESPACE = "tour"


class Step(NamedTuple):
    """One command of the tour, the exit status that it has, and a word on what it shows."""

    line: str
    about: str
    status: int = 0


FIRST = (
    Step("fan call greeter.hello name=Ada", "a call goes to the version that has the route"),
    Step("fan call greeter.hello name=Ada -t http", "the same over http"),
)
REST = (
    Step("fan call greeter.hello@2 name=Ada -t ipc", "another version, over a unix socket"),
    Step("fan call greeter.add a=2 b:=3", "items become what the method's types say"),
    Step("fan call greeter.echo 'tags[]=x' n:=1.5 who[name]=Ada", "nested arguments"),
    Step("fan call greeter.count n=3", "a stream prints a line for each item"),
    Step("fan call greeter.whoami -H 'X-Team: blue' -B user=7", "headers and baggage arrive"),
    Step("fan call greeter.boom", "a failure is one line and an exit status", 5),
    Step("fan call greeter.add a=two b=3", "a wrong argument never reaches the handler", 4),
    Step("fan push journal.note text=hello", "a push waits in a queue, here a file"),
    Step("fan push --topic guest.came name=Ada", "an event goes to all who subscribed"),
    Step("fan call journal.entries n=2", "both were handled"),
    Step("fan queue list -t database", "nothing waits, and nothing is dead"),
    Step("fan discover list", "what is registered"),
    Step("fan discover describe greeter.hello", "what a method takes and gives"),
    Step("fan config set greeter/theme light -m 'the first one'", "a config of the service"),
    Step("fan config list greeter/", "what is configured, and since which generation"),
    Step(
        "fan version switch greeter=2 --weight 2=10% --sticky header:x-user -m canary",
        "version 2 takes a tenth of the calls; who uses greeter has it in force by now",
    ),
    Step("fan call greeter.hello name=Ada -H 'X-User: 4'", "a user stays with one version"),
    Step("fan call greeter.hello name=Ada -H 'X-User: 22'", "and another user with the other"),
    Step(
        "fan version switch greeter=2 --config greeter/theme=dark -m 'all of it'",
        "all calls and a config, in one generation",
    ),
    Step("fan version status", "what is in force, and who has acknowledged which generation"),
    Step("fan call greeter.hello name=Ada", "version 2 says hi"),
    Step("fan version rollback -m 'too casual'", "route and config go back together"),
    Step("fan config get greeter/theme", "the config is back"),
    Step("fan version rollback", "doing it again walks further back"),
    Step("fan call greeter.hello name=Ada", "all calls are where they began"),
    Step("fan version history", "and the history tells it all"),
)


def steps(brokers: Sequence[str]) -> tuple[Step, ...]:
    """The tour, with the same call over each of these brokers."""
    through = (
        Step(f"fan call greeter.hello name=Ada -t {name}", f"the same through {BROKERS[name]}")
        for name in brokers
    )
    return (*FIRST, *through, *REST)


@command(
    "demo",
    short_help="Run example services, or take a tour.",
    examples=(
        "fan demo",
        "fan demo --tour",
        "fan demo --transport ipc,http,amqp,redis",
        "fan call greeter.hello name=Ada -t redis",
    ),
)
@click.option(
    "-t",
    "--transport",
    "transports",
    metavar="NAME[=WHERE],...",
    multiple=True,
    help="Over what to serve. [ipc,http]",
)
@click.option("--tour", is_flag=True, help="Run commands against a private demo, and end.")
@common
def demo(picked: Common, *, transports: tuple[str, ...], tour: bool) -> int:
    """Serve `greeter` in the versions 1.0.0 and 2.0.0, each in a process of its own, over ipc and
    http, in the configured registry. `ready` on stdout says that both are registered; Ctrl-C ends
    it.

    With --tour the registry is a private, temporary one, and a few commands are run and shown,
    also over RabbitMQ and Redis where the settings' are there.
    """
    from fancli.processes import Signals, variables_of

    where = _binds(transports)
    if tour and transports:
        raise Usage("--tour and --transport", "the tour takes what is there")
    if tour:
        return _tour(picked)
    _refuse_private_registry(picked)
    vars = variables_of(picked)
    with Signals() as signals:
        return _serve(vars, signals, where, picked.out)


def _binds(given: Sequence[str]) -> tuple[str, ...]:
    """The transports as `fan serve` takes them. Raises Usage."""
    specs = [spec for text in given for spec in text.split(",")] or TRANSPORTS
    return tuple(HTTP if spec == "http" else check_bind(spec) for spec in specs)


def _serve(
    vars: Mapping[str, str], signals: Signals, transports: Sequence[str], out: Output
) -> int:
    from select import select

    from fancli.processes import all_stopped

    children: list[Child] = []
    with all_stopped(children):
        if not _start(children, vars, signals, transports):
            return signals.status
        if out.env.is_json:
            out.object({"v": 1, "ok": True, "ready": True})
        else:
            out.text("ready")
        out.note("ready: try `fan call greeter.hello name=Ada` elsewhere; Ctrl-C ends this")
        fds = [signals.fileno(), *(child.fileno() for child in children)]
        found, _, _ = select(fds, [], [])
        if signals.fileno() in found:
            return signals.status
        dead = next(child for child in children if child.fileno() in found)
        raise _failed(dead, "ended")


def _start(
    children: list[Child],
    vars: Mapping[str, str],
    signals: Signals,
    transports: Sequence[str],
    *options: str,
    cwd: str | None = None,
) -> bool:
    """Start the versions one after the other, so that the first is the first to register. False
    when a signal came first."""
    where = [part for name in transports for part in ("--transport", name)]
    return all(
        _run(children, vars, signals, f"greeter {version}", *where, *options, "--", module, cwd=cwd)
        for version, module in VERSIONS.items()
    )


def _run(
    children: list[Child],
    vars: Mapping[str, str],
    signals: Signals,
    name: str,
    *args: str,
    cwd: str | None,
) -> bool:
    """Serve something, and wait until it is ready; False when a signal came first. Raises Unknown
    when it ends."""
    from fancli.processes import Child, wait_for

    child = Child(("serve", *args), name=name, vars=vars, cwd=cwd)
    children.append(child)
    is_ready = wait_for(child, signals)
    if is_ready is False:
        raise _failed(child, "could not start")
    return is_ready is True


def _failed(child: Child, what: str) -> Exception:
    from fan import Unknown

    return Unknown(
        f"{child.name} {what} (exit {child.stop()})", reason="child_failed", executed="no"
    )


def _refuse_private_registry(picked: Common) -> None:
    url = picked.load().settings.registry
    if url.startswith("memory:"):
        raise Usage(f"--registry {url}: the demo's processes cannot share it", "sqlite:PATH")


def _tour(picked: Common) -> int:
    """Run each command of the tour for real, and print it with what it said."""
    from shutil import rmtree

    from fancli.processes import Signals, all_stopped

    folder = _private_folder()
    children: list[Child] = []
    try:
        brokers = _reachable(picked)
        vars = private_variables(picked.env.vars, folder) | brokers
        names = [name for name in BROKERS if f"FAN_{name.upper()}_URL" in brokers]
        where = ("ipc", HTTP, *names)
        with Signals() as signals, all_stopped(children):
            if not _start(children, vars, signals, where, "-q", cwd=folder):
                return signals.status
            if not _run(children, vars, signals, "journal", "-q", "--", JOURNAL, cwd=folder):
                return signals.status
            for step in steps(names):
                _show(step, vars, folder, picked.out)
                if signals.seen:
                    return signals.status
        return 0
    finally:
        rmtree(folder, ignore_errors=True)


def _reachable(picked: Common) -> dict[str, str]:
    """Variables that name the brokers of the settings, those that answer."""
    import time

    from fan import App, FanError

    settings = picked.load().settings
    found = {}
    with App(settings=settings, live=False, name="fan") as app:
        for name in BROKERS:
            try:
                transport = app.transport(name)
                queues = transport.queues(transport.home())
                queues.list([], deadline=time.monotonic() + PATIENCE)
            except FanError:
                continue
            found[f"FAN_{name.upper()}_URL"] = str(getattr(settings, f"{name}_url"))
    return found | {"FAN_NAMESPACE": NAMESPACE} if found else {}


def _private_folder() -> str:
    from tempfile import gettempdir, mkdtemp

    # A socket's path has at most 107 bytes, and some temporary folders use up most of them.
    return mkdtemp(prefix="fan-tour-", dir="/tmp" if len(gettempdir()) > 60 else None)


def private_variables(vars: Mapping[str, str], folder: str) -> dict[str, str]:
    """`vars` without our settings, and with all that `fan` keeps put into `folder`."""
    import os

    private = {name: value for name, value in vars.items() if not name.startswith("FAN_")}
    for name in ("CONFIG_HOME", "DATA_HOME", "STATE_HOME", "CACHE_HOME", "RUNTIME_DIR"):
        private[f"XDG_{name}"] = path = os.path.join(folder, name.lower())
        os.mkdir(path, 0o700)
    private["FAN_REGISTRY"] = f"sqlite:{os.path.join(folder, 'registry.db')}"
    return private


def _show(step: Step, vars: Mapping[str, str], folder: str, out: Output) -> None:
    """One command, and what it shows on a terminal as wide as ours. Raises Unknown when it ends as
    it should not."""
    import shlex

    from fan import Unknown
    from fancli.processes import fan_command, fan_environment
    from fancli.staged import run_staged

    out.text(f"# {step.about}\n$ {step.line}")
    command = [*fan_command(), *shlex.split(step.line)[1:]]
    environment = fan_environment({**vars, **_looks(out)})
    status, shown = run_staged(command, environment, cwd=folder, columns=out.env.width)
    out.write(shown)
    out.text(f"[exit {status}]\n" if status else "")
    if status != step.status:
        raise Unknown(
            f"`{step.line}` ended with {status}, not {step.status}",
            reason="tour_failed",
            executed="no",
        )


def _looks(out: Output) -> dict[str, str]:
    """Variables that have a command of the tour look as if it wrote where the tour does."""
    env = out.env
    colour = {"FORCE_COLOR": "1"} if env.wants_color(env.stdout) else {"NO_COLOR": "1"}
    return colour if env.stdout_is_tty else {"TERM": "dumb", **colour}
