"""`fan mock`: a stand-in that answers in a service's place."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from fancli.complete import complete_code, complete_service_or_target
from fancli.group import command
from fancli.options import Common, common
from fancli.params import Duration, Finite, Usage, check_bind, check_name, did_you_mean

if TYPE_CHECKING:
    from fan import Instance, Service, Trouble
    from fancli.mocking import Place

#: Seconds that an end waits for answers in flight.
_CLOSING = 5.0


@command(
    "mock",
    short_help="Answer in a service's place.",
    examples=(
        "fan mock greeter.hello --reply '\"Hello Ada\"'",
        "fan mock users.get@2.0.0 --reply @user.json --delay 200ms",
        "fan mock greeter --from-schema --transport http=127.0.0.1:8080",
        "fan mock greeter --record calls.ndjson",
        "fan mock greeter.hello --reply '\"hi\"' --error unavailable --failure-rate 0.1",
    ),
)
@click.argument("target", metavar="TARGET|SERVICE", shell_complete=complete_service_or_target)
@click.option("--reply", metavar="JSON|@FILE|-", default=None, help="Answer this.")
@click.option("--from-schema", is_flag=True, help="Answer samples of what the methods return.")
@click.option(
    "--record", metavar="FILE", default="", help="Answer as in what fan call --record kept."
)
@click.option("--delay", type=Duration(), metavar="DUR", help="Answer so much later.")
@click.option(
    "--error", metavar="CODE", default="", shell_complete=complete_code, help="Fail with this."
)
@click.option(
    "--failure-rate", type=Finite(0, 1), metavar="SHARE", help="Share of failures. [1]"
)
@click.option(
    "-t",
    "--transport",
    "transports",
    metavar="NAME[=WHERE]",
    multiple=True,
    help="Where to listen: ipc, http=127.0.0.1:8080. May be repeated. [ipc]",
)
@click.option("--adopt", is_flag=True, help="Move the route here. [a first version gets it]")
@click.option("--id", "instance_id", metavar="ID", default="", help="Instance id.")
@common
def mock(
    common: Common,
    *,
    target: str,
    reply: str | None,
    from_schema: bool,
    record: str,
    delay: float | None,
    error: str,
    failure_rate: float | None,
    transports: tuple[str, ...],
    adopt: bool,
    instance_id: str,
) -> int:
    """Register and serve a stand-in for SERVICE, or for one method of it, until Ctrl-C or SIGTERM.

    Of a registered service it has the version (that of the route, or @VERSION), and checks
    arguments as the real one does; else it takes any, as version 1.0.0. A recorded call is answered
    by its arguments; others fail with `not_recorded`. --error alone needs no reply; --failure-rate
    alone fails with `unknown`. `ready` on stderr says that it is up.
    """
    from fan import App

    where = tuple(check_bind(spec) for spec in transports) or ("ipc",)
    if instance_id:
        check_name("--id", instance_id)
    trouble = _trouble(delay, error, failure_rate)
    given = (reply is not None) + from_schema + bool(record)
    if given > 1 or not (given or error):
        raise Usage("one of --reply, --from-schema and --record is needed", "--reply '{}'")
    settings = common.load({"access_log": True} if common.verbose else None).settings
    _set_up_logs(common.verbose)
    with App(settings=settings, name="mock") as app:
        from fancli.mocking import find_place

        place = find_place(app, target, settings.timeout, is_method=not (from_schema or record))
        common.env.target = place.service
        app.add(_service(common, place, reply, from_schema, record, trouble), instance_id or None)
        app.start(where, adopt=adopt)
        return _until_signal(common, app.lifecycle.instances, lambda: app.drain(_CLOSING))


def _service(
    common: Common,
    place: Place,
    reply: str | None,
    from_schema: bool,
    record: str,
    trouble: Trouble,
) -> Service:
    from fancli import mocking

    if from_schema:
        return mocking.with_samples(place, trouble)
    if record:
        return mocking.with_recorded(place, record, trouble)
    value = mocking.read_reply(reply, common.env) if reply is not None else None
    return mocking.with_reply(place, value, trouble)


def _trouble(delay: float | None, error: str, rate: float | None) -> Trouble:
    from fan import Trouble
    from fancli.topics import error_codes

    codes = error_codes()
    if error and error not in codes:
        raise Usage(
            f"--error {error}: no such code", did_you_mean(error, codes) or "fan help errors"
        )
    code = error or ("unknown" if rate else "")
    return Trouble(delay=delay or 0.0, code=code, rate=1.0 if rate is None else rate)


def _until_signal(common: Common, instances: list[Instance], drain: Callable[[], bool]) -> int:
    from fancli.processes import Signals

    with Signals() as signals:
        for instance in instances:
            urls = [address.url for address in instance.addresses]
            said = f"{instance.service} {instance.version} as {instance.id} at {', '.join(urls)}"
            if common.env.is_json:
                common.out.line(
                    {
                        "v": 1,
                        "ok": True,
                        "service": instance.service,
                        "version": instance.version,
                        "instance": instance.id,
                        "addresses": urls,
                    }
                )
            common.out.note(f"mocking {said}")
        common.out.note("ready")
        status = signals.wait()
        drain()
        return status


def _set_up_logs(verbose: int) -> None:
    """With -v a line on stderr for each call."""
    import logging

    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
