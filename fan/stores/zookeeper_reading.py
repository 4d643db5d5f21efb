"""Reading a namespace: one read of the head, and then only what never changes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from fan.errors import DataLoss
from fan.stores import rules
from fan.stores.base import Cut, Diff, Entry, Head, Revision
from fan.stores.zookeeper_channel import Channel
from fan.stores.zookeeper_layout import (
    HeadBody,
    Layout,
    Logged,
    State,
    bucket_of,
    plain,
    read_entry,
    read_head,
    read_page,
    read_revision,
)
from fan.stores.zookeeper_multiread import AT_ONCE

T = TypeVar("T")

#: A namespace that nobody has written to.
NOTHING = State(HeadBody(""))


class Gone(Exception):
    """A node that the head speaks of is not there: it was trimmed since, or is lost."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class Patience:
    """What to do about nodes that are not there while the head stays as it is: look again, then
    catch up with the leader, then ask another server, then call it a loss. Never more."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._seen: Head | None = None
        self._tries = 0

    @property
    def wants_sync(self) -> bool:
        return self._tries > 1

    def note(self, head: Head, gone: Gone) -> None:
        """Take note of one miss. Raises DataLoss at the end."""
        self._tries = self._tries + 1 if head == self._seen else 1
        self._seen = head
        if self._tries == 3:
            self._channel.renew()
        if self._tries > 3:
            raise DataLoss(
                f"the registry {self._channel.ensemble} has lost {gone.path}, which its generation "
                f"{head.gen} speaks of: put a backup back",
                executed="no",
                details={"path": gone.path, "gen": head.gen},
            )


class Reader:
    """Reads one namespace. Pages never change, so those that were read last are kept, for as long
    as the connection: another server may have another history."""

    def __init__(self, channel: Channel, layout: Layout) -> None:
        self.channel = channel
        self.layout = layout
        self._guard = threading.Lock()
        self._pages: dict[int, tuple[int, dict[str, int]]] = {}
        self._pages_of: object = None

    def after_fork_in_child(self) -> None:
        self._guard = threading.Lock()

    def state(self, deadline: float, *, sync: bool = False) -> State:
        """The head, and for who commits its version."""
        (node,) = self.channel.get([self.layout.head], deadline, sync=sync)
        if node is None:
            return NOTHING
        return State(read_head(node.data, self.layout.head), node.version)

    def steady(self, act: Callable[[State], T], deadline: float) -> T:
        """What `act` makes of the state, from the start again where that was trimmed meanwhile."""
        patience = Patience(self.channel)
        while True:
            state = self.state(deadline, sync=patience.wants_sync)
            try:
                return act(state)
            except Gone as gone:
                patience.note(state.head, gone)

    def pages(
        self, state: State, buckets: Iterable[int], deadline: float
    ) -> dict[int, dict[str, int]]:
        """The pins of some buckets: object -> revision, negative for a tombstone."""
        wanted = {b: state.body.pages[b] for b in buckets if b in state.body.pages}
        of = (self.channel.opened, state.body.epoch)
        with self._guard:
            if self._pages_of != of:
                self._pages, self._pages_of = {}, of
            kept = self._pages
        found = {b: kept[b][1] for b, gen in wanted.items() if kept.get(b, (0,))[0] == gen}
        missing = [b for b in wanted if b not in found]
        paths = [self.layout.page(b, wanted[b]) for b in missing]
        for b, path, node in zip(missing, paths, self._get(paths, deadline), strict=True):
            if node is None:
                raise Gone(path)
            found[b] = read_page(node, path)
            # Into the same dict as before: what was read over a lost connection is not kept.
            kept[b] = (wanted[b], found[b])
        return found

    def pins(
        self, state: State, objects: Sequence[str], prefix: str | None, deadline: float
    ) -> dict[str, int]:
        """The pins of the named objects, and of all with the prefix."""
        if prefix is None:
            of = {object: bucket_of(object) for object in objects}
            pages = self.pages(state, of.values(), deadline)
            return {o: abs(pages[b][o]) for o, b in of.items() if o in pages.get(b, ())}
        pins: dict[str, int] = {}
        named = set(objects)
        for page in self.pages(state, state.body.pages, deadline).values():
            for name, rev in page.items():
                if name in named or name.startswith(prefix):
                    pins[name] = abs(rev)
        return pins

    def revisions(
        self, wanted: Sequence[tuple[str, int]], deadline: float
    ) -> list[Revision | None]:
        """Revisions by object and number; None for one that is not there."""
        paths = [self.layout.revision(*pair) for pair in wanted]
        return [
            None if data is None else read_revision(data, path)
            for path, data in zip(paths, self._get(paths, deadline), strict=True)
        ]

    def entries(self, gens: Iterable[int], deadline: float) -> list[Logged | None]:
        """Entries of the log; None for one that is not there."""
        paths = [self.layout.log(gen) for gen in gens]
        return [
            None if data is None else read_entry(data, path)
            for path, data in zip(paths, self._get(paths, deadline), strict=True)
        ]

    def log(self, after: int, upto: int | None, deadline: float) -> list[Entry]:
        """The generations after one, as far as they are kept."""
        if upto is not None and after < upto <= after + AT_ONCE:
            # They are there, most often, and then the head has nothing to add.
            found = self.entries(range(after + 1, upto + 1), deadline)
            if all(found):
                return [plain(entry) for entry in found if entry is not None]

        def act(state: State) -> list[Entry]:
            last = state.body.gen if upto is None else min(upto, state.body.gen)
            gens = range(max(after, state.body.floor) + 1, last + 1)
            return [plain(entry) for entry in self._all(gens, deadline)]

        return self.steady(act, deadline)

    def cut(
        self, objects: Sequence[str], prefix: str | None, gen: int | None, deadline: float
    ) -> Cut:
        """One consistent reading."""

        def act(state: State) -> Cut:
            head = state.head
            pins = self.pins(state, objects, prefix, deadline)
            if gen is not None and gen != head.gen:
                rules.check_generation(gen, head)
                later = self._all(range(gen + 1, head.gen + 1), deadline)
                for entry in reversed(later):
                    _undo(pins, entry.diff, set(objects), prefix)
                head = Head(head.epoch, gen, later[0].prev, head.floor)
            wanted = sorted((name, rev) for name, rev in pins.items() if rev)
            return _cut(head, wanted, self._all_revisions(wanted, deadline))

        return self.steady(act, deadline)

    def _all(self, gens: range, deadline: float) -> list[Logged]:
        found = []
        for gen, entry in zip(gens, self.entries(gens, deadline), strict=True):
            if entry is None:
                raise Gone(self.layout.log(gen))
            found.append(entry)
        return found

    def _all_revisions(self, wanted: Sequence[tuple[str, int]], deadline: float) -> list[Revision]:
        found = []
        for pair, revision in zip(wanted, self.revisions(wanted, deadline), strict=True):
            if revision is None:
                raise Gone(self.layout.revision(*pair))
            found.append(revision)
        return found

    def _get(self, paths: Sequence[str], deadline: float) -> list[bytes | None]:
        if not paths:
            return []
        nodes = self.channel.get(paths, deadline)
        return [None if node is None else node.data for node in nodes]


def _undo(
    pins: dict[str, int], diffs: Iterable[Diff], names: set[str], prefix: str | None
) -> None:
    """Take one generation back out of the pins."""
    for diff in diffs:
        if diff.object in names or (prefix is not None and diff.object.startswith(prefix)):
            pins[diff.object] = diff.before


def _cut(head: Head, wanted: Sequence[tuple[str, int]], revisions: Sequence[Revision]) -> Cut:
    found: dict[str, Revision] = {}
    deleted: dict[str, int] = {}
    for (name, rev), revision in zip(wanted, revisions, strict=True):
        if revision.body is None:
            deleted[name] = rev
        else:
            found[name] = revision
    return Cut(head, found, deleted)
