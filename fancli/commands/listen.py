"""`fan listen`: the events of a topic, as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fancli.complete import complete_event, complete_queue_transport
from fancli.exits import Exit
from fancli.group import command
from fancli.options import Common, common
from fancli.params import Duration, check_name
from fancli.queues import check_place

if TYPE_CHECKING:
    from fancli.listening import Arrived

#: Seconds that a reader may pause before an event counts as not handled.
PAUSE = 24 * 3600.0


@command(
    "listen",
    short_help="Print the events of a topic as they come.",
    examples=(
        "fan listen orders.created",
        "fan listen orders.created orders.paid --json",
        "fan listen orders.created --group audit --exec ./note.sh",
        "fan listen orders.created -t redis -N 1",
    ),
)
@click.argument(
    "topics", metavar="TOPIC...", nargs=-1, required=True, shell_complete=complete_event
)
@click.option(
    "--group", metavar="NAME", default="", help="Share the events with others of this group."
)
@click.option(
    "-t",
    "--transport",
    metavar="NAME",
    default="auto",
    shell_complete=complete_queue_transport,
    help="amqp, redis, database. [as the setting `queue`]",
)
@click.option("-p", "--peer", metavar="URL", default="", help="Broker that the events come from.")
@click.option(
    "-N", "--count", type=click.IntRange(min=1), metavar="N", help="End after N events."
)
@click.option("--exec", "line", metavar="CMD", default="", help="Run this for each event.")
@click.option(
    "--exec-timeout", type=Duration(), default=60.0, metavar="DUR", help="For CMD. [60s]"
)
@common
def listen(
    common: Common,
    *,
    topics: tuple[str, ...],
    group: str,
    transport: str,
    peer: str,
    count: int | None,
    line: str,
    exec_timeout: float,
) -> int:
    """Print the arguments of each event, a line of JSON each, in the order in which they come;
    with --json all that is known of it. `listening` on stderr says that what is published from now
    on is printed.

    Every listener gets each event, as long as it is there. Those of one --group share them, and
    what comes while none of them is there waits for the next.

    CMD gets the event as JSON on stdin, and as FAN_TOPIC, FAN_ID, FAN_ATTEMPT and FAN_BODY; when
    it fails the event is delivered again, and after the last time it is a dead letter.
    """
    for topic in topics:
        check_name("TOPIC", topic)
    if group:
        check_name("--group", group)
    name, url = check_place(transport, peer, "subscribe", common.env.vars)
    common.env.target, common.env.asks_broker = " ".join(topics), True
    worker = _Worker(common, name or _named(common, url), line, exec_timeout)
    from fan import App
    from fancli.listening import Listening

    # One at a time: the order is that of the broker, and nothing is fetched that is not printed.
    settings = common.load({"workers": 1, "push_timeout": PAUSE}).settings
    with App(settings=settings, live=False, name="fan") as app, Listening(app) as listening:
        for topic in dict.fromkeys(topics):
            listening.open(topic, group=group, transport=name, peer=url)
        common.out.note(f"listening to {', '.join(topics)} over {worker.transport}")
        left = count
        for arrived in listening.events(common.out.check_reader):
            if worker.handle(arrived) and left is not None:
                left -= 1
                if not left:
                    listening.drain()
            arrived.done()
            if left == 0:
                break
    return Exit.OK


def _named(common: Common, url: str) -> str:
    from fan import plugins

    return plugins.transport_name(url.partition(":")[0]) if url else common.load().settings.queue


class _Worker:
    """Prints an event, and runs what is to be run."""

    def __init__(self, common: Common, transport: str, line: str, timeout: float) -> None:
        self._common = common
        self.transport = transport
        self._line = line
        self._timeout = timeout

    def handle(self, arrived: Arrived) -> bool:
        """Whether it was handled; else its transport knows why."""
        from fancli.letters import body_of, event_object

        out, env = self._common.out, self._common.env
        event = event_object(env, arrived.request, self.transport)
        if env.is_json:
            out.line(event)
        else:
            out.json(body_of(arrived.request))
        return not self._line or self._run(arrived, event)

    def _run(self, arrived: Arrived, event: dict[str, object]) -> bool:
        from fan import Unknown
        from fancli.companion import run_command

        out, vars = self._common.out, self._common.env.vars
        names = ("topic", "id", "attempt", "body")
        status = run_command(self._line, event, self._timeout, out, vars, names)
        if not status:
            return True
        said = f"`{self._line}` ended with {status}"
        out.warn(f"{said}; the event is delivered again")
        arrived.done(Unknown(said, reason="exec_failed", executed="yes"))
        return False
