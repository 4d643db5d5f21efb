"""What there is to plug in: transports and stores by name, and the layers of middleware.

The built-in ones stand in tables of text, so that knowing them costs no import; others come from
the entry points `fan.transports` and `fan.stores` of installed distributions, which are looked at
only for a name that is not built in, or to list everything. A transport's class is called with the
Settings; a store's with what follows `SCHEME:` in the registry URL, and the namespace.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from weakref import WeakValueDictionary

import msgspec

from fan.errors import InvalidArgument, Unimplemented
from fan.model import ALIASES as ALIASES
from fan.model import QUEUES as QUEUES
from fan.settings import Settings
from fan.settings_places import default_cache_dir, default_registry
from fan.settings_values import did_you_mean, normal_registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.metadata import EntryPoint

    from fan.middleware.base import Middleware
    from fan.stores.base import Store
    from fan.tracers.base import Tracer
    from fan.transports.base import Ledger, Transport

M = TypeVar("M", bound="Middleware")

Kind = Literal["transport", "store", "tracer"]

TRANSPORTS = {
    "local": "fan.transports.local:LocalTransport",
    "ipc": "fan.transports.ipc:IpcTransport",
    "http": "fan.transports.http:HttpTransport",
    "amqp": "fan.transports.amqp:AmqpTransport",
    "redis": "fan.transports.redis:RedisTransport",
    "database": "fan.transports.database:DatabaseTransport",
}
STORES = {
    "memory": "fan.stores.memory:MemoryStore",
    "sqlite": "fan.stores.sqlite:SqliteStore",
    "zk": "fan.stores.zookeeper:ZookeeperStore",
}
TRACERS = {
    "noop": "fan.tracers.noop:NoopTracer",
    "opentracing": "fan.tracers.opentracing:OpenTracingTracer",
}

TABLES: dict[Kind, dict[str, str]] = {
    "transport": TRANSPORTS, "store": STORES, "tracer": TRACERS,
}  # fmt: skip
GROUPS: dict[Kind, str] = {
    "transport": "fan.transports", "store": "fan.stores", "tracer": "fan.tracers",
}  # fmt: skip


class PluginWarning(UserWarning):
    """A plugin is installed and cannot be used; everything else goes on without it."""


class Plugin(msgspec.Struct, frozen=True):
    """One row of `fan plugins`. `origin` is `built-in` or the distribution that brings it; `error`
    says why it cannot be used, empty where it can."""

    name: str
    kind: Kind
    target: str
    origin: str
    error: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether it can be used."""
        return not self.error


def transport_name(scheme: str) -> str:
    """The transport of an address's scheme: `ipc` of `unix`; what is no alias is its own name."""
    return ALIASES.get(scheme, scheme)


def transport_class(scheme: str) -> type[Transport]:
    """The class for `ipc`, `unix`, `http`, ... Raises InvalidArgument (unknown_scheme) for a name
    that nobody brings, and Unimplemented (broken_plugin), after a warning, for one that cannot be
    loaded."""
    cls: type[Transport] = _load("transport", transport_name(scheme))
    return cls


def tracer_class(name: str) -> type[Tracer]:
    """The class of a tracer. Raises as `transport_class` does."""
    cls: type[Tracer] = _load("tracer", name)
    return cls


def transport_names() -> list[str]:
    """Every transport that is built in or installed, by name."""
    return _names("transport")


def store_names() -> list[str]:
    """Every store that is built in or installed, by name."""
    return _names("store")


def open_store(
    url: str,
    namespace: str,
    settings: Settings | None = None,
    *,
    on_stale: Callable[[float], None] | None = None,
) -> Store:
    """The store of a registry URL, not yet connected. With `on_stale` what was read last answers
    while it cannot be reached, for `settings.max_stale`: it is told how old that is. Raises as
    `transport_class` does, and InvalidArgument (bad_setting) for a URL that is incomplete."""
    try:
        url = normal_registry(url)
    except ValueError as exc:
        raise InvalidArgument(f"registry: {exc}", reason="bad_setting") from exc
    scheme, _, place = url.partition(":")
    cls = _load("store", scheme)
    if scheme == "memory":
        made: Store = cls(namespace)
    elif scheme == "sqlite":
        # Only the default's folder is ours to make: elsewhere a missing one is a mistake.
        made = cls(place, namespace, makes_folder=url == default_registry(os.environ))
    else:
        made = cls(place, namespace)
    if on_stale is not None and settings is not None and scheme != "memory":
        from fan.stale import StaleStore

        name, folder = f"{namespace} {url}", default_cache_dir(os.environ)
        return StaleStore(made, name, folder, settings.max_stale, on_stale)
    return made


class Kept:
    """The layers of an App that remember something, as long as a list of layers holds them: what
    they remember (answers, places, failures) is that of a service, whatever else its policy says.
    """

    def __init__(self) -> None:
        self._layers: WeakValueDictionary[Any, Middleware] = WeakValueDictionary()

    def take(self, cls: type[M], **how: Any) -> M:
        """The layer of that kind, made where there is none."""
        key = (cls, *how.items())
        found: Any = self._layers.get(key)
        if found is None:
            found = self._layers[key] = cls(**how)
        layer: M = found
        return layer

    def start_over(self) -> None:
        """In a forked child: what others were doing in the parent is not done here."""
        for layer in list(self._layers.values()):
            layer.start_over()


