"""`fan push`: hand a message over; nothing on stdout but with --json."""

from __future__ import annotations

from typing import Any

import click

from fancli.exits import Exit
from fancli.options import Common, common, reading
from fancli.params import Duration
from fancli.render import times, to_json
from fancli.request import Asking, PayloadCommand, request_options


@click.command(
    "push",
    cls=PayloadCommand,
    short_help="Send a message without waiting for the work.",
    examples=(
        "fan push greeter.hello name=Ada",
        "fan push mail.send -d @mail.json --ttl 1h --json",
    ),
)
@request_options
@click.option(
    "--ttl", type=Duration(), metavar="DUR", help="How long it stays worth delivering."
)
@common
@reading
def push(common: Common, *, ttl: float | None, dry_run: bool, **request: Any) -> int:
    """Send a message to SERVICE.METHOD; done once it is accepted, before it is handled.

    The payload is that of `fan call`.
    """
    asking = Asking(common, **request)
    if ttl is not None:
        asking.options["ttl"] = ttl
    with asking.opened() as (app, client):
        method = asking.describe(app)
        payload = asking.arguments(method, checked=dry_run)
        if dry_run:
            common.out.object(asking.echo("push", payload, asking.choice(client)))
            return Exit.OK
        asking.talk_route(client, payload)
        target = asking.target
        try:
            result = client.request(target.service, target.method, *payload.encode(), kind="push")
        finally:
            if asking.tap is not None:
                for line in asking.tap.take(common.env.show_secrets):
                    common.out.talk(line)
    if common.env.is_json:
        accepted = {
            "v": 1,
            "ok": True,
            "target": target.name,
            "accepted": True,
            "version": result.version or None,
            "transport": result.transport,
            "instance": result.instance or None,
            "gen": result.gen or None,
            "trace_id": result.trace_id,
            "attempts": result.attempts,
            "timing_ms": times(result.timing_ms),
            **common.out.marks,
        }
        common.out.json(to_json(accepted))
    return Exit.OK
