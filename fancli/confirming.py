"""The options of the commands that change what is routed, and what they tell while it is
confirmed."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from fancli.options import Common, add_options
from fancli.params import Duration, Usage
from fancli.switching import WHOLE, author, undo_line

if TYPE_CHECKING:
    from fan import Tally


class Need(click.ParamType[float]):
    """Option type of `--confirm`: the share of the subscribers that is waited for."""

    name = "all|none|N%"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        words = {"all": 1.0, "none": 0.0}
        if value in words:
            return words[value]
        try:
            share = float(value.removesuffix("%")) / 100 if value.endswith("%") else -1.0
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            raise Usage(f"--confirm {value!r}", "all, none, or a share of them as in 90%", ctx)
        return share


def share_of(text: str, option: str) -> tuple[str, int]:
    """Version and basis points of `V=5%`. Raises Usage."""
    version, equals, share = text.rpartition("=")
    if not equals or not version:
        raise Usage(f"{option} {text!r} is no weight", "VERSION=PERCENT, as in 2.0.0=5%")
    return version, basis_points(share, f"{option} {text!r}")


def basis_points(text: str, what: str) -> int:
    """Basis points of `5%`, `0.25%` or a bare number of percent. Raises Usage."""
    try:
        points = float(text.removesuffix("%")) * 100
    except ValueError:
        points = -1.0
    if not 0 <= points <= WHOLE or abs(points - round(points)) > 1e-6:
        raise Usage(f"{what}: a weight is 0% to 100%, in steps of 0.01%", "as in 2.0.0=5%")
    return round(points)


def shares_of(given: tuple[str, ...], option: str) -> dict[str, int]:
    """Several of them. Raises Usage for a version that has two, and for more than the whole."""
    pairs = [share_of(text, option) for text in given]
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Usage(f"{option}: a version is named twice")
    return found


def confirming(f: Callable[..., Any]) -> Callable[..., Any]:
    """Options of a command whose change is confirmed; they come as its `confirm`. Stands below
    `common`."""

    @wraps(f)
    def run(
        common: Common,
        prepare: bool,
        confirm: float,
        confirm_timeout: float,
        auto_rollback: bool,
        **options: Any,
    ) -> Any:
        from fan import Confirm

        if auto_rollback and not confirm:
            raise Usage("--auto-rollback and --confirm none", "one of them")
        how = Confirm(
            need=confirm,
            timeout=confirm_timeout,
            auto_rollback=auto_rollback,
            prepare=prepare,
            on_commit=committed(common),
            on_progress=progress(common),
        )
        try:
            return f(common, confirm=how, **options)
        finally:
            common.out.progress("")

    return add_options(
        (
            click.option(
                "--prepare", is_flag=True, help="Ask its subscribers first; one no stops it."
            ),
            *_WAITING,
            click.option(
                "--auto-rollback", is_flag=True, help="Take it back where it is not confirmed."
            ),
        )
    )(run)


_WAITING: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--confirm",
        type=Need(),
        default="all",
        help="How many subscribers have to apply it. [all]",
    ),
    click.option(
        "--confirm-timeout",
        type=Duration(),
        metavar="DUR",
        default="30s",
        help="How long they have for it. [30s]",
    ),
)

waiting = add_options(_WAITING)

force = add_options(
    (
        click.option(
            "--force",
            is_flag=True,
            help="Also to versions without enough live instances; the history says so.",
        ),
    )
)

min_healthy = add_options(
    (
        click.option(
            "--min-healthy",
            type=click.IntRange(min=0),
            metavar="N",
            default=1,
            help="Live instances that a version needs. [1]",
        ),
    )
)


def committed(common: Common) -> Callable[[int, Any], None]:
    """Tell what is in force and how it is undone before anybody is waited for: whoever is stopped
    meanwhile has read it."""

    def tell(gen: int, undoes: Any) -> None:
        if not common.env.is_json:
            if undoes is not None:
                common.out.note(f"undoes {author(undoes)}")
            common.out.note(f"generation {gen}")
            common.out.note(f"undo: {undo_line(common, gen)}")

    return tell


def progress(common: Common) -> Callable[[Tally], None]:
    """Tell how many have it in force by now, on a terminal."""
    return lambda tally: common.out.progress(f"confirmed {len(tally.applied)}/{tally.total}")
