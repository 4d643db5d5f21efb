"""The configs of services: keyed documents in the registry, with a history and a way back.

An App has them as `app.config`. The parts: `config_values` says what keys and values are and which
schema they must fit, `config_history` reads revisions, `config_plans` says what a write does,
`config_watch` follows changes, `config_live` keeps what is used at hand, and `config_views` makes
typed settings of it.
"""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from fan import config_history, config_plans, config_values
from fan.config_history import ConfigEntry, ConfigEvent, no_such_config
from fan.config_live import Live
from fan.config_values import CONFIG, MISSING, SCHEMA, check_key, encode, encode_schema
from fan.config_views import View, as_typed, fields_of, overridden, tree, variable_of
from fan.config_watch import ConfigWatch
from fan.errors import NO, FanError, NotFound, Unavailable
from fan.following import Cursor
from fan.mirror import Mirror, read_names
from fan.stores.base import Cut, Plan, Store
from fan.writing import Write, Written, write

T = TypeVar("T")

_PLAINLY = Write()


class Configs:
    """The configs of one App's registry.

        app.config["orders/theme"]                     # the value in force; NotFound without one
        app.config.set("orders/theme", "dark")
        orders = app.config.bind("orders", OrderSettings)   # typed, and kept current
        orders.value.theme

    Values come from three layers: a variable `FAN_CONFIG_ORDERS_THEME`, the registry, `defaults`.
    With `live`, what was read once is kept at hand and refreshed by a watch. What writes takes
    `how`, see `Write`, and tells with `Written` what it came to; equal values are no change.
    """

    def __init__(
        self,
        store: Callable[[], Store],
        *,
        live: bool = True,
        timeout: float = 5.0,
        variables: Callable[[], Mapping[str, str]] = dict,
        mirror: Mirror | None = None,
        check: Callable[[str, Any], None] = lambda key, value: None,
    ) -> None:
        """`check` raises InvalidArgument for a value that fan itself could not read under a key."""
        self._open = store
        self._check_own = check
        self._is_live = live
        self._timeout = timeout
        self._variables = variables
        self._owns_mirror = mirror is None
        self._live = Live(Mirror(store, timeout) if mirror is None else mirror)
        self._views: list[View[Any]] = []
        #: Key -> the value where neither the environment nor the registry has one.
        self.defaults: dict[str, Any] = {}

    def __repr__(self) -> str:
        names = [n for n in self._live.mirror.state.names if n.startswith(CONFIG)]
        return f"<Configs {len(names)} names in use, {len(self._views)} views>"

    # Values in force

    def __getitem__(self, key: str) -> Any:
        value = self.get(key, MISSING)
        if value is MISSING:
            raise no_such_config(key)
        return value

    def __contains__(self, key: str) -> bool:
        return self.get(key, MISSING) is not MISSING

    def get(
        self, key: str, default: Any = None, *, gen: int = 0, deadline: float | None = None
    ) -> Any:
        """The value in force, or with `gen` the one of that generation; `default` where there is
        none in any layer."""
        if gen:
            value = self.value_at(key, gen)
        elif self._is_live:
            value = self._live.use(check_key(key), deadline=deadline, is_passing=True).get(
                key, MISSING
            )
        else:
            value = self.values(check_key(key), deadline=deadline).get(key, MISSING)
        if value is MISSING:
            value = self.defaults.get(key, MISSING)
        text = self._variables().get(variable_of(key))
        if text is not None:
            return as_typed(text, None if value is MISSING else value)
        return default if value is MISSING else value

    def pinned(self, gen: int) -> PinnedConfigs:
        """The configs as of generation `gen`; 0 is what is in force."""
        return PinnedConfigs(self, gen)

    def value_at(self, key: str, gen: int) -> Any:
        """The value of a key as the registry had it in generation `gen`, `MISSING` for none. Raises
        Unavailable (stale_pin), executed no, where that is not kept any more."""
        object, store = CONFIG + check_key(key), self._open()
        if self._is_live:
            values = self._live.use(key, is_passing=True)
            state = self._live.mirror.state
            found = state.objects.get(object)
            if found is not None and found.pinned_at <= gen <= state.gen:
                return values.get(key, MISSING)
        try:
            revision = store.read([object], gen=gen, deadline=self._deadline(None)).objects
        except NotFound as exc:
            raise Unavailable(
                f"the call is pinned to generation {gen}, which is not kept any more",
                reason="stale_pin",
                executed=NO,
            ) from exc
        body = revision[object].body if object in revision else None
        return MISSING if body is None else config_values.decode(object, body)

    def bind(
        self,
        prefix: str,
        kind: type[T],
        on_change: Callable[[T], None] | None = None,
    ) -> View[T]:
        """Settings of the class `kind`, a msgspec Struct or a dataclass, that follow the configs
        below `prefix`; `on_change` is called with each new one behind the change, in a thread
        for that: only the next such call waits for it. Raises InvalidArgument (bad_value) where the
        configs do not fit it."""
        prefix = check_key(prefix.rstrip("/"))
        fields = fields_of(kind)

        def read(values: Mapping[str, Any] | None = None) -> dict[str, Any]:
            if values is None:
                values = self.values(prefix, prefix + "/")
            document = tree(prefix, {**self.defaults, **values})
            return overridden(document, prefix, self._variables(), fields)

        view = View(prefix, kind, read, on_change)
        if self._is_live:
            view.follow(self._live)
        self._views.append(view)
        return view

    def document(self, prefix: str, *, deadline: float | None = None) -> dict[str, Any]:
        """All configs below `prefix` as one document, `/` being a level, with the members of the
        config `prefix` itself beneath them; without defaults and variables."""
        prefix = check_key(prefix.rstrip("/"))
        return tree(prefix, self.values(prefix, prefix + "/", deadline=deadline))

    def values(self, *names: str, deadline: float | None = None) -> Mapping[str, Any]:
        """The values of all these keys, and prefixes that end in `/`, in one consistent reading;
        without defaults and variables. What a live App has in use besides may be among them."""
        if self._is_live:
            return self._live.use(*names, deadline=deadline)
        objects = [CONFIG + name for name in names]
        cut = read_names(self._open(), objects, self._deadline(deadline))
        return {
            object.removeprefix(CONFIG): config_values.decode(object, found.body)
            for object, found in cut.objects.items()
            if found.body is not None
        }

    # Reading the registry

    def entry(
        self,
        key: str,
        *,
        rev: int | None = None,
        gen: int | None = None,
        deadline: float | None = None,
    ) -> ConfigEntry:
        """One config as the registry has it: now, as of generation `gen`, or its revision `rev`.
        Raises NotFound: no_such_config, compacted."""
        return config_history.read_entry(self._open(), key, rev, gen, self._deadline(deadline))

    def list(
        self, prefix: str = "", *, gen: int | None = None, deadline: float | None = None
    ) -> builtins.list[ConfigEntry]:
        """The configs whose keys begin with `prefix`, by key."""
        cut = self._open().read(prefix=CONFIG + prefix, gen=gen, deadline=self._deadline(deadline))
        return [*config_history.under(prefix, cut)]

    def schema(self, key: str, *, deadline: float | None = None) -> Any:
        """The JSON Schema that a config carries, None for none."""
        object = SCHEMA + check_key(key)
        found = self._open().read([object], deadline=self._deadline(deadline)).objects.get(object)
        if found is None or found.body is None:
            return None
        return config_values.decode(object, found.body)

    def schemas(
        self, prefix: str = "", *, gen: int | None = None, deadline: float | None = None
    ) -> dict[str, Any]:
        """The schemas of all configs whose keys begin with `prefix`."""
        cut = self._open().read(prefix=SCHEMA + prefix, gen=gen, deadline=self._deadline(deadline))
        return {
            object.removeprefix(SCHEMA): config_values.decode(object, found.body)
            for object, found in cut.objects.items()
            if found.body is not None
        }

    def history(self, key: str, *, deadline: float | None = None) -> builtins.list[ConfigEvent]:
        """The changes of a config that the history keeps, the newest first. Raises NotFound."""
        return config_history.history(self._open(), key, self._deadline(deadline))

    def diff(
        self,
        key: str,
        first: int | None = None,
        second: int | None = None,
        *,
        deadline: float | None = None,
    ) -> tuple[ConfigEntry, ConfigEntry]:
        """Two revisions of a config: `first` and `second`, by default the one in force and the one
        before it. Raises NotFound."""
        return config_history.compared(
            self._open(), key, first, second, self._deadline(deadline)
        )

    def watch(
        self,
        *names: str,
        since: str = "",
        latest: bool = False,
        strict: bool = False,
    ) -> ConfigWatch:
        """Follow keys, and prefixes that end in `/`: what is there first, then every change, in
        order; with the cursor `since`, what came after it. With `latest` changes that wait are
        taken together; with `strict` a history that is not kept any more raises OutOfRange
        (compacted). Raises InvalidArgument (bad_cursor, bad_key)."""
        cursor = Cursor.parse(since) if since else None
        return ConfigWatch(
            self._open(), names, cursor, latest=latest, strict=strict, timeout=self._timeout
        )

    def check(self, key: str, value: Any, schema: Any = MISSING) -> None:
        """Raise InvalidArgument (bad_value, bad_schema) where a value does not fit the schema that
        the config carries, or the one that is given."""
        encode(check_key(key), value)
        self._check_own(key, value)
        if schema is MISSING:
            schema = self.schema(key)
        if schema is not None:
            config_values.check_value(key, value, encode_schema(key, schema))

    # Writing

    def set(
        self,
        key: str,
        value: Any,
        *,
        schema: Any = MISSING,
        if_rev: int | None = None,
        create: bool = False,
        how: Write = _PLAINLY,
        deadline: float | None = None,
    ) -> Written:
        """Give a config a value, and with `schema` a JSON Schema too (None: take it away). Only if
        it is at revision `if_rev`, or with `create` not there at all; else Aborted (conflict) or
        AlreadyExists. Raises InvalidArgument (bad_value) for what does not fit the schema."""
        encode(check_key(key), value)

        def make(cut: Cut) -> Plan:
            return config_plans.set_plan(cut, key, value, schema, if_rev, create)

        return self._write(make, how, (key,), deadline)

    def apply(
        self,
        values: Mapping[str, Any],
        *,
        schemas: Mapping[str, Any] | None = None,
        how: Write = _PLAINLY,
        verb: str = "apply",
        deadline: float | None = None,
    ) -> Written:
        """Give many configs their values, and some their schemas, in one generation: all of them
        or none."""
        changes = config_plans.changes_of(values, schemas)
        keys = (*values, *(schemas or {}))

        def make(cut: Cut) -> Plan:
            return config_plans.plan_of(cut, verb, changes)

        return self._write(make, how, keys, deadline)

    def patch(
        self,
        key: str,
        patch: Any,
        *,
        if_rev: int | None = None,
        how: Write = _PLAINLY,
        deadline: float | None = None,
    ) -> Written:
        """Change members of a config by a JSON merge patch (RFC 7396). A change by somebody else
        meanwhile is patched anew, unless `if_rev` or `how` forbids it. Raises NotFound."""
        check_key(key)

        def make(cut: Cut) -> Plan:
            return config_plans.patch_plan(cut, key, patch, if_rev)

        return self._write(make, how, (key,), deadline, tries_again=if_rev is None)

    def delete(
        self,
        key: str,
        *,
        if_rev: int | None = None,
        how: Write = _PLAINLY,
        deadline: float | None = None,
    ) -> Written:
        """Delete a config; its history and schema stay, and a rollback brings it back. One that is
        deleted already is no change. Raises NotFound for one that never was."""
        check_key(key)

        def make(cut: Cut) -> Plan:
            return config_plans.delete_plan(cut, key, if_rev)

        return self._write(make, how, (key,), deadline)

    def rollback(
        self,
        key: str,
        to_rev: int | None = None,
        *,
        how: Write = _PLAINLY,
        deadline: float | None = None,
    ) -> Written:
        """Bring back the revision that the one in force replaced, so that doing it again walks
        further back; or revision `to_rev`. Raises NotFound: nothing_to_undo, compacted."""
        check_key(key)
        until = self._deadline(deadline)

        def make(cut: Cut) -> Plan:
            change = config_history.way_back(self._open(), key, cut, to_rev, until)
            return config_plans.plan_of(cut, "rollback", (change,))

        return self._write(make, how, (key,), until)

    def _checked(self, plan: Plan) -> Plan:
        """A plan whose new values are what fan itself can read, where a key is fan's."""
        for change in plan.changes:
            if change.object.startswith(CONFIG) and change.body is not None:
                value = config_values.decode(change.object, change.body)
                self._check_own(change.object.removeprefix(CONFIG), value)
        return plan

    def _write(
        self,
        make: Callable[[Cut], Plan],
        how: Write,
        keys: tuple[str, ...],
        deadline: float | None,
        tries_again: bool = False,
    ) -> Written:
        until = self._deadline(deadline)
        objects = list(dict.fromkeys(kind + key for key in keys for kind in (CONFIG, SCHEMA)))
        done = write(
            self._open(), lambda cut: self._checked(make(cut)), how,
            objects=objects, deadline=until, tries_again=tries_again,
        )  # fmt: skip
        if self._is_live and done.is_changed and not how.dry_run:
            with suppress(FanError):  # it is written; the watch will bring it, too
                self._live.refresh()  # who wrote reads what was written
        return done

    # Its life

    def close(self) -> None:
        """End what is watched; views keep their values. Twice does no harm."""
        for view in self._views:
            view.close()
        self._views.clear()
        self._live.close()
        if self._owns_mirror:
            self._live.mirror.close()

    def _deadline(self, deadline: float | None) -> float:
        return time.monotonic() + self._timeout if deadline is None else deadline


class PinnedConfigs:
    """The configs as of one generation: `fan.current().config["orders/theme"]` stays what it was
    when the call tree began."""

    def __init__(self, configs: Configs, gen: int) -> None:
        self._configs = configs
        self.gen = gen

    def __repr__(self) -> str:
        return f"<PinnedConfigs of generation {self.gen}>"

    def __getitem__(self, key: str) -> Any:
        value = self.get(key, MISSING)
        if value is MISSING:
            raise no_such_config(key)
        return value

    def __contains__(self, key: str) -> bool:
        return self.get(key, MISSING) is not MISSING

    def get(self, key: str, default: Any = None) -> Any:
        """The value, `default` where there was none in any layer. Raises Unavailable (stale_pin)
        where that generation is not kept any more."""
        return self._configs.get(key, default, gen=self.gen)
