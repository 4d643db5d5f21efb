"""Explores a small model to its end: every state that any order of steps can reach, nearest first,
so that the first one that breaks a promise is told with the fewest steps that lead there."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Protocol, TypeVar

State = TypeVar("State", bound=Hashable)

#: States above which a model is too large to be one of these.
MOST = 400_000


class Model(Protocol[State]):
    """What can happen, and what must hold."""

    def first(self) -> State: ...

    def steps(self, state: State) -> Iterable[tuple[str, State]]:
        """What may happen next, each with its name."""
        ...

    def broken(self, state: State) -> str | None:
        """The promise that this state breaks, as a sentence; None where all hold."""
        ...


class Counterexample(AssertionError):
    """The shortest way to a state that breaks a promise; `promise` is the one, `steps` the way."""

    def __init__(self, promise: str, steps: list[str], state: object) -> None:
        way = "\n".join(f"{number:3} {step}" for number, step in enumerate(steps, 1))
        super().__init__(f"{promise}\n{way}\nended in {state}")
        self.promise = promise
        self.steps = steps


def explore(model: Model[State], most: int = MOST) -> set[State]:
    """All states. Raises Counterexample at the first that breaks a promise."""
    first = model.first()
    came: dict[State, tuple[State, str] | None] = {first: None}
    layer = [first]
    while layer:
        following = []
        for state in layer:
            if (promise := model.broken(state)) is not None:
                raise Counterexample(promise, _way(came, state), state)
            for name, reached in model.steps(state):
                if reached not in came:
                    came[reached] = (state, name)
                    following.append(reached)
        layer = following
        assert len(came) <= most, f"the model has more than {most} states"
    return set(came)


def _way(came: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    """The names of the steps from the first state to this one."""
    names = []
    while (step := came[state]) is not None:
        state, name = step
        names.append(name)
    return names[::-1]
