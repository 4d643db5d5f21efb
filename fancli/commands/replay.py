"""`fan replay`: calls that `fan call --record` kept, made again and held against what came then."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import click
import msgspec

from fancli.complete import complete_transport
from fancli.group import command
from fancli.options import Common, common
from fancli.params import Usage, check_peers, check_transport

if TYPE_CHECKING:
    from fan import App, Recorded
    from fancli.batch import Job
    from fancli.calling import Answer


@command(
    "replay",
    short_help="Make recorded calls again.",
    examples=(
        "fan call greeter.hello name=Ada --record calls.ndjson",
        "fan replay calls.ndjson",
        "fan replay calls.ndjson --check --want 2",
        "fan replay calls.ndjson --check -p http://127.0.0.1:8080 --json",
    ),
)
@click.argument("file", metavar="FILE", type=click.Path())
@click.option("--check", is_flag=True, help="Compare with the replies that are recorded.")
@click.option("--want", metavar="VERSION", default="", help="Ask this version. [as recorded]")
@click.option("-t", "--transport", metavar="NAME", default="auto",
              shell_complete=complete_transport, help="auto, ipc, http, ...")  # fmt: skip
@click.option("-p", "--peer", multiple=True, metavar="URL", help="Address; asks no registry.")
@click.option("-c", "--concurrency", "workers", metavar="N", type=click.IntRange(1, 1000),
              default=1, help="Calls at once. [1]")  # fmt: skip
@click.option("--fail-fast", is_flag=True, help="Stop at the first failure.")
@common
def replay(
    common: Common,
    *,
    file: str,
    check: bool,
    want: str,
    transport: str,
    peer: tuple[str, ...],
    workers: int,
    fail_fast: bool,
) -> int:
    """Make the calls in FILE again, one after the other, and print the results, a line each.

    With --check nothing but what has become different is printed, and exits with 9.
    """
    from fancli.batch import run_all

    given = {
        "want": want.removeprefix("@"),
        "transport": check_transport("-t", transport),
        "peers": check_peers(peer, vars=common.env.vars),
        "timeout": common.timeout,
    }
    options = {name: value for name, value in given.items() if value}
    places: dict[int, Recorded] = {}
    count = differing = 0

    def emit(place: int, answer: Answer) -> None:
        nonlocal count, differing
        record = places.pop(place)
        count += 1
        differing += not answer.is_ok
        if common.env.is_json:
            common.out.write(msgspec.json.encode({**answer.found, "line": place + 1}) + b"\n")
        elif answer.is_ok:
            if not check:
                common.out.write(msgspec.json.encode(answer.found["result"]) + b"\n")
        else:
            _told(common, record, place + 1, answer)

    with common.app(live=True) as app:

        def jobs() -> Iterator[Job]:
            for place, record in enumerate(_records(file)):
                places[place] = record
                yield partial(_again, common, app, record, options, check)

        status = run_all(jobs(), emit, workers=workers, fail_fast=fail_fast)
    if check:
        common.out.note(f"* {count} replayed, {differing} different")
    return status


def _records(path: str) -> Iterator[Recorded]:
    from fan import Recorded

    try:
        yield from Recorded.read(path)
    except OSError as exc:
        raise Usage(f"FILE: cannot read {path!r}: {exc.strerror}") from None


def _again(
    common: Common, app: App, record: Recorded, options: dict[str, Any], check: bool
) -> Answer:
    from fan import FanError
    from fancli.answers import failure_of
    from fancli.calling import Answer, answer_of

    try:
        client = app.using(**{**record.options, **options})
        answer = answer_of(
            client, record.service, record.method, record.content_type, bytes(record.body),
            is_stream=record.is_stream, shows_all=common.env.show_secrets,
        )  # fmt: skip
    except FanError as exc:
        answer = Answer(failure_of(common.out, record.target, exc), error=exc)
    return _checked(record, answer) if check else answer


def _checked(record: Recorded, answer: Answer) -> Answer:
    """The answer, held against the one that is recorded."""
    from fancli.answers import broken_promise
    from fancli.calling import Answer
    from fancli.compare import comparable, has_answered
    from fancli.paths import differences

    was, now = comparable(record.reply), comparable(answer.found)
    found = [each.as_json("recorded", "actual") for each in differences(was, now)]
    if not found:
        return Answer({**answer.found, "ok": True}, answer.result)
    if answer.error is not None and not has_answered(answer.error):
        return answer
    message = f"{found[0]['path']} is not as it was recorded"
    served = {name: answer.found.get(name) for name in ("version", "instance")}
    reply = broken_promise(
        record.target, "replay_differs", message, {"differences": found}, **served, was=was, now=now
    )
    return Answer(reply, answer.result)


def _told(common: Common, record: Recorded, line: int, answer: Answer) -> None:
    """A failure as talk, a difference as a diff."""
    from fancli.compare import label_of, unified
    from fancli.render import clean, plain_error

    found = answer.found
    if answer.error is not None:
        said = f"line {line}: {plain_error(answer.error, record.target)}"
        common.out.warn(clean(said), is_error=True)
    else:
        recorded = f"line {line}: {record.target}, recorded"
        common.out.text(unified(found["was"], found["now"], recorded, label_of(found, "now")))
