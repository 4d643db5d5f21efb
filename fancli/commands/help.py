"""`fan help`: topics, error codes, and the help of any command."""

from __future__ import annotations

import click

from fancli import topics
from fancli.complete import complete_topic
from fancli.exits import Exit
from fancli.fitting import fitted
from fancli.group import command
from fancli.options import Common, common
from fancli.params import Usage, did_you_mean

#: Columns of a text that nobody reads on a terminal.
WIDEST = 100


@command(
    "help",
    short_help="Explain a topic: payload, exit-codes, env, ...",
    examples=("fan help payload", "fan help error deadline_exceeded", "fan help call"),
)
@click.argument("words", metavar="[TOPIC|COMMAND]...", nargs=-1, shell_complete=complete_topic)
@common
def help_(common: Common, *, words: tuple[str, ...]) -> int:
    """Explain a topic, an error code (`fan help error CODE`), or a command."""
    root, width = click.get_current_context().find_root(), common.env.text_width(WIDEST)
    if not words:
        common.out.text(f"{root.get_help()}\n\n{fitted(_topics(), width)}")
    elif words[0] == "error":
        common.out.text(fitted(_error(words[1:]), width))
    elif len(words) == 1 and (text := topics.topic(words[0])) is not None:
        common.out.text(fitted(text.rstrip("\n"), width))
    else:
        common.out.text(_command(root, words))
    return Exit.OK


def _topics() -> str:
    wide = max(map(len, topics.TOPICS)) + 4
    lines = [f"  {name:<{wide}}{about}" for name, about in topics.TOPICS.items()]
    return "\n".join(["Topics (fan help TOPIC):", *lines])


def _error(words: tuple[str, ...]) -> str:
    if not words:
        return "\n".join(topics.error_codes())
    text = topics.error(words[0])
    if text is None:
        near = did_you_mean(words[0], topics.error_codes())
        raise Usage(f"no such error code: {words[0]}", near or "fan help errors lists them")
    return text


def _command(root: click.Context, words: tuple[str, ...]) -> str:
    ctx, here = root, root.command
    for word in words:
        found = here.get_command(ctx, word) if isinstance(here, click.Group) else None
        if found is None or not isinstance(here, click.Group):
            known = [*topics.TOPICS, "error"]
            known += here.list_commands(ctx) if isinstance(here, click.Group) else []
            raise Usage(
                f"no such topic or command: {word}", did_you_mean(word, known) or "fan help"
            )
        ctx, here = click.Context(found, info_name=word, parent=ctx), found
    return ctx.get_help()
