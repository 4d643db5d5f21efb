"""What the commands share that speak of instances: `SVC/ID`, `SVC@V`, and the options of a change
that is outside of the generations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from fancli.complete import complete_instances
from fancli.options import Common, add_options
from fancli.params import Usage, check_name

if TYPE_CHECKING:
    from fan import App, Instance


class Named(NamedTuple):
    """The instances that are meant: one, or all of a version."""

    service: str
    id: str
    version: str

    @property
    def text(self) -> str:
        """As it was typed."""
        return f"{self.service}/{self.id}" if self.id else f"{self.service}@{self.version}"

    def find(self, app: App, deadline: float | None = None) -> tuple[Instance, ...]:
        """What is registered of them. Raises NotFound."""
        return app.operations.find(
            self.service, id=self.id, version=self.version, deadline=deadline
        )


def parse_named(text: str, *, one: bool = False) -> Named:
    """`SVC/ID` or, unless it is to be `one`, `SVC@V`. Raises Usage."""
    service, slash, id = text.partition("/")
    if slash and id:
        return Named(check_name("INSTANCE", service), id, "")
    service, at, version = text.partition("@")
    if one or slash or not at or not version.strip():
        form = "SERVICE/ID" if one else "SERVICE/ID or SERVICE@VERSION"
        raise Usage(f"{text!r} names no instance", f"{form}; fan discover show SERVICE lists them")
    return Named(check_name("INSTANCE", service), "", version.strip())


#: The argument of a command for one or more instances.
instances_argument: Callable[[Any], Any] = click.argument(
    "instances",
    metavar="SVC/ID|SVC@V...",
    nargs=-1,
    required=True,
    shell_complete=complete_instances,
)


def report(
    common: Common, changed: Sequence[Instance], said: str, dry_run: bool, **more: Any
) -> None:
    """Tell which instances a change was of, `said` of each: nothing on stdout but with --json, or
    of a dry run."""
    named = [f"{instance.service}/{instance.id}" for instance in changed]
    if common.env.is_json:
        dry = {"dry_run": True} if dry_run else {}
        told = {"changed": bool(named), "instances": named, "gen": None, "op": None}
        common.out.object({"v": 1, "ok": True, **told, **dry, **more})
    elif dry_run:
        for name in named:
            common.out.text(name)
    elif not named:
        common.out.note("unchanged")
    else:
        for name in named:
            common.out.note(f"{name} {said}")


def noting(f: Callable[..., Any]) -> Callable[..., Any]:
    """Options of a change outside of the generations: no rollback takes it back, and no `--op` is
    needed to do it again."""

    @wraps(f)
    def run(common: Common, message: str, dry_run: bool, yes: bool, **options: Any) -> Any:
        return f(common, why=message, dry_run=dry_run, yes=yes, **options)

    return add_options(
        (
            click.option("-m", "--message", metavar="TEXT", default="", help="Why."),
            click.option("--dry-run", is_flag=True, help="Say what would change; change nothing."),
            click.option("-y", "--yes", is_flag=True, help="Ask nothing."),
        )
    )(run)
