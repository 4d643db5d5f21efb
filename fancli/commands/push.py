"""`fan push`: hand a message over; nothing on stdout but with --json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fancli.complete import complete_event, complete_target
from fancli.exits import Exit
from fancli.options import Common, common, reading
from fancli.params import Duration, Usage, check_name
from fancli.request import Asking, PayloadCommand, request_options

if TYPE_CHECKING:
    from fan import Client, Result
    from fancli.payload import Payload


@click.command(
    "push",
    cls=PayloadCommand,
    short_help="Send a message without waiting for the work.",
    examples=(
        "fan push greeter.hello name=Ada",
        "fan push mail.send -d @mail.json --ttl 1h --json",
        "fan push mail.send to=ada@example.com -t redis",
        "fan push --topic orders.created id:=17",
    ),
)
@click.argument("target", required=False, default="", shell_complete=complete_target)
@request_options
@click.option(
    "--topic",
    metavar="TOPIC",
    default="",
    shell_complete=complete_event,
    help="Tell an event instead, to all who subscribed.",
)
@click.option(
    "--ttl", type=Duration(), metavar="DUR", help="How long it stays worth delivering."
)
@common
@reading
def push(
    common: Common,
    *,
    target: str,
    items: tuple[str, ...],
    topic: str,
    ttl: float | None,
    dry_run: bool,
    **request: Any,
) -> int:
    """Send a message to SERVICE.METHOD; done once it is accepted, before it is handled. Over amqp,
    redis or database it waits in a queue until the service is up.

    With --topic it is an event: it goes to all who subscribed, over the transport that the setting
    `queue` names, -t or -p. The payload is that of `fan call`.
    """
    if topic:
        items = _items_of_event(target, items)
        _check_event(topic, request, common)
    elif not target:
        raise Usage("TARGET or --topic TOPIC is needed", "fan push greeter.hello name=Ada")
    asking = Asking(common, target=target, items=items, topic=topic, **request)
    if ttl is not None:
        asking.options["ttl"] = ttl
    kind = "event" if topic else "push"
    with asking.opened() as (app, client):
        method = asking.describe(app)
        payload = asking.arguments(method, checked=dry_run)
        if dry_run:
            common.out.object(asking.echo(kind, payload, asking.choice(app, client, kind)))
            return Exit.OK
        asking.talk_route(app, client, payload, kind)
        try:
            result = _send(asking, client, payload)
        finally:
            if asking.tap is not None:
                for line in asking.tap.take(common.env.show_secrets):
                    common.out.talk(line)
    if common.env.is_json:
        common.out.object(_accepted(asking, result))
    return Exit.OK


def _send(asking: Asking, client: Client, payload: Payload) -> Result:
    content_type, body = payload.encode()
    if asking.topic:
        return client.announce(asking.topic, content_type, body)
    target = asking.target
    return client.request(target.service, target.method, content_type, body, kind="push")


def _accepted(asking: Asking, result: Result) -> dict[str, Any]:
    """The object of --json."""
    from fancli.render import times

    where: dict[str, Any]
    if asking.topic:
        details = result.response.details
        where = {"groups": details.get("groups") if isinstance(details, dict) else None}
    else:
        where = {
            "version": result.version or None,
            "instance": result.instance or None,
            "gen": result.gen or None,
        }
    return {
        "v": 1,
        "ok": True,
        **asking.named,
        "accepted": True,
        "transport": result.transport,
        **where,
        "trace_id": result.trace_id,
        "attempts": result.attempts,
        "timing_ms": times(result.timing_ms),
    }


def _items_of_event(first: str, items: tuple[str, ...]) -> tuple[str, ...]:
    """The items of an event, whose first stands where a target would. Raises Usage for a
    target."""
    if not first:
        return items
    if first[0] not in "{[" and "=" not in first.partition("@")[0]:
        raise Usage(f"TARGET {first} and --topic", "one of them; an item is name=value")
    return (first, *items)


def _check_event(topic: str, request: dict[str, Any], common: Common) -> None:
    """Raise Usage for what an event cannot be or have."""
    from fancli.queues import check_broker, check_queue

    check_name("--topic", topic)
    for option, name in (("--instance", "instance"), ("--sk", "shard")):
        if request[name]:
            raise Usage(f"--topic and {option}", "an event goes to all who subscribed")
    check_queue("-t", request["transport"], "subscribe")
    if len(request["peer"]) > 1:
        raise Usage("--topic and more than one -p", "name the broker")
    for url in request["peer"]:
        check_broker("-p", url, "subscribe", common.env.vars)
