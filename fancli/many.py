"""`fan call --each` and `--repeat`: many calls of one method, each with an outcome of its own."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from fancli.answers import failure_of
from fancli.batch import Job, run_all
from fancli.calling import Answer, Caller
from fancli.exits import Exit
from fancli.lines import Beats, Lines
from fancli.payload import JSON

if TYPE_CHECKING:
    from fancli.call_options import How
    from fancli.options import Common
    from fancli.payload import Payload
    from fancli.show import Show


def each(caller: Caller, how: How, show: Show) -> Exit:
    """Call with every line of stdin; an object for every answer, in a line, with the number of the
    line that it belongs to."""
    common = caller.asking.common
    numbers: dict[int, int] = {}
    is_bare = bool(how.is_raw or how.path) and not common.env.is_json

    def emit(place: int, answer: Answer) -> None:
        number = numbers.pop(place)
        if is_bare:
            print_bare(common, show, answer, f"line {number}: ")
        else:
            common.out.write(msgspec.json.encode({**answer.found, "line": number}) + b"\n")

    with Lines(common.env, "--each") as lines:

        def jobs() -> Iterator[Job]:
            for place, (number, line) in enumerate(lines):
                numbers[place] = number
                yield partial(_of_line, caller, line)

        return run_all(
            jobs(), emit, workers=how.workers or 1, in_order=not how.unordered,
            fail_fast=how.fail_fast, wake=lines.wake,
        )  # fmt: skip


def _of_line(caller: Caller, line: bytes) -> Answer:
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        return _refused(caller, f"the line is not JSON: {exc}")
    if not isinstance(value, (dict, list)):
        return _refused(caller, "arguments are an object (by name) or an array (by position)")
    return caller.answer(JSON, line.strip())


def _refused(caller: Caller, message: str) -> Answer:
    from fan import InvalidArgument

    asking = caller.asking
    exc = InvalidArgument(message, reason="malformed")
    return Answer(failure_of(asking.common.out, asking.target.name, exc), error=exc)


def repeat(caller: Caller, how: How, show: Show, payload: Payload) -> Exit:
    """Make the same call `--repeat` times, or until the user has enough of it."""
    common, body = caller.asking.common, payload.encode()
    beats = Beats(how.repeat, how.interval or 0.0)

    def emit(place: int, answer: Answer) -> None:
        if common.env.is_json:
            common.out.write(msgspec.json.encode(answer.found) + b"\n")
        else:
            print_bare(common, show, answer)

    return run_all(
        (partial(caller.answer, *body) for _ in beats), emit, workers=how.workers or 1,
        in_order=not how.unordered, fail_fast=how.fail_fast, wake=beats.wake,
    )  # fmt: skip


def print_bare(common: Common, show: Show, answer: Answer, where: str = "") -> None:
    """The result of one of many calls in a line, or its failure as talk."""
    from fan import NotFound
    from fancli.render import clean, plain_error

    target = answer.found.get("target") or ""
    if answer.is_ok and answer.found.get("result", msgspec.UNSET) is not msgspec.UNSET:
        try:
            common.out.write(show.bare(answer.found))
        except NotFound as exc:
            answer.found["ok"] = False  # it counts among the failures
            common.out.warn(clean(f"{where}{plain_error(exc, target)}"), is_error=True)
    elif not answer.is_ok:
        error = answer.error
        said = plain_error(error, target) if error else answer.found["error"]["message"]
        common.out.warn(clean(f"{where}{said}"), is_error=True)
