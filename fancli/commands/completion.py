"""`fan completion SHELL`: the script that makes TAB work."""

from __future__ import annotations

import click

from fancli.group import command
from fancli.options import Common, common
from fancli.scripts import HOW, SCRIPTS


@command("completion", examples=tuple(HOW.values()), short_help="Print a completion script.")
@click.argument("shell", type=click.Choice(list(SCRIPTS)))
@common
def completion(common: Common, *, shell: str) -> None:
    """Print the completion script for bash, zsh or fish."""
    common.out.write(SCRIPTS[shell].encode())
