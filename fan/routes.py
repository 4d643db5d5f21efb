"""Which way the calls of a service or of one method take, declared by the program that makes them::

    class AppRoutes(Routes):
        deployment = "{APP_CONFIG}"
        routes = {
            "lightspeed.config_update": {"type": "redis"},
            "lightspeed.run_sync": Config("lightspeed_config", default={"type": "http"}),
        }

    app = App(routes=AppRoutes)

A key is `service.method`, `service`, or the topic of an event; the longer one wins. A rule names
the transport (`type`) and, for calls that need no registry, an address (`url`). A plain rule is
persistent: bound once, it costs a call nothing. `Config` names a config in the registry that holds
such a rule, and is followed live; `default` holds until there is one. `deployment` is put before
the keys of configs (`prod/lightspeed_config`); what stands in braces is an environment variable.
What a call's own options name (`-t`, `-p`) wins over any rule.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec

from fan.errors import FanError, InvalidArgument
from fan.stores.base import Store

#: Object of a config in the registry.
_CONFIG = "config/{}"


class Config(msgspec.Struct, frozen=True):
    """The config of a key, read from the registry; `default` where there is none."""

    key: str
    default: Any = None


class Routes:
    """Base of a program's routes."""

    deployment: ClassVar[str] = ""
    routes: ClassVar[Mapping[str, Any]] = {}


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The way of a call: the name of a transport, `auto` for whatever the instance offers; and an
    address that is used as it is."""

    type: str = "auto"
    url: str = ""


class RouteBook:
    """The rules of one App as they stand. `follow` has a function called at every change of the
    registry; `check` raises InvalidArgument for a transport that nobody brings."""

    def __init__(
        self,
        routes: type[Routes],
        *,
        deployment: str,
        store: Callable[[], Store],
        follow: Callable[[Callable[[], None]], Any] | None,
        check: Callable[[str], object],
        timeout: float,
    ) -> None:
        """Raises InvalidArgument (bad_route) for a rule that cannot be meant."""
        self._check = check
        self._store = store
        self._follow = follow
        self._timeout = timeout
        self._lock = threading.Lock()
        self._rules: dict[str, Rule] = {}
        #: Key of the rule -> object of its config, and the rule where there is none.
        self._live: dict[str, tuple[str, Rule | None]] = {}
        self._is_read = False
        for name, value in routes.routes.items():
            if isinstance(value, Config):
                key = f"{deployment}/{value.key}" if deployment else value.key
                default = None if value.default is None else self._rule(name, value.default)
                self._live[name] = (_CONFIG.format(key), default)
            else:
                self._rules[name] = self._rule(name, value)

    def __repr__(self) -> str:
        return f"<RouteBook rules={sorted({*self._rules, *self._live})}>"

    def find(self, service: str, method: str) -> Rule | None:
        """The rule for a call (a topic is its own `service`, without a method), or None. Reads the
        registry at the first dynamic rule."""
        if self._live and not self._is_read:
            self._begin()
        rules = self._rules
        return rules.get(f"{service}.{method}" if method else service) or rules.get(service)

    def _begin(self) -> None:
        with self._lock:
            if self._is_read:
                return
            self._refresh()
            self._is_read = True
        if self._follow is not None:
            try:
                self._follow(self._refresh)
            except FanError:  # the registry is down: asked again at the next call
                self._is_read = False

    def _refresh(self) -> None:
        """Read the configs again. Where the registry is down what was known holds, or else the
        defaults."""
        objects = [object for object, _ in self._live.values()]
        try:
            cut = self._store().read(objects, deadline=time.monotonic() + self._timeout)
        except FanError:
            for name, (_, default) in self._live.items():
                if default is not None:
                    self._rules.setdefault(name, default)
            return
        rules = dict(self._rules)
        for name, (object, default) in self._live.items():
            found = cut.objects.get(object)
            rule = default if found is None else self._tolerated(name, found.body, default)
            if rule is None:
                rules.pop(name, None)
            else:
                rules[name] = rule
        self._rules = rules  # in one assignment: no call sees half of a change

    def _tolerated(self, name: str, body: bytes | None, default: Rule | None) -> Rule | None:
        """What the registry holds is not to stop any call."""
        try:
            return self._rule(name, msgspec.json.decode(body or b"null"))
        except (FanError, msgspec.DecodeError) as exc:
            import logging

            logging.getLogger("fan").warning("%s; it is left out", exc)
            return self._rules.get(name, default)

    def _rule(self, name: str, value: Any) -> Rule:
        try:
            rule = msgspec.convert(dict(value), Rule)
            if rule.type != "auto":
                self._check(rule.type)
            if rule.url:
                self._check(rule.url.partition(":")[0])
        except (TypeError, ValueError, FanError) as exc:
            raise InvalidArgument(
                f"the route of {name} is {value!r}: {exc}", reason="bad_route"
            ) from exc
        return rule
