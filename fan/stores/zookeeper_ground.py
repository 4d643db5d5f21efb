"""What the rules of a commit may look at: one state of a namespace, read when asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NoReturn

from fan.errors import FanError
from fan.stores.base import Head, Plan, Revision
from fan.stores.zookeeper_layout import State, bucket_of
from fan.stores.zookeeper_reading import Gone, Reader

#: Entries of the log that are asked for at once.
_STRETCH = 100


class Trouble(Exception):
    """Reading failed while the rules were deciding: not a refusal of the plan."""

    def __init__(self, error: FanError) -> None:
        super().__init__(str(error))
        self.error = error


class Ground:
    """The present state, for `rules.decide`. What it cannot read raises Gone or Trouble, which are
    no FanErrors: those are what the plan's own check raises."""

    def __init__(self, reader: Reader, state: State, deadline: float) -> None:
        self.state = state
        self._reader = reader
        self._deadline = deadline
        self._revisions: dict[tuple[str, int], Revision | None] = {}
        self.pages: dict[int, dict[str, int]] = {}

    @property
    def head(self) -> Head:
        return self.state.head

    def prepare(self, plan: Plan) -> None:
        """Read at once what the plan will certainly ask for."""
        try:
            self._load({bucket_of(change.object) for change in plan.changes})
            wanted = [(c.object, self.pin(c.object)) for c in plan.changes]
            wanted += [(c.object, c.to_rev) for c in plan.changes if c.to_rev is not None]
            self._fetch([(object, rev) for object, rev in wanted if rev])
        except FanError as error:
            _trouble(error)

    def pin(self, object: str) -> int:
        """The pinned revision, 0 for none."""
        bucket = bucket_of(object)
        if bucket not in self.pages:
            try:
                self._load({bucket})
            except FanError as error:
                _trouble(error)
        return abs(self.pages[bucket].get(object, 0))

    def find(self, object: str, rev: int) -> Revision | None:
        """One revision, or None."""
        if (object, rev) not in self._revisions:
            try:
                self._fetch([(object, rev)])
            except FanError as error:
                _trouble(error)
        found = self._revisions[object, rev]
        if found is None and rev == self.pin(object):
            raise Gone(self._reader.layout.revision(object, rev))
        return found

    def mover(self, object: str) -> int:
        """The last generation that changed the pin."""
        pin = self.pin(object)
        found = self.find(object, pin) if pin else None
        if found is not None:
            return found.pinned_at
        top, floor = self.head.gen, self.head.floor
        while top > floor:
            gens = range(top, max(top - _STRETCH, floor), -1)
            try:
                entries = self._reader.entries(gens, self._deadline)
            except FanError as error:
                _trouble(error)
            for entry in entries:
                if entry is not None and any(diff.object == object for diff in entry.diff):
                    return entry.gen
            top -= _STRETCH
        return 0

    def names(self, prefix: str) -> Iterable[str]:
        """The objects that have a body."""
        try:
            self._load(self.state.body.pages)
        except FanError as error:
            _trouble(error)
        return [
            name
            for page in self.pages.values()
            for name, rev in page.items()
            if rev > 0 and name.startswith(prefix)
        ]

    def _load(self, buckets: Iterable[int]) -> None:
        missing = [bucket for bucket in buckets if bucket not in self.pages]
        found = self._reader.pages(self.state, missing, self._deadline)
        for bucket in missing:
            self.pages[bucket] = found.get(bucket, {})

    def _fetch(self, wanted: Sequence[tuple[str, int]]) -> None:
        missing = [pair for pair in dict.fromkeys(wanted) if pair not in self._revisions]
        found = self._reader.revisions(missing, self._deadline)
        self._revisions.update(zip(missing, found, strict=True))


def _trouble(error: FanError) -> NoReturn:
    raise Trouble(error) from error
