"""A model of acknowledging: consumers that come, lose their session, refuse a generation and
begin to use another service, two coordinators, and a history that is put back once.

Every reading, applying and writing is a step of its own. Each rule can be switched off.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

import pytest

from tests.model.explorer import Counterexample, explore

#: The changes that were made, in their order: of each, its op and the service that it moved.
History = tuple[tuple[str, str], ...]


class Rule(Enum):
    """What consumers and coordinators abide by."""

    REGISTERED_FIRST = "a consumer registers before it reads"
    DROPPED = "a consumer that returns drops its old cut as it registers"
    EXTENDED_FIRST = "a consumer says that it uses a service before it reads that one's route"
    APPLIED = "an acknowledgement means applied, and not received"
    NEVER_PASSED = "an acknowledgement never passes a change that was refused"
    LISTED_AFTER = "the users are listed after the commit"
    ALL_AWAITED = "one acknowledgement is not enough: every user that is listed is awaited"
    OP_COMPARED = "an acknowledgement counts where its op is that of the generation"


class Consumer(NamedTuple):
    name: str
    #: What its registration says: whether there is one, the services, the newest (gen, op).
    is_there: bool = False
    uses: str = "a"
    applied: tuple[int, str] = (0, "")
    #: The op in force for a and for b, "" for what was there at first; None where calls wait.
    cut: tuple[str | None, str | None] = (None, None)
    #: What it read and has still to apply, and what it applied last.
    read: History | None = None
    at: History | None = None
    is_said: bool = True
    refused: str = ""
    was_lost: bool = False

    def in_force(self, service: str) -> str | None:
        return self.cut["ab".index(service)]


class Coordinator(NamedTuple):
    op: str = ""
    service: str = ""
    #: planned, committed, confirmed
    phase: str = "planned"
    #: The consumers that are still awaited; None before they are listed.
    awaited: frozenset[str] | None = None


class State(NamedTuple):
    history: History
    consumers: tuple[Consumer, ...]
    coordinators: tuple[Coordinator, ...]
    was_put_back: bool = False


def newest(history: History, service: str) -> str:
    """The op that moved a service last, "" where none did."""
    return next((op for op, moved in reversed(history) if moved == service), "")


def gen_of(history: History, op: str) -> int:
    return next((gen for gen, (made, _) in enumerate(history, 1) if made == op), 0)


class Acknowledging:
    """With a second consumer, which only follows, the history stays, and nobody refuses or begins
    to use b: what one of them does matters to the other only through who is awaited."""

    def __init__(self, without: Rule | None = None, is_pair: bool = False) -> None:
        self.without = without
        self.is_pair = is_pair

    def has(self, rule: Rule) -> bool:
        return rule is not self.without

    def first(self) -> State:
        names = ("first", "second") if self.is_pair else ("first",)
        return State((), tuple(map(Consumer, names)), (Coordinator(), Coordinator()))

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        for number, consumer in enumerate(state.consumers):
            for name, changed in self.consumer(state, consumer):
                consumers = list(state.consumers)
                consumers[number] = changed
                yield f"{consumer.name} {name}", state._replace(consumers=tuple(consumers))
        for number, coordinator in enumerate(state.coordinators):
            for name, history, moved in self.coordinator(state, coordinator, number):
                coordinators = list(state.coordinators)
                coordinators[number] = moved
                after = state._replace(history=history, coordinators=tuple(coordinators))
                yield f"coordinator {number} {name}", after
        if state.history and not state.was_put_back and not self.is_pair:
            yield "the history is put back", state._replace(history=(), was_put_back=True)

    def consumer(self, state: State, it: Consumer) -> Iterator[tuple[str, Consumer]]:
        is_early = not self.has(Rule.REGISTERED_FIRST) and it.at is None
        if not it.is_there:
            yield "registers", self.registered(it)
        if (it.is_there or is_early) and it.read is None and it.at != state.history:
            said = it._replace(read=state.history)
            if not self.has(Rule.APPLIED):
                gen = len(state.history)
                said = said._replace(applied=(gen, state.history[-1][0] if gen else ""))
            yield f"reads {state.history}", said
        if it.read is not None:
            yield from self.apply(it, it.read)
        if it.is_there and not it.is_said and it.at is not None:
            said = it._replace(applied=(len(it.at), it.at[-1][0] if it.at else ""), is_said=True)
            yield f"acknowledges {said.applied}", said
        if it.name == "first" and it.is_there and not it.was_lost:
            lost = it._replace(is_there=False, was_lost=True, read=None, applied=(0, ""))
            yield "loses its session", lost
        if it.is_there and not self.is_pair:
            yield from self.extend(it)

    def registered(self, it: Consumer) -> Consumer:
        if not self.has(Rule.REGISTERED_FIRST) and it.at is not None and not it.was_lost:
            return it._replace(is_there=True)
        cut = (None, None) if self.has(Rule.DROPPED) else it.cut
        return it._replace(
            is_there=True, applied=(0, ""), cut=cut, read=None, at=None, is_said=True
        )

    def extend(self, it: Consumer) -> Iterator[tuple[str, Consumer]]:
        if it.uses == "a" and self.has(Rule.EXTENDED_FIRST):
            # What it was reading is from before, and does not count.
            yield "extends to b", it._replace(uses="ab", read=None, at=None, is_said=True)
        elif it.uses == "a" and it.at is not None and it.cut[1] is None:
            yield "calls b", it._replace(cut=(it.cut[0], newest(it.at, "b")))
        elif it.uses == "a" and it.cut[1] is not None:
            yield "extends to b", it._replace(uses="ab")

    def apply(self, it: Consumer, read: History) -> Iterator[tuple[str, Consumer]]:
        cut = (newest(read, "a"), newest(read, "b") if it.uses == "ab" else it.cut[1])
        if it.refused and it.refused in cut:
            at = it.at if self.has(Rule.NEVER_PASSED) else read
            is_said = it.is_said if self.has(Rule.NEVER_PASSED) else False
            yield "refuses still", it._replace(read=None, at=at, is_said=is_said)
            return
        yield f"applies {cut}", it._replace(read=None, at=read, cut=cut, is_said=False)
        if cut[0] == "x" != it.cut[0] and not it.refused and not self.is_pair:
            yield "refuses x", it._replace(read=None, refused="x")

    def coordinator(
        self, state: State, it: Coordinator, number: int
    ) -> Iterator[tuple[str, History, Coordinator]]:
        history = state.history
        if it.phase == "planned":
            if not self.has(Rule.LISTED_AFTER) and it.awaited is None:
                for service in "a" if number == 0 else "ab":
                    listed = Coordinator("", service, "planned", self.users(state, service))
                    yield f"lists the users of {service}", history, listed
                return
            op = "xy"[number]
            for service in it.service or ("a" if number == 0 else "ab"):
                moved = it._replace(op=op, service=service, phase="committed")
                yield f"commits {op} for {service}", (*history, (op, service)), moved
            if number == 1 and gen_of(history, "x"):
                yield "waits for x", history, it._replace(op="x", service="a", phase="committed")
        elif it.phase == "committed" and (gen := gen_of(history, it.op)):
            if it.awaited is None:
                users = self.users(state, it.service)
                yield f"lists {sorted(users)}", history, it._replace(awaited=users)
                return
            for consumer in state.consumers:
                if consumer.name in it.awaited and self.is_settled(history, consumer, gen):
                    done = {consumer.name} if self.has(Rule.ALL_AWAITED) else it.awaited
                    rest = it.awaited - done
                    yield f"is done with {consumer.name}", history, it._replace(awaited=rest)
            if not it.awaited:
                yield f"confirms {it.op}", history, it._replace(phase="confirmed")

    def users(self, state: State, service: str) -> frozenset[str]:
        return frozenset(c.name for c in state.consumers if c.is_there and service in c.uses)

    def is_settled(self, history: History, consumer: Consumer, gen: int) -> bool:
        """Whether a consumer acknowledged that generation or a later one, or is lost."""
        if not consumer.is_there:
            return True
        applied, op = consumer.applied
        if not self.has(Rule.OP_COMPARED):
            return applied >= gen
        return applied >= gen and gen_of(history, op) == applied

    def broken(self, state: State) -> str | None:
        for it in state.coordinators:
            if it.phase == "confirmed" and (gen := gen_of(state.history, it.op)):
                for consumer in state.consumers:
                    op = consumer.in_force(it.service)
                    is_user = consumer.is_there and it.service in consumer.uses
                    if is_user and op is not None and gen_of(state.history, op) < gen:
                        return "what is confirmed is in force at every registered user"
        return None


@pytest.fixture(scope="module")
def states() -> set[State]:
    return explore(Acknowledging())


@pytest.fixture(scope="module")
def pairs() -> set[State]:
    return explore(Acknowledging(is_pair=True))


def test_nothing_is_confirmed_that_a_registered_user_has_not_applied(
    states: set[State], pairs: set[State]
) -> None:
    for explored in (states, pairs):
        coordinators = [it for state in explored for it in state.coordinators]
        assert {it.op for it in coordinators if it.phase == "confirmed"} == {"x", "y"}


def test_users_of_other_services_are_not_waited_for(pairs: set[State]) -> None:
    assert any(
        it.phase == "confirmed" and it.service == "b"
        and all(c.is_there and c.applied == (0, "") for c in s.consumers)
        for s in pairs for it in s.coordinators
    )  # fmt: skip


def test_a_generation_that_a_user_refused_is_not_confirmed_while_it_is_there(
    states: set[State],
) -> None:
    for state in states:
        first, coordinator = state.consumers[0], state.coordinators[0]
        is_newest = newest(state.history, "a") == "x"
        if coordinator.phase == "confirmed" and first.refused and first.is_there and is_newest:
            assert first.in_force("a") is None


@pytest.mark.parametrize("rule", Rule, ids=lambda rule: rule.name.lower())
def test_each_rule_of_acknowledging_is_needed(rule: Rule) -> None:
    with pytest.raises(Counterexample, match="in force at every registered user"):
        explore(Acknowledging(without=rule, is_pair=rule is Rule.ALL_AWAITED))


def test_reading_before_registering_confirms_a_generation_that_its_reader_never_saw() -> None:
    with pytest.raises(Counterexample) as found:
        explore(Acknowledging(without=Rule.REGISTERED_FIRST))
    steps = found.value.steps
    before, after = steps.index("coordinator 0 lists []"), steps.index("first registers")
    assert steps.index("first reads ()") < before < after, found.value
