"""`fan config edit`: a config in the user's editor, written back if nobody changed it meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from fancli.configs import key_argument, opened
from fancli.editor import discard, run_editor, write_draft
from fancli.group import command
from fancli.options import Common, common
from fancli.params import parse_json, read_text
from fancli.writes import Writing, writing

if TYPE_CHECKING:
    from fancli.env import Environment


@command(
    "edit",
    short_help="Change a config in $EDITOR.",
    examples=(
        "fan config edit orders/limits",
        "EDITOR=nano fan config edit orders/theme -m colder",
    ),
)
@key_argument
@common
@writing
def edit(common: Common, *, writing: Writing, key: str) -> int:
    """Change a config in $VISUAL or $EDITOR: a string as it is, anything else as JSON. What comes
    back must fit its schema, and is written only if nobody changed the config meanwhile (exit 10);
    what is refused stays in a file that the message names."""
    from fan import FanError

    with opened(common, key) as (config, deadline):
        entry = config.entry(key, deadline=deadline)
        is_text = isinstance(entry.value, str)
        path = _written(key, entry.value, is_text)
        try:
            run_editor(common.env, path)
            value = _read(path, is_text, common.env)
            # The editor took its time: the budget begins anew.
            done = config.set(key, value, if_rev=entry.rev, how=writing.how)
        except FanError as exc:
            exc.message += f"; what was edited is in {path}"
            raise
        except BaseException:
            common.out.note(f"what was edited is in {path}")
            raise
        discard(path)
    return writing.report(done)


def _written(key: str, value: Any, is_text: bool) -> str:
    body = value if is_text else msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    return write_draft(key, body, ".txt" if is_text else ".json")


def _read(path: str, is_text: bool, env: Environment) -> Any:
    text = read_text(path, "the edited text", env)
    return text.removesuffix("\n") if is_text else parse_json(text, "the edited text")
