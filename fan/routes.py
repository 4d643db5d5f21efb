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
from fan.mirror import Mirror, State
from fan.stores.base import Revision, Store

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
    """The rules of one App as they stand. Those in configs are read by `open`, and follow the
    `mirror` of the App from then on: `on_change` is called when they may have changed. Without one
    they are read once, from the `store`. `check` raises InvalidArgument for a transport that nobody
    brings."""

    def __init__(
        self,
        routes: type[Routes],
        *,
        deployment: str,
        store: Callable[[], Store],
        mirror: Mirror | None,
        on_change: Callable[[], None],
        check: Callable[[str], object],
        timeout: float,
    ) -> None:
        """Raises InvalidArgument (bad_route) for a rule that cannot be meant."""
        self._check = check
        self._store = store
        self._mirror = mirror
        self._on_change = on_change
        self._timeout = timeout
        self._lock = threading.Lock()
        self._rules: dict[str, Rule] = {}
        #: Key of the rule -> object of its config, and the rule where there is none.
        self._live: dict[str, tuple[str, Rule | None]] = {}
        #: What each of the configs held when it was looked at last.
        self._bodies: dict[str, bytes | None] = {}
        self._is_read = self._is_followed = self._was_tried = False
        for name, value in routes.routes.items():
            if isinstance(value, Config):
                key = f"{deployment}/{value.key}" if deployment else value.key
                default = None if value.default is None else self._rule(name, value.default)
                self._live[name] = (_CONFIG.format(key), default)
            else:
                self._rules[name] = self._rule(name, value)

    def __repr__(self) -> str:
        return f"<RouteBook rules={sorted({*self._rules, *self._live})}>"

    @property
    def is_at_hand(self) -> bool:
        """Whether `at_hand` knows what the registry says, or that it could not be asked."""
        return self._was_tried or not self._live

    def find(self, service: str, method: str) -> Rule | None:
        """The rule for a call (a topic is its own `service`, without a method), or None."""
        self.open()
        return self.at_hand(service, method)

    def at_hand(self, service: str, method: str) -> Rule | None:
        """The same, of the rules that were read before: this waits for nobody."""
        rules = self._rules
        return rules.get(f"{service}.{method}" if method else service) or rules.get(service)

    def open(self) -> None:
        """Read the dynamic rules, if there are any and that was not done. Where the registry is
        down the defaults hold, and the next call asks again."""
        if self._is_read or not self._live:
            return
        objects = [object for object, _ in self._live.values()]
        try:
            # Never under a lock that `on_change` needs: the mirror tells of changes under its own.
            if self._mirror is None:
                deadline = time.monotonic() + self._timeout
                is_new = self._take(self._store().read(objects, deadline=deadline).objects)
            else:
                self._mirror.use(*objects)
                self._follow(self._mirror)
                is_new = self._refresh()
        except FanError:
            for name, (_, default) in self._live.items():
                if default is not None:
                    self._rules.setdefault(name, default)
            self._was_tried = True
            return
        self._is_read = self._was_tried = True
        if is_new:
            self._on_change()  # what was bound meanwhile went by the defaults

    def _follow(self, mirror: Mirror) -> None:
        with self._lock:
            if self._is_followed:
                return
            self._is_followed = True

        def changed(state: State) -> None:
            if self._refresh():
                self._on_change()

        mirror.listen(changed)

    def _refresh(self) -> bool:
        """Take over what the mirror has; False where that is nothing new."""
        assert self._mirror is not None
        with self._lock:  # the newest state wins, whoever comes first
            return self._take(self._mirror.state.objects)

    def _take(self, objects: Mapping[str, Revision]) -> bool:
        bodies = {
            object: objects[object].body if object in objects else None
            for object, _ in self._live.values()
        }
        if bodies == self._bodies:
            return False
        rules = dict(self._rules)
        for name, (object, default) in self._live.items():
            is_there = object in objects
            rule = self._tolerated(name, bodies[object], default) if is_there else default
            if rule is None:
                rules.pop(name, None)
            else:
                rules[name] = rule
        self._rules = rules  # in one assignment: no call sees half of a change
        self._bodies = bodies
        return True

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
