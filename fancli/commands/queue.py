"""`fan queue`: what waits for services at the brokers, and what nobody could handle."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from fancli.complete import complete_queue, complete_queue_transport
from fancli.exits import Exit
from fancli.group import Group, command
from fancli.options import Common, add_options, common, listing
from fancli.output import Format
from fancli.queues import (
    Broker,
    Brokers,
    age,
    candidates,
    check_all,
    check_place,
    count_dead,
    count_of,
    one_queue,
    parse_queue,
    queue_row,
)

if TYPE_CHECKING:
    from fan import App, QueueName

queue = Group(
    "queue",
    help="Look after the queues of pushes, events and calls, at every broker that can be reached.",
    short_help="See, empty, end queues; requeue dead letters.",
    examples=(
        "fan queue list",
        "fan queue dead mail",
        "fan queue requeue mail",
        "fan queue purge orders.created/audit -t redis",
        "fan queue delete orders.created/audit",
    ),
)

QUEUE_COLUMNS = ("queue", "transport", "ready", "in_flight", "dead", "consumers", "oldest")
LETTER_COLUMNS = ("id", "at", "deliveries", "target", "body")
DEAD_COLUMNS = ("id", "at", "deliveries", "target", "error", "body")

queue_argument: Callable[[Any], Any] = click.argument(
    "name", metavar="QUEUE", shell_complete=complete_queue
)
place_options: Callable[[Any], Any] = add_options(
    (
        click.option(
            "-t",
            "--transport",
            metavar="NAME",
            default="auto",
            shell_complete=complete_queue_transport,
            help="amqp, redis, database. [all]",
        ),
        click.option("-p", "--peer", metavar="URL", default="", help="This broker alone."),
    )
)
limit_option: Callable[[Any], Any] = click.option(
    "-N", "--limit", type=click.IntRange(min=1), default=100, metavar="N", help="At most N. [100]"
)
dry_option: Callable[[Any], Any] = click.option(
    "--dry-run", is_flag=True, help="Say how many it would be; change nothing."
)


@command(
    "list",
    short_help="Every queue, and what is in it.",
    examples=(
        "fan queue list",
        "fan queue list mail orders.created/audit -t redis --headers",
        "fan queue list --json | jq -r 'select(.dead > 0).queue'",
    ),
)
@click.argument("names", metavar="[QUEUE]...", nargs=-1, shell_complete=complete_queue)
@place_options
@common
@listing
def list_(
    common: Common,
    *,
    names: tuple[str, ...],
    transport: str,
    peer: str,
    render: tuple[Format, bool],
) -> None:
    """List the queues, or those that are named: SERVICE holds pushes, SERVICE@VERSION calls,
    TOPIC/GROUP events. How many messages wait, are in hand and are dead, how many take from it, and
    how long the first has waited; what a broker does not tell is empty.

    A broker that cannot be reached is left out, unless -t or -p names it. RabbitMQ tells of a queue
    only to who knows its name: of what is not named, those of registered services are asked for.
    """
    place = check_place(transport, peer, "queue", common.env.vars)
    wanted = [parse_queue(name) for name in names]
    common.env.target = " ".join(names)
    with common.app() as app:
        found = Brokers(common, app, *place).list(wanted or _candidates(common, app))
    if wanted:
        found = [(broker, queue) for broker, queue in found if queue.name in wanted]
        check_all(wanted, [queue.name for _, queue in found])
    rows = [queue_row(broker, queue) for broker, queue in found]
    if render[0] in ("table", "name"):
        rows = [{**row, "oldest": age(row["oldest"])} for row in rows]
    common.out.rows(rows, QUEUE_COLUMNS, render[0], wants_head=render[1])


@command(
    "show",
    short_help="The messages that wait in a queue.",
    examples=("fan queue show mail", "fan queue show orders.created/audit -N 1 --json"),
)
@queue_argument
@limit_option
@place_options
@common
@listing
def show(
    common: Common, *, name: str, limit: int, transport: str, peer: str, render: tuple[Format, bool]
) -> None:
    """Show the first messages that wait in QUEUE; they stay where they are, but in RabbitMQ, which
    gives a message only to who takes it: there they stand at the end afterwards. Secrets in
    headers are masked."""
    _letters(common, name, limit, (transport, peer), render, LETTER_COLUMNS)


@command(
    "dead",
    short_help="The dead letters of a queue.",
    examples=("fan queue dead mail", "fan queue dead mail --json | jq -r .error"),
)
@queue_argument
@limit_option
@place_options
@common
@listing
def dead(
    common: Common, *, name: str, limit: int, transport: str, peer: str, render: tuple[Format, bool]
) -> None:
    """Show the messages that nobody could handle, or that came too late, and why."""
    _letters(common, name, limit, (transport, peer), render, DEAD_COLUMNS, dead=True)


@command(
    "requeue",
    short_help="Put dead letters back.",
    examples=(
        "fan queue requeue mail",
        "fan queue requeue mail 17 18",
        "fan queue requeue mail --dry-run",
    ),
)
@queue_argument
@click.argument("ids", metavar="[ID]...", nargs=-1)
@place_options
@dry_option
@common
def requeue(
    common: Common, *, name: str, ids: tuple[str, ...], transport: str, peer: str, dry_run: bool
) -> int:
    """Put the dead letters of QUEUE back into it, all of them or those of the IDs that `fan queue
    dead` shows; they are delivered anew."""
    wanted = dict.fromkeys(ids)
    with common.app() as app:
        queue, broker, brokers = _found(common, app, name, (transport, peer))
        if dry_run:
            count = count_dead(broker, queue, tuple(wanted), brokers.deadline)
        else:
            count = broker.queues.requeue(queue, tuple(wanted), deadline=brokers.deadline)
    missing = len(wanted) - count if wanted else 0
    if missing and not count:
        from fan import NotFound

        raise NotFound(f"{queue} has no dead letter {' or '.join(wanted)}", reason="no_such_letter")
    _report(common, queue, broker, "requeued", count, dry_run)
    if missing:
        common.out.warn(f"{missing} of the {len(wanted)} dead letters are not there")
        return Exit.PARTIAL
    return Exit.OK


@command(
    "purge",
    short_help="Throw away what waits in a queue.",
    examples=(
        "fan queue purge mail -y",
        "fan queue purge mail --dead",
        "fan queue purge mail --dry-run",
    ),
)
@queue_argument
@click.option("--dead", "is_dead", is_flag=True, help="The dead letters instead.")
@place_options
@dry_option
@click.option("-y", "--yes", is_flag=True, help="Ask nothing.")
@common
def purge(
    common: Common,
    *,
    name: str,
    is_dead: bool,
    transport: str,
    peer: str,
    dry_run: bool,
    yes: bool,
) -> int:
    """Throw away the messages that wait in QUEUE, or its dead letters. What a worker has in hand
    stays. On a terminal it asks first."""
    with common.app() as app:
        queue, broker, brokers = _found(common, app, name, (transport, peer))
        what = "dead letters" if is_dead else "messages"
        if dry_run:
            count = count_of(broker, queue, brokers.deadline, is_dead=is_dead)
        elif yes or common.out.ask(f"throw away the {what} of {queue} at {broker.url}?"):
            count = broker.queues.purge(queue, dead=is_dead, deadline=_anew(common, app))
        else:
            count = 0
    _report(common, queue, broker, "purged", count, dry_run)
    return Exit.OK


@command(
    "delete",
    short_help="End a queue that nobody takes from.",
    examples=(
        "fan queue delete orders.created/audit",
        "fan queue delete mail -t redis -y",
        "fan queue delete mail --dry-run",
    ),
)
@queue_argument
@place_options
@click.option("--dry-run", is_flag=True, help="Say what would go; change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Ask nothing.")
@common
def delete(
    common: Common, *, name: str, transport: str, peer: str, dry_run: bool, yes: bool
) -> int:
    """End QUEUE, with what waits in it and its dead letters. A group whose service is gone, say,
    would get a copy of each event for ever. It is refused while somebody takes from the queue; who
    subscribes again, or is pushed to, makes it anew. On a terminal it asks first."""
    with common.app() as app:
        queue, broker, brokers = _found(common, app, name, (transport, peer))
        found = one_queue(broker, queue, brokers.deadline)
        count = found.ready + (found.in_flight or 0) + found.dead
        if dry_run and found.consumers:
            from fan import FailedPrecondition

            raise FailedPrecondition(
                f"{found.consumers} still take from {queue} at {broker.url}", reason="queue_in_use"
            )
        question = f"delete the queue {queue} at {broker.url} (messages in it: {count})?"
        is_done = not dry_run and (yes or common.out.ask(question))
        if is_done:
            count = broker.queues.delete(queue, deadline=_anew(common, app))
    if common.env.is_json:
        told = {"v": 1, "ok": True, "queue": str(queue), "transport": broker.transport}
        dry = {"dry_run": True} if dry_run else {}
        common.out.object(
            {**told, "address": broker.url, "changed": is_done, "messages": count, **dry}
        )
    elif dry_run:
        common.out.text(f"{queue} would be deleted (messages in it: {count})")
    else:
        said = f"{queue} deleted (messages in it: {count})"
        common.out.note(said if is_done else "nothing deleted")
    return Exit.OK


def _letters(
    common: Common,
    name: str,
    limit: int,
    place: tuple[str, str],
    render: tuple[Format, bool],
    columns: tuple[str, ...],
    *,
    dead: bool = False,
) -> None:
    from fancli.letters import letter_row

    with common.app() as app:
        queue, broker, brokers = _found(common, app, name, place)
        found = broker.queues.letters(queue, dead=dead, limit=limit, deadline=brokers.deadline)
    rows = [letter_row(common.env, letter) for letter in found]
    if not dead:
        rows = [{key: each for key, each in row.items() if key != "error"} for row in rows]
    common.out.rows(rows, columns, render[0], wants_head=render[1])


def _found(
    common: Common, app: App, name: str, place: tuple[str, str]
) -> tuple[QueueName, Broker, Brokers]:
    """A queue, and the broker that has it."""
    queue = parse_queue(name)
    common.env.target = str(queue)
    brokers = Brokers(common, app, *check_place(*place, "queue", common.env.vars))
    return queue, brokers.holding(queue), brokers


def _candidates(common: Common, app: App) -> list[QueueName]:
    """The queues that the registry lets expect; a registry that is down is worth a word."""
    from fan import FanError

    try:
        return candidates(app.discovery.services())
    except FanError as exc:
        common.out.warn(f"queues of amqp may be missing: {exc}")
        return []


def _anew(common: Common, app: App) -> float:
    """A deadline from now: how long a person takes to answer is no part of the budget."""
    import time

    return time.monotonic() + (common.timeout or app.settings.timeout)


def _report(
    common: Common, queue: QueueName, broker: Broker, done: str, count: int, dry_run: bool
) -> None:
    if common.env.is_json:
        told = {"v": 1, "ok": True, "queue": str(queue), "transport": broker.transport}
        changed = bool(count) and not dry_run
        dry = {"dry_run": True} if dry_run else {}
        common.out.object({**told, "address": broker.url, "changed": changed, done: count, **dry})
    elif dry_run:
        common.out.text(f"{count} would be {done}")
    else:
        common.out.note(f"{count} {done}")


for _command in (list_, show, dead, requeue, purge, delete):
    queue.add_command(_command)
