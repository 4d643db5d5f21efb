"""`fan settings`: what is set, and which source set it."""

from __future__ import annotations

from typing import Any

import msgspec

from fancli.group import Group, command
from fancli.mask import shown_setting
from fancli.options import Common, common, listing
from fancli.output import Format

settings = Group(
    "settings",
    help="The program's own settings; a service's configuration is something else.",
    short_help="See what is set, and where.",
    examples=("fan settings show", "FAN_TIMEOUT=2s fan settings show --json"),
)


@command(
    "show",
    short_help="Every setting with its value and origin.",
    examples=(
        "fan settings show",
        "fan settings show -n staging --timeout 2s",
        "fan settings show --format json | jq -r 'select(.name == \"registry\").value'",
    ),
)
@common
@listing
def show(common: Common, *, render: tuple[Format, bool]) -> None:
    """Every setting, its value, and which source set it.

    Flags win over FAN_* variables, the profile, the project's fan.toml, the user's config.toml and
    /etc/fan/config.toml, in this order.
    """
    loaded = common.load()
    values: dict[str, Any] = msgspec.to_builtins(loaded.settings)
    rows = [
        {
            "name": name,
            "value": shown_setting(name, value, common.env.show_secrets),
            "origin": loaded.origins[name],
        }
        for name, value in values.items()
    ]
    common.out.rows(rows, ("name", "value", "origin"), render[0], wants_head=render[1])


settings.add_command(show)