def default_middleware(
    settings: Settings,
    *,
    is_live: bool = True,
    metrics: Middleware | None = None,
    tracer: Tracer | None = None,
    ledger: Callable[[], Ledger] | None = None,
    kept: Kept | None = None,
) -> list[Middleware]:
    """The layers of an App, outermost first. The order is part of fan's contract:

    - calling: hops, deadline, metrics, span, retry, [the choice of an instance], breaker, bulkhead,
      [transport];
    - serving: hops, deadline, metrics, bulkhead, dedupe, span, logs, [handler].

    One list holds both, since a layer without a side costs nothing there. An App that is not
    `is_live` makes one call and goes: it gets no layers of a server. `metrics` counts for all
    policies, `tracer` is where spans go, `ledger` keeps the answers of `@rpc(dedupe="shared")`;
    what is None is left out. `kept` are the layers that other lists share with this one.
    """
    from fan.middleware.deadline import Deadline
    from fan.middleware.hops import Hops
    from fan.middleware.retry import Retry

    if kept is None:
        kept = Kept()
    layers: list[Middleware] = [
        Hops(),
        Deadline(default=settings.timeout),
    ]
    if metrics is not None and settings.metrics:
        layers.append(metrics)
    if not settings.tracing:
        tracer = None
    if tracer is not None:
        from fan.middleware.span import ClientSpan

        layers.append(ClientSpan(tracer))
    layers.append(
        kept.take(
            Retry,
            retries=settings.retries,
            delay=settings.retry_delay,
            max_delay=settings.retry_max_delay,
            budget=settings.retry_budget,
        )
    )
    if settings.breaker_failures and is_live:
        from fan.middleware.breaker import Breaker

        failures, reset = settings.breaker_failures, settings.breaker_reset
        layers.append(kept.take(Breaker, failures=failures, reset=reset))
    if settings.bulkhead_calls:
        from fan.middleware.bulkhead import ClientBulkhead

        layers.append(kept.take(ClientBulkhead, limit=settings.bulkhead_calls))
    if is_live:
        layers += _serving_layers(settings, tracer, ledger, kept)
    return layers


def _serving_layers(
    settings: Settings,
    tracer: Tracer | None,
    ledger: Callable[[], Ledger] | None,
    kept: Kept,
) -> list[Middleware]:
    from fan.middleware.bulkhead import Bulkhead
    from fan.middleware.dedupe import Dedupe
    from fan.middleware.logs import Logs

    layers: list[Middleware] = []
    if settings.bulkhead_requests:
        layers.append(kept.take(Bulkhead, limit=settings.bulkhead_requests))
    if settings.dedupe_window:
        window, entries = settings.dedupe_window, settings.dedupe_entries
        layers.append(kept.take(Dedupe, window=window, max_entries=entries, ledger=ledger))
    if tracer is not None:
        from fan.middleware.span import ServerSpan

        layers.append(ServerSpan(tracer))
    layers.append(kept.take(Logs))
    if settings.access_log:
        from fan.middleware.logs import AccessLog

        layers.append(AccessLog())
    return layers


def listing() -> list[Plugin]:
    """Everything that is built in or installed; each is loaded, to say whether it can be."""
    rows: list[Plugin] = []
    for kind, table in TABLES.items():
        for name, target in table.items():
            rows.append(_row(Plugin(name, kind, target, "built-in")))
        seen = dict(table)
        for point in _entry_points(kind):
            row = Plugin(point.name, kind, point.value, _origin(point))
            taken = seen.get(point.name)
            if taken == point.value:
                continue  # our own rows are declared both ways
            if taken:
                rows.append(msgspec.structs.replace(row, error=f"the name is taken by {taken}"))
                continue
            seen[point.name] = point.value
            rows.append(_row(row))
    return sorted(rows, key=lambda row: (row.kind != "transport", row.name))


def _row(row: Plugin) -> Plugin:
    try:
        _import(row.target)
    except Exception as exc:
        return msgspec.structs.replace(row, error=_sentence(exc))
    return row


def _load(kind: Kind, name: str) -> Any:
    target = TABLES[kind].get(name)
    if target:
        return _import(target)
    point = next((p for p in _entry_points(kind) if p.name == name), None)
    if point is None:
        known = _names(kind) if kind == "store" else {*_names(kind), *ALIASES}
        raise InvalidArgument(
            f"there is no {kind} {name!r}{did_you_mean(name, known)}", reason="unknown_scheme"
        )
    try:
        return _import(point.value)
    except Exception as exc:
        text = f"the {kind} {name!r} of {_origin(point)} cannot be loaded: {_sentence(exc)}"
        warnings.warn(text, PluginWarning, stacklevel=3)
        raise Unimplemented(text, reason="broken_plugin") from exc


def _names(kind: Kind) -> list[str]:
    return sorted({*TABLES[kind], *(point.name for point in _entry_points(kind))})


def _entry_points(kind: Kind) -> list[EntryPoint]:
    from importlib.metadata import entry_points

    return sorted(entry_points(group=GROUPS[kind]), key=lambda p: (p.name, p.value))


def _import(target: str) -> Any:
    from importlib import import_module

    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def _origin(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "unknown"


def _sentence(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
