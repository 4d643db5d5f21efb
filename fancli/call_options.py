"""The options that `fan call` alone takes, by theme, and what they come to.

A TAB imports this too: what the options do is in the modules that `call` imports when they are
used.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click
import msgspec

from fancli.options import add_options
from fancli.params import Duration, Usage

#: What `--wait-ready` without a duration is on the way through click.
WHOLE_BUDGET = "budget"
_DURATION = re.compile(r"\d+(?:\.\d+)?(?:ms|s|m|h)?")
#: What `--print` may show.
PARTS = "HBrhbm"

Options = tuple[Callable[[Any], Any], ...]


class How(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `fan call` that others have not; the names are those of click's parameters."""

    # A file
    file: str = ""
    arguments: tuple[str, ...] = ()
    wants_editor: bool = False
    # Again
    retry_delay: float | None = None
    retries_all: bool = False
    wait_ready: str | None = None
    no_breaker: bool = False
    # What is shown
    is_raw: bool = False
    path: str = ""
    output: str = ""
    wants_meta: bool = False
    parts: str = ""
    language: str | None = None
    explain: bool = False
    health: bool = False
    # Many
    each: bool = False
    workers: int | None = None
    unordered: bool = False
    fail_fast: bool = False
    repeat: int | None = None
    interval: float | None = None
    fanout: bool = False
    diff: bool = False
    against: tuple[str, str] | None = None
    record: str = ""

    @property
    def is_batch(self) -> bool:
        """Whether it is more than one call, each with an outcome of its own."""
        return self.each or self.repeats or self.fanout

    @property
    def repeats(self) -> bool:
        """Whether the same call is made again and again."""
        return self.repeat is not None or self.interval is not None


def check(how: How, *, is_dry: bool, is_json: bool) -> None:
    """Refuse what does not go together. Raises Usage."""
    modes = {
        "--each": how.each,
        "--repeat": how.repeats,
        "--fanout": how.fanout,
        "--against": how.against is not None,
        "--health": how.health,
        "--as": how.language is not None,
        "--dry-run": is_dry,
    }
    used = [name for name, is_used in modes.items() if is_used]
    if len(used) > 1:
        raise Usage(f"{used[0]} and {used[1]} are two things to do", "one of them")
    if how.parts and (is_json or used):
        raise Usage(f"--print and {'--json' if is_json else used[0]} do not go together")
    if how.path and (how.diff or how.against):
        raise Usage(f"--get and {'--diff' if how.diff else '--against'} do not go together")
    if (how.parts or how.is_batch or how.against) and how.output:
        raise Usage("-o takes the result of one call", "redirect: > FILE")
    needs = (
        ("-c", how.workers is not None, "--each or --repeat", how.each or how.repeats),
        ("--unordered", how.unordered, "--each or --repeat", how.each or how.repeats),
        ("--fail-fast", how.fail_fast, "--each or --repeat", how.each or how.repeats),
        ("--diff", how.diff, "--fanout", how.fanout),
        ("-A", bool(how.arguments), "-f FILE", bool(how.file)),
    )
    for name, is_used, other, is_there in needs:
        if is_used and not is_there:
            raise Usage(f"{name} goes with {other}")
    if how.file == "-" and how.each:
        raise Usage("--each and -f - would both read stdin", "-f FILE")
    if how.wants_editor and how.each:
        raise Usage("--each reads its payloads from stdin", "without --edit")


def _check_parts(ctx: click.Context, param: click.Parameter, value: str) -> str:
    for letter in value:
        if letter not in PARTS:
            raise Usage(
                f"--print {value!r}: {letter!r} is none of {PARTS}",
                "H B request headers and body, r route, h b reply headers and body, m meta",
            )
    return value


def _check_ready(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and value != WHOLE_BUDGET:
        Duration().convert(value, param, ctx)
    return value


def with_bare_wait(args: list[str]) -> list[str]:
    """The arguments with a duration behind `--wait-ready`: the next word where it is one, which no
    target and no item can be, else the whole budget. click would take any word."""
    found: list[str] = []
    rest = list(args)
    while rest:
        arg = rest.pop(0)
        if arg == "--":
            return [*found, arg, *rest]
        if arg == "--wait-ready":
            is_given = bool(rest) and _DURATION.fullmatch(rest[0])
            arg = f"{arg}={rest.pop(0) if is_given else WHOLE_BUDGET}"
        found.append(arg)
    return found


_FILE: Options = (
    click.option("-f", "--file", metavar="FILE|-", default="", help="A request in a file."),
    click.option(
        "-A", "--arg", "arguments", multiple=True, metavar="K=V", help="Fill ${K} of the file."
    ),
    click.option("--edit", "wants_editor", is_flag=True, help="Write the payload in $EDITOR."),
)
_AGAIN: Options = (
    click.option("--retry-delay", type=Duration(), metavar="DUR", help="Pause before a retry."),
    click.option(
        "--retry-all-errors", "retries_all", is_flag=True, help="Retry whatever it was."
    ),
    click.option(
        "--wait-ready",
        metavar="[=DUR]",
        callback=_check_ready,
        help="Wait until the service takes calls; without =DUR within --timeout.",
    ),
    click.option("--no-breaker", is_flag=True, help="Call also what keeps failing."),
)
_SHOW: Options = (
    click.option(
        "-r", "--raw", "is_raw", is_flag=True, help="A text result without quotes, bytes as is."
    ),
    click.option("--get", "path", metavar="PATH", default="", help="A part: a.b[0], /a/b/0."),
    click.option(
        "--print",
        "parts",
        metavar="HBrhbm",
        default="",
        callback=_check_parts,
        help="Request Headers, Body; route; reply headers, body; meta.",
    ),
    click.option("-o", "--output", metavar="FILE", default="", help="Write the result to a file."),
    click.option("--meta", "wants_meta", is_flag=True, help="Version, instance, time on stderr."),
    click.option("--explain", is_flag=True, help="Why this version, instance and transport."),
    click.option(
        "--as",
        "language",
        type=click.Choice(["curl", "python", "file"]),
        help="Print the call in other words, send nothing.",
    ),
    click.option("--health", is_flag=True, help="Ask SERVICE whether it is well."),
)
_MANY: Options = (
    click.option("--each", is_flag=True, help="A payload per line of stdin (NDJSON)."),
    click.option(
        "-c",
        "--concurrency",
        "workers",
        metavar="N",
        type=click.IntRange(1, 1000),
        help="Calls at once. [1]",
    ),
    click.option("--unordered", is_flag=True, help="Print as they are done."),
    click.option("--fail-fast", is_flag=True, help="Stop at the first failure."),
    click.option(
        "-N", "--repeat", metavar="N", type=click.IntRange(min=1), help="Call N times."
    ),
    click.option("--interval", type=Duration(), metavar="DUR", help="Call again every DUR."),
    click.option("--fanout", is_flag=True, help="Call every instance."),
    click.option("--diff", is_flag=True, help="Compare what the instances answer."),
    click.option(
        "--against", nargs=2, metavar="@V1 @V2", default=None, help="Compare two versions."
    ),
    click.option("--record", metavar="FILE", default="", help="Keep calls for fan replay."),
)

call_options: Callable[[Any], Any] = add_options((*_FILE, *_AGAIN, *_SHOW, *_MANY))
