"""`fan discover register`: a service that knows nothing of fan, for as long as its program runs."""

from __future__ import annotations

import select
import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from fancli.complete import complete_service
from fancli.env import is_tty
from fancli.exits import Exit
from fancli.group import Command
from fancli.options import Common, common
from fancli.params import Duration, Usage, check_name, check_peers, read_text
from fancli.reaching import is_reached

if TYPE_CHECKING:
    from fan import App, Foreign, Instance
    from fancli.guarded import Guarded
    from fancli.processes import Signals

_PROGRAM = "fan.program"
#: Seconds between two looks whether the program answers.
_LOOK = 0.05


class ProgramCommand(Command):
    """A command behind whose `--` stands a program."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        cut = args.index("--") if "--" in args else len(args)
        ctx.meta[_PROGRAM] = tuple(args[cut + 1 :]) if cut < len(args) else None
        return super().parse_args(ctx, args[:cut])


@click.command(
    "register",
    cls=ProgramCommand,
    short_help="Register a service that knows nothing of fan.",
    options_metavar="[OPTIONS] [-- CMD [ARG]...]",
    examples=(
        "fan discover register billing --version 1.2.0 --addr http://127.0.0.1:8080 -- ./billing",
        "fan discover register billing --addr http://10.0.0.7:80 --openapi billing.json",
        "fan discover register -f services.yaml -- ./billing --port 8080",
    ),
)
@click.argument("service", required=False, default="", shell_complete=complete_service)
@click.option("--version", "version", metavar="V", default="", help="Its version.")
@click.option("--addr", "addrs", metavar="URL", multiple=True, help="Where it answers.")
@click.option("--id", "id", metavar="ID", default="", help="Instance id.")
@click.option("-f", "--file", "path", metavar="FILE|-", default="", help="Services in YAML.")
@click.option("--openapi", metavar="URL|FILE", default="", help="Its methods, version and address.")
@click.option(
    "--grace",
    type=Duration(),
    default=10.0,
    metavar="DUR",
    help="How long CMD may take to end before it is killed. [10s]",
)
@common
def register(
    common: Common,
    *,
    service: str,
    version: str,
    addrs: tuple[str, ...],
    id: str,
    path: str,
    openapi: str,
    grace: float,
) -> int:
    """Register a service at an address. With CMD the registration lasts as long as CMD runs: it is
    up as soon as the address can be reached, gone when CMD ends, however that or we end, and the
    exit status is CMD's. Without CMD it stays until `fan discover deregister`.

    FILE describes services with their methods: name, url with {params}, HTTP method, content type;
    %{VAR} is from the environment, %{LOCAL_IP} this host's address. Such methods can be called and
    described like any others; `fan help http-services` has an example. A service that speaks fan's
    own HTTP needs no description.
    """
    program = click.get_current_context().meta[_PROGRAM]
    if program == ():
        raise Usage("no CMD behind the --")
    found = _described(common, service, version, addrs, id, path, openapi)
    with common.app() as app:
        if program is None:
            for each in found:
                _tell(common, _register(app, each))
            return Exit.OK
        return _hold(common, app, found, program, grace)


def _described(
    common: Common,
    service: str,
    version: str,
    addrs: Sequence[str],
    id: str,
    path: str,
    openapi: str,
) -> list[Foreign]:
    """The services as the command line or a file has them. Raises Usage."""
    from fan import Foreign, InvalidArgument, read_openapi, read_services

    if path and (service or version or addrs or id or openapi):
        raise Usage("-f and a SERVICE or its options", "one of them")
    if not path and not service:
        raise Usage("no SERVICE", "fan discover register SERVICE --version V --addr URL")
    urls = check_peers(addrs, "--addr")
    try:
        if path:
            text = read_text(path, "-f", common.env)
            if not text.strip():
                raise Usage(f"-f {path}: empty", "fan help http-services")
            return read_services(text, common.env.vars)
        common.env.target = check_name("SERVICE", service)
        if openapi:
            text = _read(common, openapi)
            described = read_openapi(text, service, version, urls)
        else:
            if not version or not urls:
                raise Usage("--version and --addr are needed", "--version 1.0.0 --addr URL")
            described = Foreign.plain(service, version, urls)
        if not described.urls:
            raise Usage(f"--openapi: {openapi} names no server", "--addr URL")
        return [Foreign(described.interface, described.urls, id)]
    except InvalidArgument as exc:
        raise Usage(": ".join(filter(None, (path or openapi, exc.message)))) from exc


def _read(common: Common, place: str) -> str:
    """A file, or what a URL answers."""
    if "://" not in place:
        return read_text(place, "--openapi", common.env)
    from fancli.reaching import fetch

    return fetch(place, common.load().settings.timeout)


def _register(app: App, each: Foreign, **how: Any) -> Instance:
    return app.operations.register(
        each.interface, each.urls, id=each.id, tags=each.tags, meta=each.meta, **how
    )


def _tell(common: Common, instance: Instance) -> None:
    if common.env.is_json:
        told = {"service": instance.service, "version": instance.version, "instance": instance.id}
        urls = [address.url for address in instance.addresses]
        common.out.line({"v": 1, "ok": True, **told, "addresses": urls})
    common.out.note(f"registered {instance.service} {instance.version} as {instance.id}")


def _hold(
    common: Common, app: App, found: Sequence[Foreign], program: Sequence[str], grace: float
) -> int:
    from fancli.guarded import Guarded
    from fancli.processes import Signals

    with Signals() as signals:
        # Before the program starts: an id that is in use is its to know.
        instances = [_register(app, each, lease=True, state="starting") for each in found]
        for instance in instances:
            _tell(common, instance)
        shares = is_tty(common.env.stdin)
        child = Guarded(program, dict(common.env.vars), grace=grace, shares=shares)
        is_over = threading.Event()
        looking = threading.Thread(
            target=_bring_up, args=(common, app, instances, is_over), name="fan-reach", daemon=True
        )
        looking.start()
        try:
            _until_end(child, signals, grace)
        finally:
            is_over.set()
            looking.join()
            for instance in instances:
                _attempt(common, partial(app.discovery.deregister, instance.id))
            status = child.stop()
        return signals.status if signals.seen else status


def _until_end(child: Guarded, signals: Signals, grace: float) -> None:
    """Until the program ends, or we are to: then it gets our signal and its time."""
    watched: list[Guarded | Signals] = [child, signals]
    found, _, _ = select.select(watched, [], [])
    if child not in found:
        import signal

        # A Ctrl-C on a terminal that is shared has reached it already.
        if not (child.shares and signals.seen == signal.SIGINT):
            child.send(signals.seen)
        select.select([child], [], [], grace)


def _bring_up(
    common: Common, app: App, instances: Sequence[Instance], is_over: threading.Event
) -> None:
    """Have each instance up once it can be reached."""
    from msgspec.structs import replace

    waiting = list(instances)
    while waiting and not is_over.wait(_LOOK):
        for instance in [i for i in waiting if all(is_reached(a.url) for a in i.addresses)]:
            up = replace(instance, state="up")
            if _attempt(common, partial(app.discovery.update, up)):
                waiting.remove(instance)
                common.out.note(f"up: {instance.service}/{instance.id}")


def _attempt(common: Common, act: Any) -> bool:
    """Whether the registry took it; it may be down while the program runs."""
    from fan import FanError

    try:
        act()
    except FanError as exc:
        common.out.warn(f"the registry: {exc}")
        return False
    return True
