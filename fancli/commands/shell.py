"""`fan shell`: every command without the word `fan`, over connections that stay open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from fancli.env import is_tty
from fancli.exits import Exit
from fancli.group import command
from fancli.options import Common, common

if TYPE_CHECKING:
    from fancli.session import Session


@command(
    "shell",
    short_help="A prompt for commands and calls.",
    examples=(
        "fan shell",
        "fan shell -n staging",
        "echo 'greeter.hello name=Ada' | fan shell",
    ),
)
@common
def shell(common: Common) -> int:
    """Read lines and run each: a command without the word `fan`, or a call (`greeter.hello
    name=Ada`). TAB completes commands, services, methods, parameters and values.

    `_` is the last result and `_.a[0]` a part of it, alone or in a line: `users.get id=_.id`.
    Ctrl-C gives a line or a command up; Ctrl-D, exit or quit ends the shell. Lines are kept in
    $XDG_STATE_HOME/fan/history, without secrets.

    Without a terminal the lines come from stdin, and the exit status is that of the last one.
    """
    from fancli.keeper import Keeper
    from fancli.session import Session

    env = common.env
    with Keeper() as keeper:
        session = Session(env, common.variables(), keeper, _for_all(common))
        if not is_tty(env.stdin):
            return _run_script(common, session)
        from fancli.prompt import Prompt

        common.out.note("help lists the commands; Ctrl-D ends this")
        prompt = Prompt(session, env)
        while _one(common, session, prompt.read):
            pass
        return Exit.OK


def _for_all(common: Common) -> list[str]:
    """Options of the shell that its lines take as their own; the others are settings."""
    return ["--json"] * common.env.is_json + ["-v"] * common.verbose


def _run_script(common: Common, session: Session) -> int:
    stdin = common.env.stdin
    if stdin is None:
        return Exit.OK

    def lines() -> Iterator[str]:
        for line in stdin.buffer:  # as they come, and whatever the locale says that they are
            yield line.decode("utf-8", "surrogateescape").rstrip("\r\n")

    for line in lines():
        if not session.run(line):
            break
    return session.status


def _one(common: Common, session: Session, read: Callable[[], str]) -> bool:
    """Read and run a line; False at the end."""
    try:
        line = read()
    except EOFError:
        return False
    except KeyboardInterrupt as exc:
        _let_out(exc)
        return True
    try:
        return session.run(line)
    except KeyboardInterrupt as exc:
        _let_out(exc)
        session.status = Exit.INTERRUPTED
        common.out.note("interrupted")
        return True


def _let_out(exc: KeyboardInterrupt) -> None:
    """A Ctrl-C gives up a line; a SIGTERM, which is a kind of it, ends the shell."""
    if type(exc) is not KeyboardInterrupt:
        raise exc
