"""`fan run`: a program with configs in its environment, started again when they change."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import click

from fancli.complete import complete_key
from fancli.configs import opened, text_of
from fancli.env import is_tty
from fancli.group import command
from fancli.options import Common, common
from fancli.params import Duration, Usage

if TYPE_CHECKING:
    from fan import Configs, ConfigWatch
    from fancli.guarded import Guarded
    from fancli.processes import Signals


@command(
    "run",
    short_help="Run a program with configs in its environment.",
    examples=(
        "fan run --env orders/ -- ./server --port 8080",
        "fan run --env shared/ --env orders/ -- sh -c 'echo $THEME'",
    ),
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
)
@click.option(
    "--env",
    "prefixes",
    metavar="PREFIX",
    multiple=True,
    required=True,
    shell_complete=complete_key,
    help="Configs below it become variables. May be repeated; the last one wins.",
)
@click.option(
    "--grace",
    type=Duration(),
    default=10.0,
    metavar="DUR",
    help="How long it may take to end before it is killed. [10s]",
)
@click.argument("program", metavar="-- CMD [ARG]...", nargs=-1, required=True)
@common
def run(
    common: Common, *, prefixes: tuple[str, ...], grace: float, program: tuple[str, ...]
) -> int:
    """Run CMD with the configs below each PREFIX in its environment: `orders/db/host` of the prefix
    `orders/` is DB_HOST. A string is as it is, anything else JSON; members of an object that is a
    config are variables too.

    When the configs change, CMD is ended (SIGTERM, and killed after --grace) and started anew. When
    it ends by itself its exit status is ours; signals are passed on; it never outlives us.
    """
    from fancli.processes import Signals

    names = tuple(prefix if prefix.endswith("/") else f"{prefix}/" for prefix in prefixes)
    with opened(common) as (config, _), Signals() as signals:
        watched = [each for name in names for each in (name, name.rstrip("/"))]
        with config.watch(*watched) as changes, _Ears(changes, common) as ears:
            return _Runner(common, config, names, program, grace).run(signals, ears)


class _Ears:
    """Hears of changes in a thread, and says so through a pipe."""

    def __init__(self, changes: ConfigWatch, common: Common) -> None:
        self._changes = changes
        self._common = common
        self._read, self._write = os.pipe()
        self._thread = threading.Thread(target=self._listen, name="fan-run", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._changes.close()
        self._thread.join()
        os.close(self._read)
        os.close(self._write)

    def fileno(self) -> int:
        """Readable after a change."""
        return self._read

    def take(self) -> None:
        """Forget what was heard."""
        os.read(self._read, 4096)

    def _listen(self) -> None:
        from fan import FanError

        try:
            for batch in self._changes.batches():
                if any(event.event in ("snapshot", "set", "delete") for event in batch.events):
                    os.write(self._write, b"!")
        except FanError as exc:
            self._common.out.warn(f"changes are not followed any more: {exc}")


class _Runner:
    """Starts the program, again at each change of its variables, until it or we end."""

    def __init__(
        self,
        common: Common,
        config: Configs,
        names: tuple[str, ...],
        program: tuple[str, ...],
        grace: float,
    ) -> None:
        self._common = common
        self._config = config
        self._names = names
        self._program = program
        self._grace = grace
        self._shares = is_tty(common.env.stdin)

    def run(self, signals: Signals, ears: _Ears) -> int:
        from fancli.guarded import Guarded

        vars = self._variables()
        while True:
            child = Guarded(
                self._program,
                {**self._common.env.vars, **vars},
                grace=self._grace,
                shares=self._shares,
            )
            try:
                changed = self._until_news(child, signals, ears, vars)
            finally:
                status = child.stop()
            if changed is None:
                return signals.status if signals.seen else status
            vars = changed
            self._common.out.note("restarting: configs changed")

    def _until_news(
        self, child: Guarded, signals: Signals, ears: _Ears, vars: dict[str, str]
    ) -> dict[str, str] | None:
        """The variables to start again with; None when the program or we have to end."""
        import signal

        watched: list[Guarded | Signals | _Ears] = [child, signals, ears]
        while True:
            found, _, _ = select.select(watched, [], [])
            if signals in found:
                if signals.seen != signal.SIGTERM:  # which is how it is ended anyway
                    # A Ctrl-C on a terminal that is shared has reached it already.
                    if not (child.shares and signals.seen == signal.SIGINT):
                        child.send(signals.seen)
                    select.select([child], [], [], self._grace)
                return None
            if child in found:
                return None
            ears.take()
            now = self._read_again()
            if now is not None and now != vars:
                return now

    def _read_again(self) -> dict[str, str] | None:
        from fan import FanError

        try:
            return self._variables()
        except FanError as exc:
            self._common.out.warn(f"the program goes on as it is: {exc}")
            return None

    def _variables(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in self._names:
            for key, value in _flat(self._config.document(name), ""):
                found[_variable(key)] = _text(name + key, value)
        return found


def _flat(document: Mapping[str, Any], above: str) -> list[tuple[str, Any]]:
    """The leaves of a document, by path; a list is a leaf."""
    found = []
    for name, value in document.items():
        if isinstance(value, dict) and value:
            found += _flat(value, f"{above}{name}/")
        else:
            found.append((above + name, value))
    return found


def _variable(key: str) -> str:
    """The name of a variable: capitals, and _ for all that is no letter or digit."""
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in key).upper()
    return f"_{name}" if name[:1].isdigit() else name


def _text(key: str, value: Any) -> str:
    text = text_of(value)
    if "\0" in text:
        raise Usage(f"config {key} has a NUL in it, which no variable can hold")
    return text
