"""Random histories of switches, configs and rollbacks on the real stores, beside a model that knows
the rules in a few lines: generations, pins, values and refusals are the same after every step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from fan import Configs, FanError, Write
from fan.config_values import CONFIG
from fan.stores.base import Store
from fan.stores.memory import MemoryStore
from fan.stores.sqlite import SqliteStore
from fan.stores.zookeeper import ZookeeperStore
from fan.version_routes import ROUTE, decode_route
from tests.versions import World

SERVICES = ("shop", "stock")
VERSIONS = ("1.0", "2.0", "3.0")
KEYS = ("shop/theme", "other/key")

services = st.sampled_from(SERVICES)
versions = st.sampled_from(VERSIONS)
keys = st.sampled_from(KEYS)
values = st.integers(1, 3)


class Refused(Exception):
    """The model refuses, for this reason."""


class Model:
    """The rules. An object is pinned at a revision, 0 for none; a value of None is a tombstone."""

    def __init__(self) -> None:
        self.pins: dict[str, int] = {}
        self.values: dict[tuple[str, int], Any] = {}
        self.parents: dict[tuple[str, int], int] = {}
        #: Of each generation: its verb, and each object's pin before and after.
        self.log: list[tuple[str, dict[str, tuple[int, int]]]] = []
        #: The pins as of each generation, of the one before the first first.
        self.past: list[dict[str, int]] = [{}]

    def value(self, object: str) -> Any:
        return self.values.get((object, self.pins.get(object, 0)))

    def write(self, verb: str, wanted: Mapping[str, Any]) -> None:
        """Give objects values; those that have them already are no change."""
        moved = {}
        for object, value in wanted.items():
            if value != self.value(object):
                rev = len(self.log) + 1
                self.values[object, rev] = value
                self.parents[object, rev] = self.pins.get(object, 0)
                moved[object] = rev
        self._commit(verb, moved)

    def delete(self, object: str) -> None:
        """Leave a tombstone; where there is one already it is no change."""
        if object not in self.pins:
            raise Refused("no_such_config")
        self.write("delete", {object: None})

    def undo(self, gen: int | None) -> None:
        """Each object of the generation that is still at its revision returns to the one before."""
        verb, diff = self.log[(gen or self._candidate()) - 1]
        if verb == "adopt":
            raise Refused("adoption")
        moved = {}
        for object, (before, after) in diff.items():
            pin = self.pins.get(object, 0)
            if pin not in (before, after):
                raise Refused("conflict")
            if pin == after:
                moved[object] = before
        if not moved:
            raise Refused("conflict")
        self._commit("rollback", moved)

    def _candidate(self) -> int:
        """The newest generation, no adoption, that made a route which is pinned."""
        routes = {rev for object, rev in self.pins.items() if object.startswith(ROUTE)}
        for rev in sorted(routes, reverse=True):
            if self.log[rev - 1][0] != "adopt":
                return rev
        raise Refused("nothing_to_undo")

    def undo_config(self, object: str) -> None:
        """Pin the parent of what is pinned."""
        pin = self.pins.get(object, 0)
        if not pin:
            raise Refused("no_such_config")
        if not (parent := self.parents[object, pin]):
            raise Refused("nothing_to_undo")
        self._commit("rollback", {object: parent})

    def restore(self, gen: int, configs: bool) -> None:
        """Pin what was pinned then; what is younger stays."""
        kinds = (ROUTE, CONFIG) if configs else (ROUTE,)
        then = {o: rev for o, rev in self.past[gen].items() if o.startswith(kinds)}
        self._commit("rollback", {o: r for o, r in then.items() if self.pins.get(o, 0) != r})

    def _commit(self, verb: str, moved: Mapping[str, int]) -> None:
        if not moved:
            return
        self.log.append((verb, {o: (self.pins.get(o, 0), rev) for o, rev in moved.items()}))
        self.pins = {o: rev for o, rev in {**self.pins, **moved}.items() if rev}
        self.past.append(self.pins)


class Histories(RuleBasedStateMachine):
    """The same operations on both."""

    def __init__(self, store: Store, folder: Path) -> None:
        super().__init__()
        self.store = store
        self.world = World(store, folder)
        self.configs = Configs(lambda: store, live=False)
        self.model = Model()
        self.last: tuple[str, str, int] = ("", "", 0)
        for service in SERVICES:
            self.world.register(service, *VERSIONS)
            self.world.adopt(service, "1.0")
            self.model.write("adopt", {ROUTE + service: "1.0"})

    def both(self, real: Callable[[], Any], expected: Callable[[], None]) -> None:
        """Do it to both: they agree on whether it is refused, and on why."""
        before, reasons = len(self.model.log), ["", ""]
        try:
            expected()
        except Refused as refused:
            reasons[0] = str(refused)
        try:
            done = real()
        except FanError as exc:
            reasons[1] = str(exc.reason)
        else:
            assert done.gen == len(self.model.log)
            assert done.is_changed is (len(self.model.log) > before)
        assert reasons[1] == reasons[0]

    @rule(wanted=st.dictionaries(services, versions, min_size=1), value=st.none() | values)
    def switch(self, wanted: dict[str, str], value: int | None) -> None:
        configs = {} if value is None else {KEYS[0]: value}
        everything = {ROUTE + s: v for s, v in wanted.items()}
        everything |= {CONFIG + key: value for key, value in configs.items()}
        self.both(
            lambda: self.world.versions.switch(wanted, configs=configs),
            lambda: self.model.write("switch", everything),
        )

    @rule(key=keys, value=values)
    def set(self, key: str, value: int) -> None:
        def real() -> Any:
            done = self.configs.set(key, value)
            self.last = (done.op, key, value)
            return done

        self.both(real, lambda: self.model.write("set", {CONFIG + key: value}))

    @rule()
    def send_again(self) -> None:
        op, key, value = self.last
        if op:
            self.configs.set(key, value, how=Write(op=op))

    @rule(key=keys)
    def delete(self, key: str) -> None:
        self.both(
            lambda: self.configs.delete(key),
            lambda: self.model.delete(CONFIG + key),
        )

    @rule()
    def rollback(self) -> None:
        self.both(self.world.versions.rollback, lambda: self.model.undo(None))

    @rule(data=st.data())
    def rollback_one(self, data: st.DataObject) -> None:
        gen = data.draw(st.integers(1, len(self.model.log)))
        self.both(lambda: self.world.versions.rollback(gen), lambda: self.model.undo(gen))

    @rule(key=keys)
    def rollback_config(self, key: str) -> None:
        self.both(
            lambda: self.configs.rollback(key), lambda: self.model.undo_config(CONFIG + key)
        )

    @rule(data=st.data(), configs=st.booleans())
    def restore(self, data: st.DataObject, configs: bool) -> None:
        gen = data.draw(st.integers(len(SERVICES), len(self.model.log)))
        self.both(
            lambda: self.world.versions.restore(gen, configs=configs),
            lambda: self.model.restore(gen, configs),
        )

    @invariant()
    def pins_and_values_are_those_of_the_model(self) -> None:
        cut = self.store.read(prefix="", deadline=self.world.deadline())
        assert cut.head.gen == len(self.model.log)
        found = {object: revision.rev for object, revision in cut.objects.items()} | cut.deleted
        assert found == self.model.pins
        for key in KEYS:
            assert self.configs.get(key) == self.model.value(CONFIG + key)
        for service in SERVICES:
            route = decode_route(cut.objects[ROUTE + service].body)
            assert route is not None
            assert list(route.versions) == [self.model.value(ROUTE + service)]

    @invariant()
    def the_history_is_dense_and_that_of_the_model(self) -> None:
        log = self.store.log(0, deadline=self.world.deadline())
        found = [{diff.object: (diff.before, diff.after) for diff in e.diff} for e in log]
        assert found == [diff for _, diff in self.model.log]
        assert [entry.gen for entry in log] == [*range(1, len(log) + 1)]
        assert [entry.prev for entry in log[1:]] == [entry.op for entry in log[:-1]]

    def teardown(self) -> None:
        self.world.close()


@pytest.mark.parametrize(
    ("kind", "examples"),
    [("memory", 150), ("sqlite", 40), pytest.param("zookeeper", 6, marks=pytest.mark.zookeeper)],
)
def test_any_history_ends_where_the_model_does(
    kind: str, examples: int, request: pytest.FixtureRequest, private: Path
) -> None:
    count = iter(range(1_000_000))

    @contextlib.contextmanager
    def opened() -> Iterator[Store]:
        number = next(count)
        if kind == "memory":
            made: Store = MemoryStore()
        elif kind == "sqlite":
            made = SqliteStore(str(private / f"{number}.db"))
        else:
            url = request.getfixturevalue("zookeeper_server").url.removeprefix("zk:")
            made = ZookeeperStore(f"{url}/{private.name}-{number}")
        with made:
            yield made

    def machine() -> Histories:
        stack = contextlib.ExitStack()
        made = Histories(stack.enter_context(opened()), private)
        end = made.teardown
        made.teardown = lambda: (end(), stack.close())  # type: ignore[method-assign,assignment]
        return made

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=12, deadline=None, derandomize=True,
            database=None,
        ),
    )  # fmt: skip
