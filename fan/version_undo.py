"""The way back: what undoes a generation, and what brings back the routes of an earlier one.

A rollback pins revisions that exist and never makes one, so that it is no candidate of the next
one: doing it again walks further back, and never to and fro.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fan.config_values import CONFIG, SCHEMA, owner_of
from fan.errors import Aborted, FailedPrecondition, NotFound
from fan.stores.base import Change, Cut, Entry, Revision, Store
from fan.stores.rules import spoken
from fan.version_routes import ROUTE, decode_route, routed

#: The verb of a generation that gave a service its first route, or moved it at its start.
ADOPT = "adopt"


def entry_of(store: Store, gen: int, deadline: float) -> Entry:
    """One generation of the history. Raises NotFound: no_such_generation, compacted."""
    head = store.head(deadline=deadline)
    found = store.log(gen - 1, gen, deadline=deadline) if 0 < gen <= head.gen else []
    if found and found[0].gen == gen:
        return found[0]
    if gen > head.gen or gen < 1:
        raise NotFound(
            f"there is no generation {gen}: the newest is {head.gen}", reason="no_such_generation"
        )
    raise compacted(f"generation {gen} is not kept any more")


def compacted(what: str) -> NotFound:
    """The error for what was trimmed."""
    return NotFound(f"{what}: history compacted", reason="compacted")


def candidate(store: Store, cut: Cut, deadline: float) -> Entry:
    """The newest generation, no adoption, that made a revision of a route which is pinned in `cut`,
    a reading of all routes. Raises NotFound: nothing_to_undo, compacted."""
    for rev in sorted({found.rev for found in _routes(cut)}, reverse=True):
        try:
            entry = entry_of(store, rev, deadline)
        except NotFound as exc:
            if exc.reason != "compacted":
                raise
            raise compacted(
                f"what is before generation {rev}, which made the newest route that can be taken"
                " back, is not kept any more"
            ) from None
        if entry.verb != ADOPT:
            return entry
    raise NotFound("nothing to undo: no route was switched since it was adopted",
                   reason="nothing_to_undo")  # fmt: skip


def _routes(cut: Cut) -> Iterable[Revision]:
    return (found for object, found in cut.objects.items() if object.startswith(ROUTE))


def undoing(store: Store, entry: Entry, cut: Cut, deadline: float) -> tuple[Change, ...]:
    """What takes a generation back, of whose objects `cut` is a reading: each that is still at its
    revision returns to the one before, one that is back already is left. Raises Aborted (conflict)
    where a later change lies upon it or all is back already, FailedPrecondition (adoption)."""
    if entry.verb == ADOPT:
        raise FailedPrecondition(
            f"generation {entry.gen} adopted a route, which cannot be undone: switch to another"
            " version",
            reason="adoption",
        )
    changes = []
    for diff in entry.diff:
        pin = pin_of(cut, diff.object)
        if pin == diff.after and pin != diff.before:
            changes.append(_back(diff.object, diff.before, pin))
        elif pin != diff.before:
            raise _buried(store, entry, diff.object, pin, cut, deadline)
    if not changes:
        by = _mover(store, entry.diff[0].object, cut, deadline) if entry.diff else entry.gen
        raise Aborted(
            f"generation {entry.gen} is undone already, by generation {by}",
            reason="conflict",
            details={"object": "", "gen": by, "undoes": entry.gen},
        )
    return tuple(changes)


def _back(object: str, before: int, pin: int) -> Change:
    if before:
        return Change(object=object, to_rev=before, from_rev=pin)
    return Change(object=object, unpin=True, from_rev=pin)


def pin_of(cut: Cut, object: str) -> int:
    """The revision that is pinned, a tombstone among them; 0 for none."""
    found = cut.objects.get(object)
    return found.rev if found is not None else cut.deleted.get(object, 0)


def _buried(
    store: Store, entry: Entry, object: str, pin: int, cut: Cut, deadline: float
) -> Aborted:
    gen = _mover(store, object, cut, deadline)
    return Aborted(
        f"generation {entry.gen} cannot be undone: "
        f"{spoken(object)} was changed since, in generation {gen}",
        reason="conflict",
        details={"object": object, "gen": gen, "rev": pin, "undoes": entry.gen},
    )


def _mover(store: Store, object: str, cut: Cut, deadline: float) -> int:
    """The last generation that changed an object."""
    log = store.log(cut.head.floor, cut.head.gen, deadline=deadline)
    moved = (e.gen for e in reversed(log) if any(d.object == object for d in e.diff))
    return next(moved, 0)


def restoring(now: Cut, then: Cut, services: Iterable[str], configs: bool) -> tuple[Change, ...]:
    """What brings the routes back that there were `then`, and with `configs` the configs and their
    schemas; of `services` only, where some are named. What is younger stays."""
    only = frozenset(services)
    kinds = (ROUTE, CONFIG, SCHEMA) if configs else (ROUTE,)
    changes = []
    for object, rev in sorted({**_pins(then), **then.deleted}.items()):
        if not object.startswith(kinds) or (only and _owner(object) not in only):
            continue
        pin = pin_of(now, object)
        if pin != rev:
            changes.append(Change(object=object, to_rev=rev, from_rev=pin))
    return tuple(changes)


def _pins(cut: Cut) -> dict[str, int]:
    return {object: found.rev for object, found in cut.objects.items()}


def _owner(object: str) -> str:
    kind, _, name = object.partition("/")
    return name if kind == "route" else owner_of(name)


def bodies(store: Store, changes: Iterable[Change], deadline: float) -> dict[str, bytes | None]:
    """What each object would hold. Raises NotFound (compacted)."""
    found: dict[str, bytes | None] = {}
    for change in changes:
        if change.to_rev is None:
            found[change.object] = change.body
        else:
            found[change.object] = store.revision(
                change.object, change.to_rev, deadline=deadline
            ).body
    return found


def versions_behind(
    store: Store, route: Revision, steps: int, deadline: float
) -> Mapping[str, int]:
    """The versions that the next rollbacks of a route would return to -> after how many of them."""
    found: dict[str, int] = {}
    for step in range(1, steps + 1):
        if not route.parent:
            break
        try:
            route = store.revision(route.object, route.parent, deadline=deadline)
        except NotFound:  # trimmed: nobody returns there
            break
        body = decode_route(route.body)
        for version in routed(body) if body is not None else ():
            found.setdefault(version, step)
    return found

