"""How the calls of one service or method are treated, where that is not as the settings say.

A policy is a mapping with names of settings (`FIELDS`) for a whole service, and with more of them
under `methods` for single ones::

    {"retries": 4, "breaker_failures": 0, "methods": {"report": {"timeout": "30s", "retries": 0}}}

It is declared by the service (`Service.policy`, which travels with its interface), by the App that
calls or serves (`App(policies={"shop": {...}})`), and in the registry, as the config
`SERVICE/policy`, which is followed live. The later one wins, field by field; a method's own fields
win over the service's. Where a layer is off by a value, as `retries: 0`, it is off here too.

Whoever writes a `SERVICE/policy` that cannot be meant is refused. One that comes into the registry
all the same, as a newer fan's may, is not to stop any call: an App that has a good one keeps that,
and refuses the generation (`mirror`); one that comes later logs it and leaves it out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from fan.errors import InvalidArgument
from fan.settings import Settings, convert_setting
from fan.settings_values import did_you_mean

if TYPE_CHECKING:
    from fan.middleware.base import Middleware
    from fan.mirror import State
    from fan.model import ServiceInfo

#: What a policy may say.
FIELDS = (
    "timeout",
    "retries",
    "retry_delay",
    "retry_max_delay",
    "retry_budget",
    "breaker_failures",
    "breaker_reset",
    "bulkhead_calls",
    "bulkhead_requests",
    "dedupe_window",
    "dedupe_entries",
    "metrics",
    "tracing",
    "access_log",
)

_NOTHING: dict[str, Any] = {}

#: What the object of a policy in the registry begins with, and ends with.
_KIND, _KEY = "config/", "/policy"

#: Fields that differ from the settings, by name.
Overrides = tuple[tuple[str, Any], ...]


class Policies:
    """The policies of one App, and the layers that they come to. `make` gives the layers for
    settings."""

    def __init__(
        self,
        settings: Settings,
        given: Mapping[str, Mapping[str, Any]],
        make: Callable[[Settings], list[Middleware]],
    ) -> None:
        """Raises InvalidArgument (bad_policy) for what `given` cannot mean."""
        self._settings = settings
        self._make = make
        #: What the App itself was given, by service.
        self.given = {name: check_policy(name, policy) for name, policy in given.items()}
        self._found: dict[tuple[str, str], tuple[tuple[Any, ...], Overrides]] = {}
        self._layers: dict[Overrides, list[Middleware]] = {}
        #: What was wrong with the policy of a service, as it was told last.
        self._told: dict[str, str] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Policies given={sorted(self.given)} in_use={len(self._layers)}>"

    def of(
        self,
        service: str,
        method: str,
        info: ServiceInfo | None,
        declared: Mapping[str, Any] | None = None,
    ) -> Overrides:
        """What differs for a method. `declared` is what the service itself says, where that is not
        known from `info`."""
        given = self.given.get(service, _NOTHING)
        if declared is None:
            interface = info.interface_for() if info is not None else None
            declared = interface.policy if interface is not None else _NOTHING
        live = info.policy if info is not None else _NOTHING
        if not (given or declared or live):
            return ()
        sources = (declared, given, live)
        known = self._found.get((service, method))
        if known is not None and all(a is b for a, b in zip(known[0], sources, strict=True)):
            return known[1]
        found = self._merge(service, method, sources)
        self._found[service, method] = sources, found
        return found

    def layers(self, overrides: Overrides) -> list[Middleware]:
        """The layers for what differs: the same ones for the same fields, as long as they are those
        of a method."""
        layers = self._layers.get(overrides)
        if layers is not None:
            return layers
        with self._lock:
            layers = self._layers.get(overrides)
            if layers is None:
                settings = msgspec.structs.replace(self._settings, **dict(overrides))
                layers = self._make(settings)
                in_use = {found for _, found in list(self._found.values())}
                # Those of policies that were: what they share with these goes on.
                self._layers = {k: v for k, v in self._layers.items() if k in in_use}
                self._layers[overrides] = layers
            return layers

    def has(self, overrides: Overrides) -> bool:
        """Whether there are layers for what differs."""
        return overrides in self._layers

    def start_over(self) -> None:
        """In a forked child: nobody else is here."""
        self._lock = threading.Lock()

    def close(self) -> None:
        """Release the layers. Twice does no harm."""
        with self._lock:
            for layers in self._layers.values():
                for layer in layers:
                    layer.close()
            self._layers.clear()

    def _merge(
        self, service: str, method: str, sources: Sequence[Mapping[str, Any]]
    ) -> Overrides:
        merged: dict[str, Any] = {}
        checked = [self._tolerated(service, source) for source in sources]
        for policy in checked:
            merged.update((k, v) for k, v in policy.items() if k != "methods")
        for policy in checked:
            merged.update(policy.get("methods", {}).get(method, {}))
        usual = self._settings
        differs = {name: v for name, v in merged.items() if getattr(usual, name) != v}
        return tuple(sorted(differs.items()))

    def _tolerated(self, service: str, policy: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            return check_policy(service, policy)
        except InvalidArgument as exc:
            import logging

            if self._told.get(service) != str(exc):  # once, not for each of the methods
                self._told[service] = str(exc)
                logging.getLogger("fan").warning("%s; it is left out", exc)
            return {}


def check_policy(service: str, policy: Any) -> dict[str, Any]:
    """A policy with its values as the settings have them. Raises InvalidArgument (bad_policy)
    naming the field."""
    where = f"the policy of {service}"
    if not isinstance(policy, Mapping):
        raise InvalidArgument(f"{where} is no mapping", reason="bad_policy")
    checked = _fields(where, {k: v for k, v in policy.items() if k != "methods"})
    methods = policy.get("methods", {})
    if not isinstance(methods, Mapping) or not all(
        isinstance(fields, Mapping) for fields in methods.values()
    ):
        raise InvalidArgument(
            f"{where}: methods maps the name of a method to what differs for it",
            reason="bad_policy",
        )
    if methods:
        checked["methods"] = {
            name: _fields(f"{where}: {name}", fields) for name, fields in methods.items()
        }
    return checked


def check_config(key: str, value: Any) -> None:
    """Refuses a config that is to be a policy and cannot be one, for `Configs(check=...)`. Raises
    InvalidArgument (bad_policy)."""
    if service := _service_of(_KIND + key):
        check_policy(service, value)


def check_state(before: State, after: State) -> None:
    """Raise InvalidArgument (bad_policy) where what was in force of a policy, or that there was
    none, would be replaced by what cannot be meant."""
    for object, revision in after.objects.items():
        service = _service_of(object)
        if not service or revision.body is None or not before.wants(object):
            continue
        old = before.body(object)
        if revision.body != old and (old is None or _is_good(service, old)):
            check_policy(service, _decoded(revision.body))


def _service_of(object: str) -> str:
    """Whose policy an object is; empty for what is none."""
    if not (object.startswith(_KIND) and object.endswith(_KEY)):
        return ""
    service = object[len(_KIND) : -len(_KEY)]
    return "" if "/" in service else service


def _is_good(service: str, body: bytes) -> bool:
    try:
        check_policy(service, _decoded(body))
    except InvalidArgument:
        return False
    return True


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None


def _fields(where: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    out = {}
    for name, value in fields.items():
        if name not in FIELDS:
            raise InvalidArgument(
                f"{where}: there is no field {name!r}{did_you_mean(str(name), FIELDS)}",
                reason="bad_policy",
            )
        try:
            out[name] = convert_setting(name, value)
        except ValueError as exc:
            raise InvalidArgument(f"{where}: {name}: {exc}", reason="bad_policy") from exc
    return out
