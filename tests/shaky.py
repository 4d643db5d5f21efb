"""A registry that fails, or is slow, when it is told to."""

from __future__ import annotations

import builtins
import threading
import time
from typing import Any

from fan.errors import Unavailable
from fan.stores.base import Change, Cut, Head, Plan, Record
from fan.stores.memory import MemoryStore

#: A bound on hangs.
BOUND = 30.0


class Shaky(MemoryStore):
    """A registry in which single readings can be made to fail, or to wait."""

    def __init__(self) -> None:
        super().__init__("shaky")
        #: Names of the readings that fail next.
        self.failing: builtins.list[str] = []
        self.failed = threading.Event()
        #: While clear, `head` waits, once `is_reached`.
        self.gate = threading.Event()
        self.gate.set()
        self.is_reached = threading.Event()
        self.readings: builtins.list[tuple[str, ...]] = []

    def _may_fail(self, what: str) -> None:
        if what in self.failing:
            self.failing.remove(what)
            self.failed.set()
            raise Unavailable("the disk was slow")

    def head(self, **how: Any) -> Head:
        self._may_fail("head")
        if not self.gate.is_set():
            self.is_reached.set()
            assert self.gate.wait(BOUND)
        return super().head(**how)

    def read(self, objects: Any = (), **how: Any) -> Cut:
        self.readings.append(tuple(objects))
        return super().read(objects, **how)

    def list(self, *args: Any, **how: Any) -> builtins.list[Record]:
        self._may_fail("list")
        return super().list(*args, **how)

    def set(self, **values: bytes) -> int:
        """Change configs of `a`."""
        changes = tuple(Change(object=f"config/a/{k}", body=v) for k, v in values.items())
        plan = Plan(changes=changes, verb="set")
        return self.commit(plan, deadline=time.monotonic() + BOUND).gen
