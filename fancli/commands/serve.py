"""`fan serve`: run services of the current folder, or installed ones, until a signal ends them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from fancli.group import command
from fancli.options import Common, common
from fancli.params import Duration, Usage, check_bind, check_name, parse_shards

if TYPE_CHECKING:
    from fan import App, Instance
    from fancli.processes import Signals

#: Seconds for the last answers to be written once every handler is done.
CLOSING = 5.0


@command(
    "serve",
    short_help="Run your services.",
    examples=(
        "fan serve greeter",
        "fan serve shop.users:Users shop.orders:Orders",
        "fan serve greeter --transport ipc --transport http=127.0.0.1:8080",
        "fan serve mail --transport amqp --transport redis=redis://cache:6379/0",
        "fan serve store --shard shard1=a,b",
        "fan serve greeter --reload",
    ),
)
@click.argument("modules", metavar="MODULE[:CLASS]...", nargs=-1, required=True)
@click.option(
    "-t",
    "--transport",
    "transports",
    metavar="NAME[=WHERE]",
    multiple=True,
    help="Where to listen: ipc, http=127.0.0.1:8080, amqp, redis=redis://HOST/0, database. May be"
    " repeated. [ipc]",
)
@click.option(
    "--adopt/--no-adopt",
    default=None,
    help="Move the route to this version. [only with --reload; a first version always gets it]",
)
@click.option("--reload", is_flag=True, help="Start again when a source file changes.")
@click.option(
    "--id",
    "ids",
    metavar="ID",
    multiple=True,
    help="Instance id, one for each service in their order.",
)
@click.option(
    "--shard",
    "shards",
    metavar="NAME=V,V",
    multiple=True,
    help="Shards that this instance owns: shard1=a,b. May be repeated.",
)
@click.option(
    "--standby", is_flag=True, help="Wait while another has the id, or runs as the `unique` one."
)
@click.option(
    "--drain-timeout",
    type=Duration(),
    metavar="DUR",
    help="How long a stop waits for calls in flight. [30s]",
)
@click.option("--ready-fd", type=int, hidden=True, help="Write `ready` here instead.")
@click.option("--lifeline-fd", type=int, hidden=True, help="End when this reads the end of file.")
@common
def serve(
    picked: Common,
    *,
    modules: tuple[str, ...],
    transports: tuple[str, ...],
    adopt: bool | None,
    reload: bool,
    ids: tuple[str, ...],
    shards: tuple[str, ...],
    standby: bool,
    drain_timeout: float | None,
    ready_fd: int | None,
    lifeline_fd: int | None,
) -> int:
    """Run services until Ctrl-C or SIGTERM.

    MODULE is found in the current folder or among what is installed; without :CLASS every service
    that it defines is run. When all are registered and up, stderr gets one line for each, and then
    `ready`. A service whose hard dependencies are not there waits for them: `ready` comes later.

    A service with @push or @subscribe methods takes from the queue that the settings name where
    no transport over a broker is given.

    SIGTERM and Ctrl-C drain: calls in flight are answered, new ones go elsewhere; the exit status
    is then 143 or 130. A second one ends at once. With -v every request leaves a line on stderr.
    """
    where = tuple(check_bind(spec) for spec in transports) or ("ipc",)
    for text in ids:
        check_name("--id", text)
    owned = parse_shards("--shard", shards)
    if reload:
        from fancli.processes import variables_of
        from fancli.reload import run_reloading

        more = [*(f"--shard={text}" for text in shards), *["--standby"] * standby]
        args = _arguments(picked, modules, where, ids, drain_timeout, adopt is not False, more)
        return run_reloading(args, variables_of(picked), picked.out)
    if lifeline_fd is not None:
        from fancli.processes import end_with

        end_with(lifeline_fd)
    services = _load(modules)
    if ids and len(ids) != len(services):
        raise Usage(f"{len(ids)} --id for {len(services)} services", "one for each, in their order")
    _set_up_logs(picked.verbose)
    settings = picked.load({"access_log": True} if picked.verbose else None).settings
    wait = settings.drain_timeout if drain_timeout is None else drain_timeout
    from fan import App

    with App(settings=settings, name="serve", routes=_routes(modules)) as app:
        for service, instance_id in zip(services, ids or [None] * len(services), strict=True):
            app.add(service, instance_id)
            if owned:
                service.shards = owned
        return _run(app, picked, where, bool(adopt), standby, wait, ready_fd)


def _run(
    app: App,
    picked: Common,
    transports: Sequence[str],
    adopt: bool,
    standby: bool,
    drain_timeout: float,
    ready_fd: int | None,
) -> int:
    from threading import Thread

    from fancli.processes import Signals

    app.start(transports, adopt=adopt, standby=standby)
    with Signals() as signals:
        for instance in app.lifecycle.instances:
            _announce(picked, instance)
        waiting = [one.name for one in app.lifecycle.waiting]
        if waiting:  # for what they need: `ready` comes when they are up
            picked.out.note(f"waiting: {', '.join(waiting)}")
            args = (app, picked, ready_fd, signals)
            Thread(target=_tell_later, args=args, daemon=True).start()
        else:
            _tell_ready(picked, ready_fd)
        status = signals.wait()
        is_idle = app.drain(drain_timeout)
        if not is_idle:
            picked.out.warn(f"calls still ran after {drain_timeout:g}s and were given up")
        app.stop(CLOSING if is_idle else 0.0)
        return status


def _tell_later(app: App, picked: Common, ready_fd: int | None, signals: Signals) -> None:
    from fan import FanError

    try:
        if app.lifecycle.wait_up():
            _tell_ready(picked, ready_fd)
    except FanError as exc:  # what cannot start ends it, as it does where nothing is waited for
        signals.fail(exc)


def _tell_ready(picked: Common, ready_fd: int | None) -> None:
    if ready_fd is None:
        picked.out.note("ready")
    else:
        os.write(ready_fd, b"ready\n")


def _announce(picked: Common, instance: Instance) -> None:
    urls = [address.url for address in instance.addresses]
    if picked.env.is_json:
        picked.out.line(
            {
                "v": 1,
                "ok": True,
                "service": instance.service,
                "version": instance.version,
                "instance": instance.id,
                "addresses": urls,
            }
        )
    where = ", ".join(urls)
    picked.out.note(f"serving {instance.service} {instance.version} as {instance.id} at {where}")


def _load(modules: Sequence[str]) -> list[Any]:
    from fan import InvalidArgument, load_services

    try:
        return load_services(modules)
    except InvalidArgument as exc:
        raise Usage(str(exc), "fan serve MODULE[:CLASS]") from exc


def _routes(modules: Sequence[str]) -> Any:
    from fan import InvalidArgument, load_routes

    try:
        return load_routes(modules)
    except InvalidArgument as exc:
        raise Usage(str(exc), "put them into one class") from exc


def _set_up_logs(verbose: int) -> None:
    """A log on stderr for services that set up none of their own while they were imported."""
    import logging

    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def _arguments(
    picked: Common,
    modules: Sequence[str],
    transports: Sequence[str],
    ids: Sequence[str],
    drain_timeout: float | None,
    adopt: bool,
    more: Sequence[str],
) -> list[str]:
    """The command line of the child that `--reload` starts again and again."""
    args = ["serve", *["-v"] * picked.verbose, *["-q"] * picked.env.is_quiet]
    for name in transports:
        args += ["--transport", name]
    for text in ids:
        args += ["--id", text]
    if drain_timeout is not None:
        args += ["--drain-timeout", f"{drain_timeout}s"]
    return [*args, *more, "--adopt" if adopt else "--no-adopt", "--", *modules]
