"""What every command that writes takes and tells: `-m`, `--dry-run`, `--if-gen`, `--op`, `-y`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

import click
import msgspec

from fancli.configs import shown, text_of
from fancli.exits import Exit
from fancli.options import add_options

if TYPE_CHECKING:
    from fan import Write, Written
    from fancli.options import Common


class Writing:
    """The options of one write, and what it tells: the op before it is sent, and the outcome."""

    def __init__(
        self, common: Common, message: str, dry_run: bool, if_gen: int | None, op: str
    ) -> None:
        self._common = common
        self._message = message
        self._is_dry = dry_run
        self._if_gen = if_gen
        self._op = op
        self._announced = ""

    @property
    def how(self) -> Write:
        """As the library takes it."""
        from fan import Write

        return Write(
            message=self._message,
            if_gen=self._if_gen,
            op=self._op,
            dry_run=self._is_dry,
            announce=self._announce,
        )

    def _announce(self, op: str) -> None:
        """Said before the change is sent: whoever is killed meanwhile can repeat it safely."""
        self._announced = op
        if not self._common.env.is_json:
            self._common.out.note(f"op {op}")

    @contextmanager
    def told(self) -> Iterator[None]:
        """Give an error whose outcome is unknown the op that a retry takes."""
        from fan import FanError

        try:
            yield
        except FanError as exc:
            if exc.executed == "maybe" and self._announced:
                details = exc.details if isinstance(exc.details, dict) else {}
                exc.details = {**details, "op": self._announced}
                if not self._common.env.is_json:
                    exc.message += f"; run it again with --op {self._announced}"
            raise

    def report(self, done: Written) -> int:
        """Tell the outcome: nothing on stdout but with --json, or of a dry run."""
        common = self._common
        changes = [_change(common, step) for step in done.steps]
        if common.env.is_json:
            told = {"changed": done.is_changed, "gen": done.gen, "op": done.op or None}
            dry = {"dry_run": True, "changes": changes} if self._is_dry else {}
            common.out.object({"v": 1, "ok": True, **told, **dry})
        elif self._is_dry:
            for change in changes:
                common.out.text(_line(change))
            if not changes:
                common.out.note("nothing would change")
        elif not done.is_changed:
            common.out.note(f"unchanged, generation {done.gen}")
        else:
            common.out.note(f"generation {done.gen}")
        return Exit.OK


def _change(common: Common, step: Any) -> dict[str, Any]:
    kind, _, key = step.object.partition("/")

    def value(body: bytes | None) -> Any:
        found = None if body is None else msgspec.json.decode(body)
        return found if kind == "schema" else shown(common.env, key, found)

    verb = "delete" if step.after is None else "set" if not step.after_rev else "rollback"
    return {
        "kind": kind,
        "key": key,
        "verb": verb,
        "from": {"rev": step.before_rev, "value": value(step.before)},
        "to": {"rev": step.after_rev or None, "value": value(step.after)},
    }


def _line(change: dict[str, Any]) -> str:
    what = "" if change["kind"] == "config" else f"{change['kind']} "
    sides = [text_of(change[side]["value"]) for side in ("from", "to")]
    if change["verb"] == "delete":
        return f"delete {what}{change['key']}: {sides[0]}"
    before = f"{sides[0]} -> " if change["from"]["value"] is not None else ""
    return f"{change['verb']} {what}{change['key']}: {before}{sides[1]}"


def writing(f: Callable[..., Any]) -> Callable[..., Any]:
    """Options of a command that writes; they come as its `writing`. Stands below `common`."""

    @wraps(f)
    def run(
        common: Common,
        message: str,
        dry_run: bool,
        if_gen: int | None,
        op: str,
        yes: bool,
        **options: Any,
    ) -> Any:
        made = Writing(common, message, dry_run, if_gen, op)
        with made.told():
            return f(common, writing=made, **options)

    return add_options(
        (
            click.option(
                "-m", "--message", metavar="TEXT", default="", help="Why, for the history."
            ),
            click.option("--dry-run", is_flag=True, help="Say what would change; change nothing."),
            click.option(
                "--if-gen",
                type=click.IntRange(min=0),
                metavar="N",
                help="Only if the registry is still at generation N.",
            ),
            click.option(
                "--op",
                metavar="OP",
                default="",
                help="The op of an earlier try: it is never applied twice.",
            ),
            click.option("-y", "--yes", is_flag=True, help="Ask nothing."),
        )
    )(run)


def if_rev(f: Callable[..., Any]) -> Callable[..., Any]:
    """The option `--if-rev N`."""
    return add_options(
        (
            click.option(
                "--if-rev",
                type=click.IntRange(min=0),
                metavar="N",
                help="Only if the config is still at revision N; 0: not there.",
            ),
        )
    )(f)
