"""`fan version`: which versions take calls, switched and taken back in one generation."""

from __future__ import annotations

from fancli.group import Group, Row

_READ = "fancli.commands.version_read"
_SHARE = "fancli.commands.version_share"
_STATE = "fancli.commands.version_state"

version = Group(
    "version",
    table={
        "list": Row(f"{_STATE}:list_", "Every version, and its share of the calls."),
        "show": Row(f"{_STATE}:show", "One service: its route and versions."),
        "status": Row(f"{_STATE}:status", "What is in force, and who has applied it."),
        "check": Row(f"{_STATE}:check", "What is wrong with what is routed."),
        "switch": Row("fancli.commands.version_switch:switch", "Send calls to other versions."),
        "weight": Row(f"{_SHARE}:weight", "Give a version a share of the calls."),
        "promote": Row(f"{_SHARE}:promote", "Give the canary all calls."),
        "abort": Row(f"{_SHARE}:abort", "Take all calls from the canary."),
        "pause": Row(f"{_SHARE}:pause", "Have a route refuse switches."),
        "resume": Row(f"{_SHARE}:resume", "Let a route be switched again."),
        "rollback": Row("fancli.commands.version_rollback:rollback", "Take a switch back."),
        "retire": Row(f"{_SHARE}:retire", "End a version for good."),
        "history": Row(f"{_READ}:history", "Who changed what, when and why."),
        "diff": Row(f"{_READ}:diff", "Compare two generations."),
        "graph": Row(f"{_READ}:graph", "Who needs whom, with versions."),
        "wait": Row(f"{_STATE}:wait", "Wait until a generation is confirmed."),
    },
    help="Switch which versions of services take calls, together with configs, in one step, and"
    " take it back.",
    short_help="Switch versions, and take it back.",
    examples=(
        "fan version switch shop=2 stock=1.4 --config shop/theme=dark -m 'new shop'",
        "fan version switch shop=2 --weight 2=5% --sticky header:x-user",
        "fan version status",
        "fan version rollback",
    ),
)
