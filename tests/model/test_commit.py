"""A model of committing over ZooKeeper: two clients, answers that are lost, transactions that land
late, ops that are sent again, and a history of which one generation is kept.

What a client reads and sends is a step of its own, so that anything of the other one's, and any
transaction still on its way, may come in between. Each rule of the loop can be switched off.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any, NamedTuple

import pytest

from tests.model.explorer import Counterexample, explore

#: Generations that are kept.
KEPT = 1


class Rule(Enum):
    """What the loop abides by."""

    ONE_TRANSACTION = "all of a generation is written in one transaction"
    HEAD_COMPARED = "the transaction holds only where the head is as it was read"
    PINS_COMPARED = "an object that moved since the plan is a conflict"
    CHECKED_INSIDE = "dependencies are judged on the pins that were read last"
    OP_NODE = "the op is looked up, and its node is a part of the transaction"
    REFUSAL_NODE = "a refusal is the op's outcome before it is told"
    #: Needed where as many generations as are kept can come between two steps of a client.
    REFUSAL_COMPARED = "a refusal is written only where the head is as it was read"
    FLOOR = "an op that was planned below the floor has an unknown outcome"


class Plan(NamedTuple):
    op: str
    object: str
    #: The revision that the object had.
    before: int
    #: Whether it goes back to the one it began with, or to a new one.
    is_back: bool
    gen: int


class Head(NamedTuple):
    """One reading of the head and of the pages that it names."""

    gen: int
    version: int
    floor: int
    pins: tuple[int, int]

    def pin(self, object: str) -> int:
        return self.pins["ab".index(object)]

    def moved(self, object: str, rev: int) -> tuple[int, int]:
        return (rev, self.pins[1]) if object == "a" else (self.pins[0], rev)


class Sent(NamedTuple):
    """A transaction on its way: a generation, the head alone, or a refusal."""

    what: str
    plan: Plan
    head: Head


class Client(NamedTuple):
    left: str
    plan: Plan | None = None
    #: What it read, and what it sent and waits for.
    head: Head | None = None
    sent: Sent | None = None
    told: frozenset[tuple[str, str, int]] = frozenset()


class Known(NamedTuple):
    op: str
    gen: int
    is_refused: bool


class State(NamedTuple):
    head: Head
    log: tuple[tuple[int, str], ...]
    ops: frozenset[Known]
    #: Every generation: its plan, and the revision that its object really had.
    history: tuple[tuple[Plan, int], ...]
    clients: tuple[Client, Client]
    late: frozenset[Sent]
    #: Whether the instances that x needs are there, which no head tells.
    is_met: bool


def changed(state: State, number: int, **changes: Any) -> State:
    """The state in which one client is changed."""
    clients = list(state.clients)
    clients[number] = clients[number]._replace(**changes)
    return state._replace(clients=(clients[0], clients[1]))


class Committing:
    def __init__(self, without: Rule | None = None) -> None:
        self.without = without

    def has(self, rule: Rule) -> bool:
        return rule is not self.without

    def first(self) -> State:
        head = Head(0, 0, 0, (0, 0))
        return State(head, (), frozenset(), (), (Client("x"), Client("yz")), frozenset(), True)

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        for number in (0, 1):
            yield from self.client(state, number)
        for sent in state.late:
            after, _ = self.arrive(state._replace(late=state.late - {sent}), sent)
            yield f"{sent.what} of {sent.plan.op} lands late", after
        if state.is_met:
            yield "what x needs goes away", state._replace(is_met=False)

    def client(self, state: State, number: int) -> Iterator[tuple[str, State]]:
        client = state.clients[number]

        def now(**changes: Any) -> State:
            return changed(state, number, **changes)

        if client.plan is None:
            for plan in self.plans(state.head, client.left):
                yield f"plan {plan}", now(plan=plan, left=client.left[1:])
            return
        op = client.plan.op
        if client.sent is not None:
            after, is_done = self.arrive(now(sent=None), client.sent)
            if not is_done:
                outcome = None
            elif client.sent.what == "refusal":
                outcome = (op, "refused", 0)
            else:
                outcome = (op, "applied", after.head.gen)
            name = f"{client.sent.what} of {op} is answered"
            yield name, self.told(after, number, outcome)
            late = state.late | ({client.sent} if self.may_hold(state, client.sent) else set())
            yield f"{op} gives up waiting", now(sent=None)._replace(late=late)
        elif client.head is None:
            yield f"{op} reads the head", now(head=state.head)
        else:
            yield self.decide(now(head=None), number, client.plan, client.head)

    def plans(self, head: Head, left: str) -> Iterator[Plan]:
        """What the client may set out to do: all that fits, by what there is now."""
        for op in left[:1]:
            for object in "a" if op == "x" else "ab":
                pin = head.pin(object)
                if not all(head.moved(object, head.gen + 1)):
                    yield Plan(op, object, pin, False, head.gen)
                if op != "x" and pin:
                    yield Plan(op, object, pin, True, head.gen)

    def decide(self, state: State, number: int, plan: Plan, head: Head) -> tuple[str, State]:
        """Look up the op, then judge the plan on the head that was read before."""
        name = f"{plan.op} decides"
        known = next((k for k in state.ops if k.op == plan.op), None)
        if known is not None and self.has(Rule.OP_NODE):
            what = "refused" if known.is_refused else "applied"
            return name, self.told(state, number, (plan.op, what, known.gen))
        if plan.gen < head.floor and self.has(Rule.FLOOR):
            return name, self.told(state, number, (plan.op, "unknown", 0))
        gone = state.history[head.gen : state.head.floor]
        if any(made.object == plan.object for made, _ in gone):
            return f"{plan.op} misses a page", state
        pins = head.moved(plan.object, 0 if plan.is_back else head.gen + 1)
        is_fit = not all(pins) or not self.has(Rule.CHECKED_INSIDE)
        is_met = state.is_met or plan.op != "x"
        is_same = head.pin(plan.object) == plan.before or not self.has(Rule.PINS_COMPARED)
        if is_fit and is_met and is_same:
            return f"{plan.op} sends", changed(state, number, sent=Sent("commit", plan, head))
        if self.has(Rule.REFUSAL_NODE):
            return f"{plan.op} refuses", changed(state, number, sent=Sent("refusal", plan, head))
        return name, self.told(state, number, (plan.op, "refused", 0))

    def told(self, state: State, number: int, outcome: tuple[str, str, int] | None) -> State:
        """The outcome; x is then sent again, by somebody who does not know it, and so forever."""
        if outcome is None:
            return state
        client = state.clients[number]
        plan = client.plan if number == 0 else None
        return changed(state, number, told=client.told | {outcome}, plan=plan)

    def is_compared(self, sent: Sent) -> bool:
        """Whether a transaction holds only where the head is as it was read."""
        rules = {"commit": Rule.HEAD_COMPARED, "refusal": Rule.REFUSAL_COMPARED}
        return sent.what in rules and self.has(rules[sent.what])

    def may_hold(self, state: State, sent: Sent) -> bool:
        return sent.head.version == state.head.version or not self.is_compared(sent)

    def arrive(self, state: State, sent: Sent) -> tuple[State, bool]:
        """A transaction reaches the server: the state after it, and whether it held."""
        head, plan = state.head, sent.plan
        if sent.what == "head":
            return state._replace(head=sent.head), True
        if not self.may_hold(state, sent):
            return state, False
        is_known = any(known.op == plan.op for known in state.ops)
        if is_known and (self.has(Rule.OP_NODE) or sent.what == "refusal"):
            return state, False
        if sent.what == "refusal":
            return state._replace(ops=state.ops | {Known(plan.op, sent.head.gen, True)}), True
        gen = sent.head.gen + 1
        if any(number == gen for number, _ in state.log):
            return state, False
        pins = sent.head.moved(plan.object, 0 if plan.is_back else gen)
        floor = max(sent.head.floor, gen - KEPT)
        made = Head(gen, head.version + 1, floor, pins)
        ops = state.ops | ({Known(plan.op, gen, False)} if self.has(Rule.OP_NODE) else set())
        kept = (k for k in ops if k.gen > floor or (k.is_refused and k.gen == floor))
        after = state._replace(
            log=tuple((n, op) for n, op in (*state.log, (gen, plan.op)) if n > floor),
            ops=frozenset(kept),
            late=frozenset(s for s in state.late if not self.is_compared(s)),
            history=(*state.history, (plan, head.pin(plan.object))),
        )
        if self.has(Rule.ONE_TRANSACTION):
            return after._replace(head=made), True
        return after._replace(late=after.late | {Sent("head", plan, made)}), True

    def broken(self, state: State) -> str | None:
        head, applied = state.head, [plan.op for plan, _ in state.history]
        if len(set(applied)) < len(applied):
            return "an op is applied at most once"
        if len(state.history) != head.gen:
            return "a generation is there as a whole or not at all"
        dense = tuple((n, applied[n - 1]) for n in range(head.floor + 1, head.gen + 1))
        if state.log != dense:
            return "generations are dense"
        if any(plan.before != before for plan, before in state.history):
            return "no change is overwritten by one that did not know it"
        if all(head.pins):
            return "plans that do not fit together are not both applied"
        told = state.clients[0].told | state.clients[1].told
        told |= {(k.op, "refused" if k.is_refused else "applied", k.gen) for k in state.ops}
        for op, what, gen in told:
            if what == "refused" and op in applied:
                return "nothing is refused that was applied"
            if what == "applied" and applied[gen - 1 : gen] != [op]:
                return "what is told to be applied is that generation"
        return None


@pytest.fixture(scope="module")
def states() -> set[State]:
    return explore(Committing())


def told_of_x(states: set[State], what: str) -> set[bool]:
    """Whether x was applied, where x was told to be `what`."""
    return {
        any(plan.op == "x" for plan, _ in state.history)
        for state in states
        if any(told == what for _, told, _ in state.clients[0].told)
    }


def test_no_order_of_commits_breaks_a_promise(states: set[State]) -> None:
    assert told_of_x(states, "applied") == {True}
    assert told_of_x(states, "refused") == {False}


def test_an_op_planned_below_the_floor_is_unknown_since_it_may_be_either(
    states: set[State],
) -> None:
    assert told_of_x(states, "unknown") == {True, False}


BROKEN = {
    Rule.ONE_TRANSACTION: "a generation is there as a whole or not at all",
    Rule.HEAD_COMPARED: "an op is applied at most once",
    Rule.PINS_COMPARED: "no change is overwritten by one that did not know it",
    Rule.CHECKED_INSIDE: "plans that do not fit together are not both applied",
    Rule.OP_NODE: "nothing is refused that was applied",
    Rule.REFUSAL_NODE: "nothing is refused that was applied",
    Rule.REFUSAL_COMPARED: "nothing is refused that was applied",
    Rule.FLOOR: "nothing is refused that was applied",
}


@pytest.mark.parametrize("rule", Rule, ids=lambda rule: rule.name.lower())
def test_each_rule_of_the_commit_is_needed(rule: Rule) -> None:
    with pytest.raises(Counterexample) as found:
        explore(Committing(without=rule))
    assert found.value.promise == BROKEN[rule], found.value
