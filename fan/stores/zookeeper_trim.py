"""What a commit takes away: the generation that falls out of the history that is kept."""

from __future__ import annotations

from collections.abc import Sequence

from fan.stores import rules
from fan.stores.zookeeper_channel import Write
from fan.stores.zookeeper_layout import Logged, State
from fan.stores.zookeeper_reading import Reader

#: Generations, and outcomes of operations, that one commit takes away at most: it is somebody's
#: commit, and what is left over falls to the next ones.
_AT_ONCE = 20
_OUTCOMES_AT_ONCE = 200


def trim(
    reader: Reader,
    state: State,
    gen: int,
    steps: Sequence[rules.Step],
    room: int,
    deadline: float,
) -> tuple[int, list[Write]]:
    """The new floor, and the deletes that go with it, as far as they fit into `room` bytes."""
    floor = state.body.floor
    aim = min(gen - state.body.retention, floor + _AT_ONCE)
    if aim <= floor:
        return floor, []
    gens = range(floor + 1, aim + 1)
    entries = reader.entries(gens, deadline)
    old = _superseded(reader, [e for e in entries if e is not None], steps, deadline)
    writes: list[Write] = []
    for number, entry in zip(gens, entries, strict=True):
        more = [] if entry is None else _deletes(reader, entry, old)
        size = sum(write.size for write in more)
        if size > room:
            break
        room -= size
        floor = number
        writes += more
    return floor, writes + _outcomes(reader, floor, room, deadline)


def _superseded(
    reader: Reader, entries: Sequence[Logged], steps: Sequence[rules.Step], deadline: float
) -> dict[tuple[str, int], int]:
    """Where the revisions that those generations superseded were pinned last."""
    pinned_now = {(step.object, step.after) for step in steps}
    wanted = {(diff.object, diff.before) for e in entries for diff in e.diff if diff.before}
    pairs = sorted(wanted - pinned_now)
    found = reader.revisions(pairs, deadline)
    return {p: r.pinned_at for p, r in zip(pairs, found, strict=True) if r is not None}


def _deletes(reader: Reader, entry: Logged, old: dict[tuple[str, int], int]) -> list[Write]:
    layout = reader.layout
    paths = [layout.log(entry.gen), layout.op(entry.op)]
    paths += [layout.page(bucket, gen) for bucket, gen in entry.pages.items()]
    for diff in entry.diff:
        # Never one that a later generation pinned again.
        if old.get((diff.object, diff.before), entry.gen) < entry.gen:
            paths.append(layout.revision(diff.object, diff.before))
            del old[diff.object, diff.before]
    return [Write("delete", path) for path in paths]


def _outcomes(reader: Reader, floor: int, room: int, deadline: float) -> list[Write]:
    """The ops that made no generation, at one that is not kept."""
    writes: list[Write] = []
    for name in _marks(reader, deadline)[:_OUTCOMES_AT_ONCE]:
        gen = name.partition("-")[0]
        if not gen.isdecimal() or int(gen) >= floor:
            break
        both = _unmark(reader, name)
        room -= sum(write.size for write in both)
        if room < 0:
            break
        writes += both
    return writes


def surplus(reader: Reader, state: State, deadline: float) -> list[Write]:
    """The deletes of the oldest ops that made no generation, where there are more of them than
    generations: no later commit may ever take them along. Some at once, since they are listed."""
    (folder,) = reader.channel.get([reader.layout.refusals], deadline)
    most = state.body.retention
    if folder is None or folder.children < most + most // 5:
        return []
    names = _marks(reader, deadline)
    old = names[: min(len(names) + 1 - most, _OUTCOMES_AT_ONCE)]
    return [write for name in old for write in _unmark(reader, name)]


def _marks(reader: Reader, deadline: float) -> list[str]:
    """The names of the ops that made no generation, the oldest first."""
    (names,) = reader.channel.children([reader.layout.refusals], deadline)
    return sorted(names or ())


def _unmark(reader: Reader, name: str) -> list[Write]:
    layout = reader.layout
    op = layout.op(name.partition("-")[2].rpartition(".")[2])
    return [Write("delete", f"{layout.refusals}/{name}"), Write("delete", op)]
