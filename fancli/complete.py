"""Completion: what may stand next, from the registry and from the command line so far.

It waits at most `PATIENCE` for a registry behind a network: a TAB is no place to wait.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

    from fan import MethodInfo, ServiceInfo
    from fancli.env import Environment

T = TypeVar("T")

#: Seconds that a registry behind a network is given.
PATIENCE = 0.15
#: Seconds for a file. It answers in milliseconds, unless the machine is busy: then a TAB is to be
#: slow, not silent.
FILE_PATIENCE = 2.0


def complete_target(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Services up to the dot, then methods, then versions behind the @."""
    if ctx.params.get("topic"):  # an event has no target: what stands there is an item
        return complete_item(ctx, param, incomplete)
    services = registered(ctx)
    name, at, want = incomplete.partition("@")
    if at:
        info = services.get(name.rpartition(".")[0])
        versions = list(info.interfaces) if info is not None else []
        return [_item(f"{name}@{v}") for v in versions if v.startswith(want)]
    found = [
        _item(f"{service}.", "part")
        for service in services
        if service.startswith(incomplete) or f"{service}.".startswith(incomplete)
    ]
    found = [item for item in found if item.value != incomplete]
    for service, info in services.items():
        if incomplete.startswith(f"{service}."):
            prefix = incomplete[len(service) + 1 :]
            for method in _methods(info):
                if method.name.startswith(prefix):
                    found.append(_item(f"{service}.{method.name}", help=_first_line(method.doc)))
    return found


