"""What `call` and `push` share: the options that make up a request, and the echo of it.

A TAB imports this for the options alone: what a call needs besides is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from fancli.complete import complete_instance, complete_item, complete_target, complete_transport
from fancli.group import Command
from fancli.options import Common, add_options
from fancli.params import (
    Target,
    Usage,
    check_name,
    check_peers,
    check_transport,
    parse_baggage,
    parse_headers,
    parse_target,
)
from fancli.payload import Payload, lift_shon, read_payload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fan import App, Choice, Client, Interface, MethodInfo
    from fancli.tap import Tap

_SHON = "fan.shon"


class PayloadCommand(Command):
    """A command that takes SHON: `[ --a 1 ]` leaves argv before click sees options in it."""

    #: Whether arguments of a method are among its own: who mistakes one for an option is told.
    takes_items = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        args, ctx.meta[_SHON] = (args, None) if ctx.resilient_parsing else lift_shon(args)
        return super().parse_args(ctx, self.without_shon(args))

    def without_shon(self, args: list[str]) -> list[str]:
        """The arguments that click gets to see; a command may change them."""
        return args


#: What is called.
target_argument: Callable[[Any], Any] = click.argument("target", shell_complete=complete_target)
request_options: Callable[[Any], Any] = add_options(
    (
        click.argument("items", nargs=-1, type=click.UNPROCESSED, shell_complete=complete_item),
        click.option("-d", "--data", multiple=True, metavar="JSON|@FILE|-", help="The payload."),
        click.option("-H", "--header", multiple=True, metavar="K:V|@FILE|@-", help="A header."),
        click.option("-B", "--baggage", multiple=True, metavar="K=V", help="A baggage pair."),
        click.option(
            "-t",
            "--transport",
            metavar="NAME",
            default="auto",
            shell_complete=complete_transport,
            help="auto, ipc, http, amqp, redis; database for a push.",
        ),
        click.option(
            "-p", "--peer", multiple=True, metavar="URL", help="Address; asks no registry."
        ),
        click.option(
            "-P", "--peer-list", metavar="FILE|URL", default="", help="Addresses, one a line."
        ),
        click.option(
            "--instance",
            metavar="ID",
            default="",
            shell_complete=complete_instance,
            help="This instance and no other.",
        ),
        click.option("--sk", "--shard-key", "shard", metavar="KEY", default="", help="Shard key."),
        click.option(
            "--rk",
            "--routing-key",
            "routing",
            metavar="KEY",
            default="",
            help="The same key reaches the same version.",
        ),
        click.option("--caller", metavar="NAME", default="", help="Call in this service's name."),
        click.option(
            "--idempotency-key",
            "key",
            metavar="KEY|auto",
            default="",
            help="The same key runs once.",
        ),
        click.option(
            "--retry", "retries", metavar="N", type=click.IntRange(0, 100), help="Retries."
        ),
        click.option("--sample/--no-sample", default=None, help="Have the trace recorded, or not."),
        click.option("--dry-run", is_flag=True, help="Show request and route, send nothing."),
    )
)


class Asking:
    """One request as the command line describes it."""

    def __init__(
        self,
        common: Common,
        *,
        target: str,
        items: tuple[str, ...],
        data: tuple[str, ...],
        header: tuple[str, ...],
        baggage: tuple[str, ...],
        transport: str,
        peer: tuple[str, ...],
        instance: str,
        shard: str,
        caller: str,
        key: str,
        retries: int | None,
        peer_list: str = "",
        routing: str = "",
        sample: bool | None = None,
        topic: str = "",
    ) -> None:
        self.common = common
        self.env = common.env
        #: What an event is about; a target is empty then.
        self.topic = topic
        self.target = Target("", "") if topic else parse_target(target)
        self.env.target = topic or self.target.name
        listed: tuple[str, ...] = ()
        if peer_list:
            from fancli.peers import read_peers

            listed = read_peers(peer_list, common)
        self.local = [url.partition(":")[2] for url in (*peer, *listed) if url.startswith("local:")]
        if self.local and len(peer) + len(listed) > 1:
            raise Usage("-p local:MODULE stands alone")
        shon = click.get_current_context().meta[_SHON]
        self.payload = read_payload(items, data, shon, self.env)
        #: Whether there is a payload on the command line.
        self.has_payload = bool(items or data or shon is not None)
        self.options: dict[str, Any] = {
            "timeout": common.timeout,
            "want": self.target.want,
            "transport": check_transport("-t", transport),
            "peers": () if self.local else self._peers(peer, listed),
            "instance": instance,
            "shard": shard,
            "sticky": routing,
            "headers": parse_headers(header, self.env),
            "baggage": parse_baggage(baggage),
            "caller": caller,
            "key": _new_key() if key == "auto" else key,
            "retries": retries,
        }
        if caller:
            check_name("--caller", caller)
        self.env.asks_broker = bool(topic) or _is_broker(self.options)
        self.env.asks_peer = bool(self.options["peers"])
        #: Whether the trace is to be recorded; None: as the settings say.
        self.sample = sample
        #: What is registered of the service, once `describe` has read it.
        self.interface: Interface | None = None
        #: Drops what `describe` has read; None where nothing is kept.
        self._drop: Callable[[], None] | None = None
        #: What was on the wire, with -vvv.
        self.tap: Tap | None = None

    def _peers(self, given: tuple[str, ...], listed: tuple[str, ...]) -> tuple[str, ...]:
        # Who writes a list must not choose which of the user's secrets goes where.
        return check_peers(given, vars=self.env.vars) + check_peers(listed, "-P")

    @contextmanager
    def opened(self, *, live: bool = False) -> Iterator[tuple[App, Client]]:
        """An App for this request and a client with its options; a `live` one follows the registry,
        for many calls."""
        with self._app(live) as app:
            self.env.timeout = self.common.timeout or app.settings.timeout
            if self.sample is not None:
                app.sample = float(self.sample)
            try:
                yield app, app.using(**self.options)
            finally:
                self.let_go()

    def _app(self, live: bool) -> App:
        if self.local:
            from fancli.local import host

            return host(self.local[0], self.common)
        if self.common.verbose < 3:
            return self.common.app(live=live)
        from fancli.tap import Tap

        self.tap = Tap()
        transports = self.tap.transports(self.common.load().settings)
        return self.common.app(live=live, transports=transports)

    def let_go(self) -> None:
        """Read the registry anew at the next look-up: what was read is for the moment."""
        if self._drop is not None:
            self._drop()
            self._drop = None

    def describe(self, app: App) -> MethodInfo | None:
        """What is registered of the method, kept for the call that follows; None where no registry
        is asked or it knows nothing. Raises NotFound for an unknown service."""
        if self.options["peers"]:
            return None
        if self.topic:
            return self._describe_event(app)
        import time

        deadline = time.monotonic() + (self.common.timeout or app.settings.timeout)
        info = app.discovery.service(self.target.service, deadline)
        app.discovery.keep(info)
        self._drop = partial(app.discovery.forget, info.name)
        interface, want = info.interface_for(), self.target.want
        if want and want != "canary":
            from fan import versions

            version = versions.best(want, info.interfaces)
            interface = info.interfaces.get(version) if version else interface
        self.interface = interface
        return interface.method(self.target.method) if interface is not None else None

    def _describe_event(self, app: App) -> MethodInfo | None:
        """A method that handles the topic: what it takes is what an event of it holds. A broker
        needs no registry, so that one which is down is no failure."""
        from fan import FanError

        try:
            infos = app.discovery.services()
        except FanError:
            return None
        from fancli import catalog

        return catalog.handler_of(infos, self.topic)

    def arguments(self, method: MethodInfo | None, *, checked: bool = False) -> Payload:
        """The payload with its text turned into values; `checked` refuses here what the callee
        would. Raises InvalidArgument, Unimplemented (unknown_method)."""
        from fancli.coerce import check, coerce

        self.env.is_untyped = method is None
        payload = coerce(self.payload, method)
        if checked and method is not None:
            check(payload, method)
        elif checked and self.interface is not None:
            from fancli import catalog

            catalog.method(self.interface, self.target.method)
        return payload

    def choice(self, app: App, client: Client, kind: str = "call") -> Choice | None:
        """Where it would go; None for a service in this process."""
        if self.local:
            return None
        if self.topic:
            return self._broker(app)
        return client.resolve(self.target.service, self.target.method, kind=kind)

    def _broker(self, app: App) -> Choice:
        """Where an event goes."""
        from fan import Address, Choice

        if self.options["peers"]:
            url = self.options["peers"][0]
            return Choice("", "", Address(url), why=(f"peer asked for: {url}",))
        asked = self.options["transport"]
        name = asked or app.settings.queue
        why = f"transport {name}: {'asked for' if asked else 'the setting queue'}"
        return Choice("", "", app.transport(name).home(), why=(why,))

    @property
    def named(self) -> dict[str, str]:
        """The target or the topic, for JSON."""
        return {"topic": self.topic} if self.topic else {"target": self.target.name}

    def echo(self, kind: str, payload: Payload, choice: Choice | None) -> dict[str, Any]:
        """The object of --dry-run, secrets masked."""
        from fancli.mask import mask_pairs, mask_value

        content_type, _ = payload.encode()
        body: Any = payload.kwargs if not payload.args else payload.args
        if payload.args and payload.kwargs:
            body = {"args": payload.args, "kwargs": payload.kwargs}
        shows_all = self.env.show_secrets
        pairs: Callable[[dict[str, str]], dict[str, str]] = dict if shows_all else mask_pairs
        timeout = self.common.timeout or self.common.load().settings.timeout
        return {
            "v": 1,
            "ok": True,
            "dry_run": True,
            **self.named,
            **route_of(choice, shows_all),
            "request": {
                "kind": kind,
                "want": self.target.want,
                "timeout_ms": round(timeout * 1000),
                "headers": pairs(self.options["headers"]),
                "baggage": pairs(self.options["baggage"]),
                "caller": self.options["caller"] or "fan",
                "key": self.options["key"] or None,
                "content_type": content_type,
                "body": body if shows_all else mask_value(body),
            },
        }

    def talk_route(
        self, app: App, client: Client, payload: Payload, kind: str = "call"
    ) -> None:
        """-v: where it goes, and with -vv what is sent."""
        if not self.common.verbose:
            return
        from fancli.mask import mask_pairs, mask_url

        out, shows_all = self.common.out, self.env.show_secrets
        choice = self.choice(app, client, kind)
        out.talk(f"* {self.topic or self.target.name}")
        if choice is not None:
            for why in choice.why:
                out.talk(f"* {why if shows_all else mask_url(why)}")
            url = choice.address.url
            out.talk(f"* address {url if shows_all else mask_url(url)}")
        for name in ("headers", "baggage"):
            pairs = self.options[name] if shows_all else mask_pairs(self.options[name])
            for key, value in pairs.items():
                out.talk(f"> {name[:6] if name == 'headers' else name} {key}: {value}")
        if self.common.verbose == 2:
            body = self.echo(kind, payload, None)["request"]["body"]
            out.talk(f"> {_text(body)}")


def _is_broker(options: dict[str, Any]) -> bool:
    """Whether the options name one."""
    from fan import plugins

    schemes = [url.partition(":")[0] for url in options["peers"]] or [options["transport"]]
    return any(plugins.transport_name(scheme) in plugins.QUEUES for scheme in schemes)


def route_of(choice: Choice | None, shows_all: bool) -> dict[str, Any]:
    """Version, instance, address and reasons of a choice, for JSON."""
    if choice is None:
        return {"version": None, "transport": "local", "instance": None, "address": None,
                "gen": None, "why": ["hosted in this process"]}  # fmt: skip
    from fan import plugins
    from fancli.mask import mask_url

    url = choice.address.url
    return {
        "version": choice.version or None,
        "transport": plugins.transport_name(choice.address.scheme),
        "instance": choice.instance.id if choice.instance is not None else None,
        "address": url if shows_all else mask_url(url),
        "gen": choice.gen or None,
        "why": [why if shows_all else mask_url(why) for why in choice.why],
    }


def _new_key() -> str:
    from fan import new_id

    return new_id()


def _text(value: Any) -> str:
    from fancli.render import to_json

    return to_json(value).decode()
