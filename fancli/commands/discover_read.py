"""`fan discover list`, `show`, `describe` and `resolve`: what the registry has; no service needs to
be up."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click
import msgspec

from fancli import catalog
from fancli.complete import complete_service, complete_target
from fancli.describing import interface_text, method_text
from fancli.describing import skeleton as skeleton_of
from fancli.exits import Exit
from fancli.group import command
from fancli.live import standing
from fancli.mask import mask_url
from fancli.options import Common, common, listing, reading
from fancli.output import Format
from fancli.params import Usage, check_name, check_transport, parse_name
from fancli.request import route_of
from fancli.watching import watch_listing

if TYPE_CHECKING:
    from fan import App, ServiceInfo

@command(
    "list",
    short_help="Every service and version.",
    examples=("fan discover list", "fan discover list --format name", "fan discover list --watch"),
)
@click.option("--watch", is_flag=True, help="Then what changes, until Ctrl-C.")
@common
@reading
@listing
def list_(common: Common, *, watch: bool, render: tuple[Format, bool]) -> None:
    """List services: a row for each version, with its weight in the route, its instances that are
    up and all of them, their transports, and dependencies that nobody meets. With --watch a table
    on a terminal is drawn again after each change; elsewhere each row is printed that changes."""
    if watch:
        _watch(common, render)
        return
    with common.app() as app:
        infos = app.discovery.services()
    rows = _rows(infos)
    if not rows:
        space = app.settings.namespace
        common.out.hint(f"nothing is registered in namespace {space}; fan demo starts something")
    _print(common, rows, render)


def _watch(common: Common, render: tuple[Format, bool]) -> None:
    """The table, again and again; or every row, and from then on those that are not as they were:
    `all` is 0 of one that went."""
    known: dict[tuple[str, str], dict[str, Any]] = {}
    with closing(watch_listing(common)) as listings, standing(common.out) as live:
        for infos in listings:
            if live.is_on and render[0] == "table":
                rows = [catalog.shown(row) for row in _rows(infos)]
                live.show(common.out.table(rows, catalog.VERSION_COLUMNS))
                continue
            now = {(row["service"], row["version"]): row for row in _rows(infos)}
            gone = [
                {**row, "weight": 0, "up": 0, "all": 0, "transports": [], "unmet": []}
                for key, row in known.items()
                if key not in now
            ]
            changed = [row for key, row in now.items() if known.get(key) != row]
            _print(common, [*changed, *gone], render)
            known = now


def _rows(infos: Sequence[ServiceInfo]) -> list[dict[str, Any]]:
    return [row for info in infos for row in catalog.version_rows(info)]


def _print(
    common: Common, rows: Sequence[dict[str, Any]], render: tuple[Format, bool]
) -> None:
    if render[0] in ("table", "name"):
        rows = [catalog.shown(row) for row in rows]
    common.out.rows(rows, catalog.VERSION_COLUMNS, render[0], wants_head=render[1])


@command(
    "show",
    short_help="One service with its versions and instances.",
    examples=("fan discover show greeter", "fan discover show greeter/greeter-5f0c --json"),
)
@click.argument("service", metavar="SERVICE[/ID]", shell_complete=complete_service)
@common
@reading
@listing
def show(common: Common, *, service: str, render: tuple[Format, bool]) -> int:
    """Show a service: its route, versions and instances; or one instance of it."""
    name, slash, instance_id = service.partition("/")
    check_name("SERVICE", name)
    common.env.target = name
    with common.app() as app:
        info = _service(app, name)
    instances = [i for i in info.instances if not slash or i.id == instance_id]
    if slash and not instances:
        from fan import NotFound

        similar = catalog.near(instance_id, [i.id for i in info.instances])
        raise NotFound(
            f"{name} has no instance {instance_id}",
            reason="no_such_instance",
            details={"similar": similar},
        )
    if common.env.is_json and not slash:
        common.out.object({"v": 1, "ok": True, **catalog.service_object(info)})
        return Exit.OK
    rows = [catalog.instance_row(i, info.overrides.get(i.id)) for i in instances]
    if slash and common.env.is_json:
        common.out.object({"v": 1, "ok": True, **rows[0]})
        return Exit.OK
    if not slash and render[0] == "table":
        for line in catalog.summary(info):
            common.out.note(line)
    common.out.rows(rows, catalog.INSTANCE_COLUMNS, render[0], wants_head=render[1])
    return Exit.OK


@command(
    "describe",
    short_help="A service's methods, or one method: signature, types, docs.",
    examples=(
        "fan discover describe greeter",
        "fan discover describe greeter.hello@2",
        "fan discover describe greeter.add --skeleton | fan call greeter.add -d -",
    ),
)
@click.argument("target", metavar="SERVICE[.METHOD][@VERSION]", shell_complete=complete_target)
@click.option("--skeleton", is_flag=True, help="A payload to fill in.")
@common
@reading
def describe(common: Common, *, target: str, skeleton: bool) -> int:
    """Describe a service or a method from the registry, also when the service is down."""
    name, want = parse_name("TARGET", target)
    common.env.target = name
    with common.app() as app:
        info, method_name = _longest(app, name)
    interface = catalog.interface(info, want)
    width = common.env.text_width(sys.maxsize)  # for grep a line stays a line
    if not method_name:
        if skeleton:
            raise Usage(f"--skeleton: {name} is a service", f"fan discover describe {name}.METHOD")
        if common.env.is_json:
            common.out.object({"v": 1, "ok": True, **msgspec.to_builtins(interface)})
        else:
            common.out.text(interface_text(interface, width))
        return Exit.OK
    method = catalog.method(interface, method_name)
    if skeleton:
        common.out.object(skeleton_of(method))
    elif common.env.is_json:
        found = {"service": interface.service, "version": interface.version}
        common.out.object({"v": 1, "ok": True, **found, **msgspec.to_builtins(method)})
    else:
        common.out.text(method_text(interface, method, width))
    return Exit.OK


@command(
    "resolve",
    short_help="Where a call would go now, and why.",
    examples=(
        "fan discover resolve greeter",
        "fan discover resolve greeter.hello@2 -t http --json",
        "fan discover resolve store --path /store/7/item/9/ --explain",
    ),
)
@click.argument("target", metavar="SERVICE[.METHOD][@VERSION]", shell_complete=complete_target)
@click.option("-t", "--transport", metavar="NAME", default="auto", help="auto, ipc, http, ...")
@click.option("--instance", metavar="ID", default="", help="This instance and no other.")
@click.option(
    "--sk", "--shard-key", "--key", "key", metavar="KEY", default="", help="Shard key."
)
@click.option("--path", metavar="PATH", default="", help="The same as a path: /store/7/item/9/.")
@click.option("--explain", is_flag=True, help="Say why, on stderr.")
@common
@reading
def resolve(
    common: Common,
    *,
    target: str,
    transport: str,
    instance: str,
    key: str,
    path: str,
    explain: bool,
) -> None:
    """Print the address that a call would go to; sends nothing."""
    name, want = parse_name("TARGET", target)
    common.env.target = name
    if key and path:
        raise Usage("--sk and --path", "one of them")
    options = {
        "want": want,
        "transport": check_transport("-t", transport),
        "instance": instance,
        "shard": key or path,
        "timeout": common.timeout,
    }
    with common.app() as app:
        info, method = _longest(app, name)
        choice = app.using(**options).resolve(info.name, method)
        if method and choice.version in info.interfaces:
            catalog.method(info.interfaces[choice.version], method)
    if explain or common.verbose:
        for why in choice.why:
            common.out.talk(f"* {why}")
    if common.env.is_json:
        found = route_of(choice, common.env.show_secrets)
        common.out.object({"v": 1, "ok": True, "target": name, **found})
    else:
        url = choice.address.url
        common.out.text(url if common.env.show_secrets else mask_url(url))


def _service(app: App, name: str) -> ServiceInfo:
    return app.discovery.service(name)


def _longest(app: App, name: str) -> tuple[ServiceInfo, str]:
    """The longest registered service that `name` is or begins with, and the method behind it.
    Raises NotFound (no_such_service)."""
    from fan import NotFound

    try:
        return app.discovery.service(name), ""
    except NotFound:
        service, _, method = name.rpartition(".")
        if not service:
            raise
    return app.discovery.service(service), method
