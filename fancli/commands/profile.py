"""`fan profile`: named sets of settings, and which one is used."""

from __future__ import annotations

import os
from typing import Any

import click

from fancli.complete import complete_profile
from fancli.exits import Exit
from fancli.group import Group, command
from fancli.mask import shown_setting
from fancli.options import Common, common, listing
from fancli.output import Format
from fancli.params import Usage

profile = Group(
    "profile",
    help="Named sets of settings: `[profiles.NAME]` in fan.toml or in your own config.toml.",
    short_help="See and choose profiles of settings.",
    examples=(
        "fan profile list",
        "fan profile show staging",
        "fan profile use staging",
        "fan --profile staging discover list",
    ),
)


@command(
    "list",
    short_help="Every profile, and which is in force.",
    examples=("fan profile list", "fan profile list --format name", "fan profile list --json"),
)
@common
@listing
def list_(common: Common, *, render: tuple[Format, bool]) -> None:
    """List the profiles. `active` marks the one in force: that of --profile, else of FAN_PROFILE,
    else of the first file that has `profile = NAME`."""
    known = common.load_profiles()
    rows: list[dict[str, Any]] = [
        {
            "name": each.name,
            "active": each.name == known.chosen,
            "settings": len(each.values),
            "files": each.files,
        }
        for each in known.profiles.values()
    ]
    if render[0] == "table":
        rows = [{**row, "active": "active" if row["active"] else ""} for row in rows]
    common.out.rows(rows, ("name", "active", "settings", "files"), render[0], wants_head=render[1])
    if not rows:
        common.out.hint(f"there is no profile; write [profiles.NAME] into {known.user_file}")
    elif known.chosen and known.chosen not in known.profiles:
        common.out.warn(f"{known.origin}: there is no profile {known.chosen!r}")


@command(
    "show",
    short_help="The settings of a profile.",
    examples=("fan profile show", "fan profile show staging", "fan profile show staging --json"),
)
@click.argument("name", required=False, default="", shell_complete=complete_profile)
@common
@listing
def show(common: Common, *, name: str, render: tuple[Format, bool]) -> None:
    """Show what the profile NAME sets, and where, by default the one in force. Secrets are
    masked; `fan settings show` has what comes of it."""
    known = common.load_profiles()
    if not name and not known.chosen:
        raise Usage("no profile is in force", "fan profile list, fan profile use NAME")
    found = known.find(name or known.chosen)
    rows = [
        {
            "name": key,
            "value": shown_setting(key, value, common.env.show_secrets),
            "origin": found.origins[key],
        }
        for key, value in found.values.items()
    ]
    common.out.rows(rows, ("name", "value", "origin"), render[0], wants_head=render[1])


@command(
    "use",
    short_help="Choose a profile from now on.",
    examples=("fan profile use staging", "fan profile use --none"),
)
@click.argument("name", required=False, default="", shell_complete=complete_profile)
@click.option("--none", "wants_none", is_flag=True, help="Use no profile.")
@common
def use(common: Common, *, name: str, wants_none: bool) -> int:
    """Write `profile = NAME` into your own config.toml; all else in it stays as it is.

    --profile, FAN_PROFILE and a project's fan.toml still win over it.
    """
    if bool(name) is wants_none:
        raise Usage("name a profile, or say --none", "fan profile list")
    known = common.load_profiles()
    text = known.text_using(name)
    is_changed = _write(known.user_file, text)
    if common.env.is_json:
        common.out.object(
            {"v": 1, "ok": True, "changed": is_changed, "profile": name or None,
             "file": known.user_file}
        )  # fmt: skip
    now = common.load_profiles()
    if now.chosen != name:
        common.out.warn(f"{now.origin} wins over {known.user_file}: the profile is {now.chosen!r}")
    return Exit.OK


def _write(path: str, text: str) -> bool:
    """Replace the user's own file if it changes, and say whether it did."""
    from fancli.files import content_of, replace_file

    data = text.encode()
    old = content_of(path)
    if old == data or (old is None and not data):
        return False
    folder = os.path.dirname(path)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as exc:
        from fan import FailedPrecondition

        raise FailedPrecondition(f"{folder}: {exc.strerror}", reason="bad_file") from exc
    replace_file(path, data)
    if old is None:
        os.chmod(path, 0o600)  # it is where credentials go
    return True


for _each in (list_, show, use):
    profile.add_command(_each)
