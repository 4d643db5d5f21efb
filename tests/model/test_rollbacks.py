"""A model of rollbacks: all histories of up to five operations on a route and a config, which an
adoption and a first value precede, and on two routes, which two adoptions precede.

Each rule can be switched off.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from enum import Enum
from typing import NamedTuple

import pytest

from tests.model.explorer import Counterexample, explore

OPERATIONS = 5

#: The revisions of the first object, a route, and of the second, mostly a config; 0 for none.
Pins = tuple[int, int]


class Rule(Enum):
    """What rollbacks abide by."""

    NO_CANDIDATE = "a rollback is no candidate of the next one"
    SETS_STAY = "somebody's change of a config alone is no candidate"
    OVERLAP = "what lies under a later change is not undone"
    TOGETHER = "the route and the config of a generation return together"
    PARENT = "a config returns to what its revision was made upon, and not to what was before"
    NO_REVISION = "a rollback makes no revisions"
    ADOPTION = "an adoption is not undone"


class Made(NamedTuple):
    """One generation: its verb, the pins before and after, and what it undid."""

    verb: str
    before: Pins
    after: Pins
    undone: int = 0

    @property
    def moved(self) -> tuple[int, ...]:
        """The objects that it changed."""
        return tuple(o for o in (0, 1) if self.before[o] != self.after[o])


class Refused(Exception):
    """No generation is made, for this reason; of a conflict, the generation that is in the way."""

    def __init__(self, reason: str, gen: int = 0) -> None:
        super().__init__(reason)
        self.gen = gen


class State(NamedTuple):
    log: tuple[Made, ...]
    #: Of each generation, whose number its revisions bear: the pins that they were made upon.
    parents: tuple[Pins, ...]
    #: Of each revision the first one of the same value.
    values: tuple[int, ...]

    @property
    def pins(self) -> Pins:
        return self.log[-1].after


def merged(pins: Pins, moved: dict[int, int]) -> Pins:
    return moved.get(0, pins[0]), moved.get(1, pins[1])


class Rollbacks:
    def __init__(self, without: Rule | None = None, routes: int = 1) -> None:
        self.without = without
        self.routes = routes

    def has(self, rule: Rule) -> bool:
        return rule is not self.without

    def first(self) -> State:
        verb = "set" if self.routes == 1 else "adopt"
        log = (Made("adopt", (0, 0), (1, 0)), Made(verb, (1, 0), (1, 2)))
        return State(log, ((0, 0), (1, 0)), (1, 2))

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        if len(state.log) >= len(self.first().log) + OPERATIONS:
            return
        gen = len(state.log) + 1
        yield "switch", self.write(state, "switch", {0: gen})
        yield "change the second", self.write(state, "set", {1: gen})
        yield "switch both", self.write(state, "switch", {0: gen, 1: gen})
        for name, after in (("rollback", self.rollback), ("config rollback", self.config)):
            with contextlib.suppress(Refused):
                yield name, after(state)
        for number in range(1, gen):
            with contextlib.suppress(Refused):
                yield f"rollback {number}", self.undo(state, number)

    def write(self, state: State, verb: str, moved: dict[int, int], undone: int = 0) -> State:
        """One more generation."""
        made = Made(verb, state.pins, merged(state.pins, moved), undone)
        values = (*state.values, len(state.log) + 1)
        return State((*state.log, made), (*state.parents, state.pins), values)

    def rollback(self, state: State) -> State:
        return self.undo(state, self.candidate(state))

    def candidate(self, state: State) -> int:
        """The newest generation, no adoption, that made a route which is pinned."""
        if not self.has(Rule.NO_CANDIDATE):
            found = [gen for gen, made in enumerate(state.log, 1) if 0 in made.moved]
        elif not self.has(Rule.SETS_STAY):
            found = list(state.pins)
        else:
            found = list(state.pins[: self.routes])
        if self.has(Rule.ADOPTION):
            found = [gen for gen in found if gen and state.log[gen - 1].verb != "adopt"]
        if not any(found):
            raise Refused("nothing_to_undo")
        return max(found)

    def undo(self, state: State, gen: int) -> State:
        """Each object of the generation that is still at its revision returns to the one before."""
        made, moved = state.log[gen - 1], {}
        if made.verb == "adopt" and self.has(Rule.ADOPTION):
            raise Refused("adoption")
        for object in made.moved:
            pin = state.pins[object]
            if pin not in (made.before[object], made.after[object]) and self.has(Rule.OVERLAP):
                later = [n for n, other in enumerate(state.log, 1) if object in other.moved]
                raise Refused("conflict", later[-1])
            if pin != made.before[object] and (object == 0 or self.has(Rule.TOGETHER)):
                moved[object] = made.before[object]
        if not moved:
            raise Refused("conflict", len(state.log))
        return self.back(state, moved, gen)

    def back(self, state: State, moved: dict[int, int], gen: int) -> State:
        """Pin what was; or, as others do, write it down anew."""
        if self.has(Rule.NO_REVISION):
            return self.write(state, "rollback", moved, gen)
        made = dict.fromkeys(moved, len(state.log) + 1)
        after = self.write(state, "rollback", made, gen)
        (rev, *_) = moved.values()
        return after._replace(values=(*state.values, state.values[rev - 1] if rev else 0))

    def config(self, state: State) -> State:
        """Pin the parent of what is pinned."""
        if self.routes == 2:
            raise Refused("no_such_config")
        if self.has(Rule.PARENT):
            parent = state.parents[state.pins[1] - 1][1] if state.pins[1] else 0
        else:
            parent = next((m.before[1] for m in reversed(state.log) if 1 in m.moved), 0)
        if not parent:
            raise Refused("nothing_to_undo")
        return self.back(state, {1: parent}, 0)

    def broken(self, state: State) -> str | None:
        if not all(state.pins[: self.routes]):
            return "an adopted route stays routed"
        promise = self.broken_by_last(state) or self.broken_walk(state, self.rollback)
        return promise or self.broken_walk(state, self.config)

    def broken_by_last(self, state: State) -> str | None:
        """What the newest generation did, where it was a rollback, to what it undid."""
        done = state.log[-1]
        if not done.undone or not self.has(Rule.NO_REVISION):
            return None
        made = state.log[done.undone - 1]
        for object in (0, 1):
            was_moved, pin = object in made.moved, done.after[object]
            if was_moved and done.before[object] not in (made.before[object], made.after[object]):
                return "a later change is not lost"
            if pin != (made.before if was_moved else done.before)[object]:
                return "all of a generation is undone, and nothing else"
        return None

    def broken_walk(self, state: State, again: Callable[[State], State]) -> str | None:
        """Where one kind of rollback leads that is repeated from here."""
        seen = {self.seen(state)}
        while True:
            try:
                after = again(state)
            except Refused as refused:
                return self.broken_refusal(state, refused.gen) if refused.gen else None
            if not all(after.pins[: self.routes]):
                return "an adopted route stays routed"
            if after.log[-1].undone and not any(o < self.routes for o in after.log[-1].moved):
                return "a rollback leaves a config that was changed alone"
            if self.seen(after) in seen:
                return "rollbacks walk back and never to and fro"
            seen.add(self.seen(after))
            state = after

    def broken_refusal(self, at: State, named: int) -> str | None:
        """A rollback was refused for the sake of that generation: a change of what it would undo,
        later than it, which is the one in force."""
        gen = self.candidate(at)
        shared = set(at.log[named - 1].moved) & set(at.log[gen - 1].moved)
        if named <= gen or not any(at.log[named - 1].after[o] == at.pins[o] for o in shared):
            return "a refusal names the change that is in the way"
        return None

    def seen(self, state: State) -> Pins:
        """The values that are in force."""
        first, second = (state.values[pin - 1] if pin else 0 for pin in state.pins)
        return first, second


@pytest.fixture(scope="module")
def states() -> set[State]:
    return explore(Rollbacks())


def refusals(states: set[State]) -> Iterator[tuple[State, int, int]]:
    """Of every rollback of a generation that conflicts: where, which, and what it names."""
    for state in states:
        for gen in range(1, len(state.log) + 1):
            try:
                Rollbacks().undo(state, gen)
            except Refused as refused:
                if refused.gen:
                    yield state, gen, refused.gen


def test_rollbacks_walk_back_and_end(states: set[State]) -> None:
    assert max(len(state.log) for state in states) == len(Rollbacks().first().log) + OPERATIONS


def test_rollbacks_of_two_routes_walk_back_and_end() -> None:
    found = explore(Rollbacks(routes=2))
    assert max(len(state.log) for state in found) == len(Rollbacks().first().log) + OPERATIONS


def test_an_overlap_names_a_later_change_of_the_same_object(states: set[State]) -> None:
    found = 0
    for state, gen, named in refusals(states):
        made, other = state.log[gen - 1], state.log[named - 1]
        if any(state.pins[o] not in (made.before[o], made.after[o]) for o in made.moved):
            assert named > gen
            assert set(other.moved) & set(made.moved)
            found += 1
    assert found


def test_an_unrelated_change_in_between_survives(states: set[State]) -> None:
    found = 0
    for state in states:
        *earlier, done = state.log
        if done.undone and done.moved == (0,) and earlier[-1].verb == "set":
            assert done.after[1] == len(earlier)
            found += 1
    assert found


BROKEN = {
    Rule.NO_CANDIDATE: "rollbacks walk back and never to and fro",
    Rule.SETS_STAY: "a rollback leaves a config that was changed alone",
    Rule.OVERLAP: "a later change is not lost",
    Rule.TOGETHER: "all of a generation is undone, and nothing else",
    Rule.PARENT: "rollbacks walk back and never to and fro",
    Rule.NO_REVISION: "rollbacks walk back and never to and fro",
    Rule.ADOPTION: "an adopted route stays routed",
}


@pytest.mark.parametrize("rule", Rule, ids=lambda rule: rule.name.lower())
def test_each_rule_of_rolling_back_is_needed(rule: Rule) -> None:
    with pytest.raises(Counterexample) as found:
        explore(Rollbacks(without=rule))
    assert found.value.promise == BROKEN[rule], found.value
