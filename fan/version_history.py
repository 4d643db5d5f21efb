"""What was changed: the generations, and the difference between two of them."""

from __future__ import annotations

import msgspec

from fan.errors import NotFound
from fan.following import coalesce
from fan.stores.base import Diff, Entry, Store
from fan.version_undo import compacted
from fan.writing import Step


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """One generation of the history: what it did, and by whom and when. `undone_by` is the
    rollback that took it back, 0 for none."""

    gen: int
    verb: str
    steps: tuple[Step, ...] = ()
    who: str = ""
    host: str = ""
    at: str = ""
    message: str = ""
    undo_of: int = 0
    undone_by: int = 0
    forced: bool = False
    op: str = ""


class _Bodies:
    """Bodies of revisions, each read once: what one generation leaves is what the next finds."""

    def __init__(self, store: Store, deadline: float) -> None:
        self._store = store
        self._deadline = deadline
        self._found: dict[tuple[str, int], bytes | None] = {}

    def step(self, diff: Diff) -> Step:
        return Step(
            diff.object, self.get(diff.object, diff.before), diff.before,
            self.get(diff.object, diff.after), diff.after,
        )  # fmt: skip

    def get(self, object: str, rev: int) -> bytes | None:
        key = object, rev
        if key not in self._found:
            self._found[key] = self._read(object, rev)
        return self._found[key]

    def _read(self, object: str, rev: int) -> bytes | None:
        # A config's value is not shown here, and may be large.
        if not rev or not object.startswith("route/"):
            return None
        try:
            return self._store.revision(object, rev, deadline=self._deadline).body
        except NotFound:
            return None


def history(store: Store, limit: int | None, deadline: float) -> list[Generation]:
    """The generations that are kept, the newest first, at most `limit`; of configs the values are
    left out."""
    head = store.head(deadline=deadline)
    log = store.log(head.floor, head.gen, deadline=deadline)[::-1]
    undone = {entry.undo_of: entry.gen for entry in log if entry.undo_of}
    bodies = _Bodies(store, deadline)
    return [_generation(entry, bodies, undone) for entry in log[:limit]]


def _generation(entry: Entry, bodies: _Bodies, undone: dict[int, int]) -> Generation:
    return Generation(
        gen=entry.gen,
        verb=entry.verb,
        steps=tuple(bodies.step(diff) for diff in entry.diff),
        who=entry.who,
        host=entry.host,
        at=entry.at,
        message=entry.reason,
        undo_of=entry.undo_of,
        undone_by=undone.get(entry.gen, 0),
        forced=entry.forced,
        op=entry.op,
    )


def difference(store: Store, first: int, second: int | None, deadline: float) -> list[Step]:
    """What is otherwise in generation `second` (by default the newest) than in `first`, by object.
    Raises NotFound: no_such_generation, compacted."""
    head = store.head(deadline=deadline)
    second = head.gen if second is None else second
    for gen in (first, second):
        if gen > head.gen:
            raise NotFound(
                f"there is no generation {gen}: the newest is {head.gen}",
                reason="no_such_generation",
            )
        if gen < head.floor:
            raise compacted(f"generation {gen} is not kept any more")
    log = store.log(min(first, second), max(first, second), deadline=deadline)
    diffs = coalesce(log).diff if log else ()
    if first > second:
        diffs = tuple(Diff(d.object, d.after, d.before) for d in diffs)

    def body(object: str, rev: int) -> bytes | None:
        return store.revision(object, rev, deadline=deadline).body if rev else None

    steps = [
        Step(d.object, body(d.object, d.before), d.before, body(d.object, d.after), d.after)
        for d in sorted(diffs, key=lambda d: d.object)
    ]
    # What was set anew to what it was is another revision, and no difference.
    return [step for step in steps if step.before != step.after]
