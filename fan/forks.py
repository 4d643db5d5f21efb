"""What a forked child does first: everything of fan that a process must not share starts over.

Python runs the hooks of a fork in the order in which modules were imported, and an App must not
touch a store before that store knows that it is in a child. So there is one hook, in order.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack

#: The order: what is below comes before what is made of it.
STAGES = ("values", "files", "stores", "transports", "apps")

_steps: list[tuple[int, Callable[[], None]]] = []


def in_child(stage: str, step: Callable[[], None]) -> None:
    """Run `step` in every forked child. It may wait for nothing: the parent's threads are not
    there, the locks that they held stay held, and whoever forks waits for it."""
    _steps.append((STAGES.index(stage), step))
    _steps.sort(key=lambda each: each[0])


def _run() -> None:
    with ExitStack() as stack:  # from the last to the first; each whatever others do
        for _, step in reversed(_steps):
            stack.callback(step)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_run)