def complete_service(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Services."""
    return [_item(name) for name in registered(ctx) if name.startswith(incomplete)]


def complete_version(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Versions of the service that stands before it."""
    info = registered(ctx).get(str(ctx.params.get("service") or ""))
    return [_item(v) for v in (info.interfaces if info else ()) if v.startswith(incomplete)]


def complete_share(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """The same, up to the weight."""
    found = complete_version(ctx, param, incomplete)
    return [_item(f"{item.value}=", "part") for item in found]


def complete_switch(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Services up to the =, then their versions."""
    services = registered(ctx)
    name, equals, text = incomplete.partition("=")
    if not equals:
        return [_item(f"{each}=", "part") for each in services if each.startswith(name)]
    info = services.get(name) or services.get(name.rpartition(".")[0])
    versions = info.interfaces if info is not None else ()
    return [_item(f"{name}={v}") for v in versions if v.startswith(text)]


def complete_instances(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Services up to the slash, then instances; or versions behind an @."""
    services = registered(ctx)
    name, at, want = incomplete.partition("@")
    if at and name in services:
        versions = dict.fromkeys(i.version for i in services[name].instances)
        return [_item(f"{name}@{v}") for v in versions if v.startswith(want)]
    name, slash, id = incomplete.partition("/")
    if slash and name in services:
        found = services[name].instances
        return [_item(f"{name}/{i.id}", help=i.state) for i in found if i.id.startswith(id)]
    return [_item(f"{name}/", "part") for name in services if name.startswith(incomplete)]


def complete_item(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Parameters as `name=`, and behind the = the values of an enumeration or a boolean."""
    method = _asked(ctx)
    if method is None:
        return []
    key, equals, text = incomplete.partition("=")
    params = {p.name: p for p in method.params if not p.kind.startswith("var_")}
    if equals:
        schema = params[key].schema if key in params else {}
        booleans = ["true", "false"] if schema.get("type") == "boolean" else []
        values = schema.get("enum") or booleans
        return [_item(f"{key}={v}") for v in values if str(v).startswith(text)]
    items = ctx.params.get("items") or ()
    if ctx.params.get("topic"):  # the first stands where a target would
        items = (ctx.params.get("target") or "", *items)
    used = {str(item).partition("=")[0].rstrip(":") for item in items}
    return [
        _item(f"{name}=", "part", _kind(p.schema))
        for name, p in params.items()
        if name.startswith(key) and name not in used
    ]


def _asked(ctx: click.Context) -> MethodInfo | None:
    """The method whose arguments are typed."""
    services = registered(ctx)
    if topic := ctx.params.get("topic"):
        from fancli.catalog import handler_of

        return handler_of(services.values(), topic)
    target = str(ctx.params.get("target") or "").partition("@")[0]
    service, _, name = target.replace("::", ".").replace("/", ".").rpartition(".")
    info = services.get(service)
    return next((m for m in _methods(info) if m.name == name), None) if info else None


def complete_event(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Topics that some service handles."""
    from fancli.queues import topics_of

    used = ctx.params.get("topics") or ()
    methods = [m for info in registered(ctx).values() for m in _methods(info)]
    found = sorted({topic for topic, _ in topics_of(methods)} - set(used))
    return [_item(topic) for topic in found if topic.startswith(incomplete)]


def complete_queue(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Queues of what is registered."""
    from fancli.queues import candidates

    found = sorted(map(str, candidates(registered(ctx).values())))
    return [_item(name) for name in found if name.startswith(incomplete)]


def complete_queue_transport(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Transports over a broker."""
    from fan import plugins

    known = [name for name in plugins.QUEUES if name in plugins.TRANSPORTS]
    return [_item(name) for name in ("auto", *known) if name.startswith(incomplete)]


def complete_transport(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Transports."""
    from fan import plugins

    return [_item(n) for n in ("auto", *plugins.TRANSPORTS) if n.startswith(incomplete)]


def complete_instance(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Instances of the target's service."""
    target = str(ctx.params.get("target") or "").partition("@")[0]
    info = registered(ctx).get(target.rpartition(".")[0])
    ids = [instance.id for instance in info.instances] if info else []
    return [_item(each) for each in ids if each.startswith(incomplete)]


def complete_service_or_target(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Services, and behind the dot their methods."""
    found = complete_target(ctx, param, incomplete)
    if "." not in incomplete:
        return complete_service(ctx, param, incomplete) + found
    return found


def complete_code(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Error codes."""
    from fancli import topics

    return [_item(code) for code in topics.error_codes() if code.startswith(incomplete)]


def complete_topic(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Topics and commands; behind `error` the codes, behind a group its commands."""
    import click

    from fancli import topics

    words = ctx.params.get("words") or ()
    if words[:1] == ("error",):
        return [
            _item(c) for c in topics.error_codes() if len(words) == 1 and c.startswith(incomplete)
        ]
    here = ctx.find_root().command
    for word in words:
        found = here.get_command(ctx, word) if isinstance(here, click.Group) else None
        if found is None:
            return []
        here = found
    known = here.list_commands(ctx) if isinstance(here, click.Group) else []
    known = known if words else [*topics.TOPICS, "error", *known]
    return [_item(name) for name in dict.fromkeys(known) if name.startswith(incomplete)]


def complete_profile(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Profiles of the settings."""
    from fan import load_profiles

    names = load_profiles(env=ctx.obj.vars).profiles
    return [_item(name) for name in names if name.startswith(incomplete)]


def complete_key(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Configs keys, up to the next slash."""
    from fan import Configs

    def ask(store: Any, deadline: float) -> list[str]:
        configs = Configs(lambda: store, live=False)
        return [entry.key for entry in configs.list(incomplete, deadline=deadline)]

    found = {}
    for key in _patiently(ctx, ask) or ():
        here, slash, _ = key[len(incomplete) :].partition("/")
        found[incomplete + here + slash] = "part" if slash else "plain"
    return [_item(key, type) for key, type in found.items()]


def registered(ctx: click.Context) -> dict[str, ServiceInfo]:
    """The services of the registry in force, by name; none when it does not answer in time."""
    from fan import Discovery

    def ask(store: Any, deadline: float) -> dict[str, ServiceInfo]:
        # An App would do, for twice the imports: a TAB is felt.
        found = Discovery(lambda: store, live=False)
        return {info.name: info for info in found.services(deadline)}

    return _patiently(ctx, ask) or {}


def _patiently(ctx: click.Context, ask: Callable[[Any, float], T]) -> T | None:
    """What the registry in force answers; None when it does not in time, or not at all."""
    import _signal as signal  # type: ignore[import-not-found]  # see `main`
    from types import FrameType

    # Outside of the time that a registry is given: what a busy machine takes for it is no wait.
    from fan import plugins

    def stop(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    try:
        settings = _settings(ctx)
        scheme, _, path = settings.registry_url.partition(":")
        if scheme == "sqlite" and not os.path.exists(path):
            return None  # a TAB creates no registry
        patience = FILE_PATIENCE if scheme == "sqlite" else PATIENCE
        signal.setitimer(signal.ITIMER_REAL, patience)
        with plugins.open_store(settings.registry_url, settings.namespace, settings) as store:
            return ask(store, time.monotonic() + patience)
    except Exception:  # noqa: BLE001  whatever a store may raise
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _settings(ctx: click.Context) -> Any:
    from fan import load_settings

    flags = {name: ctx.params.get(name) for name in ("namespace", "registry")}
    env: Environment = ctx.obj
    return load_settings(flags, env=env.vars, profile=ctx.params.get("profile") or "").settings


def _methods(info: ServiceInfo) -> tuple[MethodInfo, ...]:
    interface = info.interface_for("")
    return interface.methods if interface is not None else ()


def _item(value: str, type: str = "plain", help: str = "") -> CompletionItem[Any]:
    from click.shell_completion import CompletionItem

    return CompletionItem(value, type=type, help=help or None)


def _kind(schema: dict[str, Any]) -> str:
    said = schema.get("type", "")
    return said if isinstance(said, str) else ""


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
