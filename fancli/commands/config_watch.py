"""`fan config watch`: every change of configs as an event, as a file, as a command that is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from fancli.companion import Target, run_command
from fancli.complete import complete_key
from fancli.configs import opened
from fancli.cursors import CursorFile
from fancli.exits import Exit
from fancli.group import command
from fancli.options import Common, common
from fancli.params import Duration, Usage, read_text

if TYPE_CHECKING:
    from fan import Configs

#: Seconds until what failed is tried again: the first time, and at most.
_AGAIN, _LONGEST = 0.5, 30.0

#: Events that change what is there.
_NEWS = frozenset({"snapshot", "set", "delete"})


@command(
    "watch",
    short_help="Every change, as it happens.",
    examples=(
        "fan config watch orders/theme",
        "fan config watch orders/ --cursor-file orders.cursor --exec './changed.sh'",
        "fan config watch web/ --render web.tpl --out web.conf --exec 'systemctl reload web'",
        "fan config watch orders/ --since 5f1c:31 --once",
    ),
)
@click.argument(
    "names", metavar="KEY|PREFIX/...", nargs=-1, required=True, shell_complete=complete_key
)
@click.option("--since", metavar="E:G[:OP]", default="", help="Begin behind this cursor.")
@click.option("--cursor-file", metavar="FILE", default="", help="Go on where the last run ended.")
@click.option("--latest", is_flag=True, help="Only the newest of the changes that wait.")
@click.option("--strict", is_flag=True, help="A history that is not kept any more is exit 11.")
@click.option("--once", is_flag=True, help="End when there is no more for now.")
@click.option("--exec", "line", metavar="CMD", default="", help="Run this for each change.")
@click.option(
    "--exec-timeout", type=Duration(), default=60.0, metavar="DUR", help="For CMD. [60s]"
)
@click.option("--render", metavar="TEMPLATE", default="", help="File with ${KEY} in it, for --out.")
@click.option("--out", metavar="FILE", default="", help="Write the value, or TEMPLATE, here.")
@common
def watch(
    common: Common,
    *,
    names: tuple[str, ...],
    since: str,
    cursor_file: str,
    line: str,
    exec_timeout: float,
    render: str,
    out: str,
    once: bool,
    **how: Any,
) -> int:
    """Print what is there, then every change, in order, a JSON object a line; a name that ends in /
    is a prefix. With a cursor only what came after it, nothing twice and nothing left out.

    The events: set and delete; snapshot, first without a cursor; reset and compacted, when the
    history was put back or is not kept that far, with a snapshot behind; disconnected, connected.
    The cursor with an event is where --since goes on; --cursor-file keeps the last one that was
    handled.

    CMD gets the event as JSON on stdin, and as FAN_EVENT, FAN_KEY, FAN_VALUE, FAN_REV and FAN_GEN;
    when it fails it is tried again, and what comes later waits. With --out it is run once for each
    generation, after FILE was replaced. In TEMPLATE ${orders/theme} is a config, ${theme} one below
    a watched prefix or a member of a watched config, ${value} all of it; ${x:-y} has a default,
    $${ is ${, and a $name is left alone.
    """
    if since and cursor_file:
        raise Usage("--since and --cursor-file", "one of them")
    if render and not out:
        raise Usage("--render needs --out FILE")
    keeper = CursorFile(cursor_file) if cursor_file else None
    template = read_text(render, "--render", common.env) if render else None
    target = Target(out, template, names) if out else None
    with opened(common) as (config, _):
        start = since or (keeper.read() if keeper else "")
        worker = _Worker(common, config, names, target, line, exec_timeout, is_once=once)
        with config.watch(*names, since=start, **how) as changes:
            for batch in changes.batches():
                for event in map(_told, batch.events):
                    common.out.line(event)
                worker.handle([_told(event) for event in batch.events], batch.is_idle)
                if keeper:
                    keeper.store(batch.cursor)
                if once and batch.is_idle:
                    break
    return Exit.OK


def _told(event: Any) -> dict[str, Any]:
    """An event with the members that it has."""
    told: dict[str, Any] = {"event": event.event}
    if event.event in _NEWS:
        told |= {"key": event.key, "value": event.value, "rev": event.rev}
    if event.event == "delete":
        del told["value"]
    if event.gen or event.event in _NEWS:
        told["gen"] = event.gen
    if event.cursor:
        told["cursor"] = event.cursor
    return told


class _Worker:
    """Does what is to be done at a change, again until it works; with `--once` a failure is the
    command's."""

    def __init__(
        self,
        common: Common,
        config: Configs,
        names: tuple[str, ...],
        target: Target | None,
        line: str,
        timeout: float,
        *,
        is_once: bool,
    ) -> None:
        self._common = common
        self._config = config
        self._names = names
        self._target = target
        self._line = line
        self._timeout = timeout
        self._is_once = is_once
        #: Whether the file was written since the start.
        self._is_written = False
        #: What was last said to be missing.
        self._missing = ""

    def handle(self, events: list[dict[str, Any]], is_idle: bool) -> None:
        """Write and run what these events ask for."""
        news = [event for event in events if event["event"] in _NEWS]
        if self._target is not None:
            if news or (is_idle and not self._is_written):
                self._until_done(lambda: self._write(news))
        elif self._line:
            for event in news:
                self._until_done(lambda event=event: self._run(event))  # type: ignore[misc]

    def _write(self, news: list[dict[str, Any]]) -> None:
        from fan import NotFound

        assert self._target is not None
        try:
            is_changed = self._target.write(self._config.values(*self._names))
        except NotFound as exc:
            if self._is_once:
                raise
            # The file stays as it is until a change brings what is missing.
            if self._missing != str(exc):
                self._missing = str(exc)
                self._common.out.warn(f"{exc}; it is written when there is one")
            return
        self._is_written, self._missing = True, ""
        # A change that a run before us wrote, and did not come to tell, is told now.
        if self._line and (news or is_changed):
            self._run(news[-1] if news else {"event": "snapshot"})

    def _run(self, event: Mapping[str, Any]) -> None:
        from fan import Unknown

        env = self._common.env
        status = run_command(self._line, event, self._timeout, self._common.out, env.vars)
        if status:
            raise Unknown(
                f"`{self._line}` ended with {status}", reason="exec_failed", executed="yes"
            )

    def _until_done(self, act: Callable[[], None]) -> None:
        from fan import FanError

        for wait in _waits():
            try:
                act()
                return
            except FanError as exc:
                if self._is_once:
                    raise
                self._common.out.warn(f"{exc}; again in {wait:g}s")
            _pause(wait)


def _waits() -> Iterator[float]:
    wait = _AGAIN
    while True:
        yield wait
        wait = min(wait * 2, _LONGEST)


def _pause(seconds: float) -> None:
    import time

    time.sleep(seconds)
