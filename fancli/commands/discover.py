"""`fan discover`: what is registered, and what an operator does with it."""

from __future__ import annotations

from fancli.group import Group, Row

_READ = "fancli.commands.discover_read"
_STATE = "fancli.commands.discover_state"
_CLEAN = "fancli.commands.discover_clean"
_CHECK = "fancli.commands.discover_check"
_REGISTER = "fancli.commands.discover_register"

discover = Group(
    "discover",
    table={
        "list": Row(f"{_READ}:list_", "Every service and version."),
        "show": Row(f"{_READ}:show", "One service with its versions and instances."),
        "describe": Row(f"{_READ}:describe", "A service's methods: signatures, types, docs."),
        "resolve": Row(f"{_READ}:resolve", "Where a call would go now, and why."),
        "watch": Row(
            "fancli.commands.discover_watch:watch", "Every change of what is registered."
        ),
        "check": Row(f"{_CHECK}:check", "What is wrong with what is registered."),
        "subs": Row(f"{_CHECK}:subs", "Who follows the registry, and how far."),
        "register": Row(f"{_REGISTER}:register", "Register a service that knows nothing of fan."),
        "deregister": Row(f"{_CLEAN}:deregister", "Remove an instance from the registry."),
        "drain": Row(f"{_STATE}:drain", "Take instances out of service, gently."),
        "undrain": Row(f"{_STATE}:undrain", "Bring them back."),
        "down": Row(f"{_STATE}:down", "Mark instances as down."),
        "reshard": Row(
            "fancli.commands.discover_shards:reshard", "Spread a service's keys another way."
        ),
        "gc": Row(f"{_CLEAN}:gc", "Remove what nobody needs any more."),
        "import": Row(
            "fancli.commands.discover_import:import_", "Take over what an older kit registered."
        ),
    },
    help="See services, methods and instances, and take them out of service and back.",
    short_help="See services, methods and instances.",
    examples=(
        "fan discover list",
        "fan discover describe greeter.hello",
        "fan discover resolve greeter.hello@2",
        "fan discover drain greeter/greeter-5f0c --wait",
    ),
)
