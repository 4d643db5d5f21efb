"""`fan config`: the services' configuration, keyed documents in the registry."""

from __future__ import annotations

from fancli.group import Group, Row

_READ = "fancli.commands.config_read"
_WRITE = "fancli.commands.config_write"
_FILES = "fancli.commands.config_files"

config = Group(
    "config",
    table={
        "get": Row(f"{_READ}:get", "Print a config's value."),
        "set": Row(f"{_WRITE}:set_", "Give a config a value, and a schema."),
        "patch": Row(f"{_WRITE}:patch", "Change members of a config."),
        "delete": Row(f"{_WRITE}:delete", "Delete a config."),
        "list": Row(f"{_READ}:list_", "Every config."),
        "history": Row(f"{_READ}:history", "Who changed a config, when and why."),
        "diff": Row(f"{_READ}:diff", "Compare two revisions of a config."),
        "edit": Row("fancli.commands.config_edit:edit", "Change a config in $EDITOR."),
        "watch": Row("fancli.commands.config_watch:watch", "Every change, as it happens."),
        "apply": Row(f"{_FILES}:apply", "Set many configs in one generation."),
        "rollback": Row(f"{_WRITE}:rollback", "Bring an earlier revision back."),
        "export": Row(f"{_FILES}:export", "Print all configs as one document."),
        "import": Row(f"{_FILES}:import_", "Load what export printed."),
        "validate": Row(f"{_FILES}:validate", "Check values against their schemas."),
    },
    help="See and change the services' configuration. The program's own is `fan settings`.",
    short_help="See and change the services' configuration.",
    examples=(
        "fan config set orders/theme dark -m 'new look'",
        "fan config get orders/theme",
        "fan config watch orders/ --cursor-file orders.cursor",
        "fan config rollback orders/theme",
    ),
)
