"""Making one generation: read, decide, and one transaction that holds only where nothing moved.

Each rule here closes a way to lose, double or misreport a commit. The op's own node is created in
the same transaction, so that a repetition finds it; the head is read before that node, so that no
commit of ours counts as somebody else's; and a refusal is first written down as the op's outcome,
so that an older try of ours which is still on its way cannot land after it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import msgspec

from fan.errors import DataLoss, DeadlineExceeded, FanError, InvalidArgument, Unavailable
from fan.stores import rules
from fan.stores.base import LIMIT, Committed, Head, Op, Plan, new_op
from fan.stores.zookeeper_channel import Channel, Refusal, Uncertain, Write
from fan.stores.zookeeper_ground import Ground, Trouble
from fan.stores.zookeeper_layout import (
    OF_INSTANCES,
    HeadBody,
    Layout,
    Logged,
    State,
    bucket_of,
    write_revision,
)
from fan.stores.zookeeper_reading import Gone, Patience, Reader
from fan.stores.zookeeper_trim import surplus, trim

#: Bytes that one transaction may take: above the port's limit by what the tree's own bookkeeping
#: needs, and below ZooKeeper's 1 MiB, over which it drops the connection.
ROOM = LIMIT + 60_000


class Commit:
    """One call of `Store.commit`."""

    def __init__(self, reader: Reader, plan: Plan, op: str, deadline: float) -> None:
        self._reader = reader
        self._channel: Channel = reader.channel
        self._layout: Layout = reader.layout
        self._plan = plan
        self._digest = plan.digest()
        self._op = Op.parse(op) if op else None
        self._is_named = bool(op)
        self._deadline = deadline
        #: Whether a transaction of ours may land any time, its answer having been lost.
        self._is_loose = False
        self._clash: tuple[str, Head] | None = None

    def run(self) -> Committed:
        """Raises as `Store.commit` does."""
        rules.check_deadline(self._deadline, "change the registry")
        patience = Patience(self._channel)
        while True:
            head = Head("", 0)
            try:
                state = self._state(patience)
                head = state.head
                done = self._try(state)
                if done is not None:
                    return done
            except Gone as gone:
                patience.note(head, gone)
            except Uncertain:
                self._is_loose = True
            except Trouble as trouble:
                raise self._told(trouble.error) from trouble
            except (Unavailable, DeadlineExceeded) as error:
                raise self._told(error) from error

    def _told(self, error: FanError) -> FanError:
        """What an outage means for the caller: whether the commit may be in force."""
        if not self._is_loose or error.executed == "maybe":
            return error
        if not isinstance(error, Unavailable | DeadlineExceeded):
            return error
        return DeadlineExceeded(
            f"whether the change was made is unknown: the registry {self._channel.ensemble} did "
            f"not answer in time, and may yet apply it; run again with --op {self._op}",
            reason="client_timer",
            executed="maybe",
            details={"op": str(self._op)},
        )

    def _state(self, patience: Patience) -> State:
        while True:
            state = self._reader.state(self._deadline, sync=self._is_loose or patience.wants_sync)
            if state.version >= 0:
                return state
            # Nobody has written here, or all is lost.
            begin(self._channel, self._layout, self._deadline)

    def _try(self, state: State) -> Committed | None:
        """The outcome, or None where something moved and all has to be looked at again."""
        head = state.head
        known = None
        if self._op is None:
            self._op = new_op(head)
        else:
            known = self._known(self._op)
        known = rules.recall(self._op, self._digest, known, head)
        if known is not None:
            # Applied by an earlier call; or by this one, and only the answer was lost.
            return self._committed(known.gen, known.is_changed, not self._is_loose)
        ground = Ground(self._reader, state, self._deadline)
        ground.prepare(self._plan)
        try:
            steps = rules.decide(self._plan, ground)
        except FanError as error:
            if not rules.is_final(error) or not (self._is_named or self._is_loose):
                raise
            what = rules.Known(head.gen, self._digest, False, rules.keep(error))
            if self._note(state, self._op, what):
                raise
            return None
        if not steps:
            is_noted = self._note(state, self._op, rules.Known(head.gen, self._digest))
            return self._committed(head.gen, False, False) if is_noted else None
        return self._apply(state, self._op, ground, steps)

    def _known(self, op: Op) -> rules.Known | None:
        (node,) = self._channel.get([self._layout.op(op.id)], self._deadline)
        return None if node is None else msgspec.json.decode(node.data, type=rules.Known)

    def _committed(self, gen: int, is_changed: bool, was_applied: bool) -> Committed:
        return Committed(gen, str(self._op), is_changed, was_applied)

    def _note(self, state: State, op: Op, what: rules.Known) -> bool:
        """Write down that an op made no generation; False where it came to something already, or
        the head moved: with it may have gone the op's own node, trimmed, and what it came to."""
        layout = self._layout
        writes = [Write("check", layout.head, version=state.version)]
        # One that nobody can send again, by its name or by a lost try, leaves no trace: that all is
        # so already is then asked of the leader only, since we may have read from who lags behind.
        if self._is_named or self._is_loose:
            mark = layout.refusal(what.gen, time.time_ns() // 1000, op.id)
            writes.append(Write("create", layout.op(op.id), msgspec.json.encode(what)))
            writes.append(Write("create", mark))
            writes += surplus(self._reader, state, self._deadline)
        return self._settle(self._channel.multi(writes, self._deadline), state.head)

    def _apply(
        self, state: State, op: Op, ground: Ground, steps: Sequence[rules.Step]
    ) -> Committed | None:
        entry = rules.entry_of(self._plan, op, state.head, steps)
        made = self._pages(state, ground, steps)
        replaced = {b: state.body.pages[b] for b in made if b in state.body.pages}
        logged = Logged(
            **{name: getattr(entry, name) for name in entry.__struct_fields__}, pages=replaced
        )
        layout, gen = self._layout, entry.gen
        writes = [Write("check", layout.head, version=state.version)]
        for revision in rules.revisions_of(entry, steps):
            path = layout.revision(revision.object, revision.rev)
            writes.append(Write("create", path, write_revision(revision)))
        pages = [
            Write("create", layout.page(bucket, gen), msgspec.json.encode(pins))
            for bucket, pins in made.items()
        ]
        writes += pages
        writes.append(Write("create", layout.log(gen), msgspec.json.encode(logged)))
        known = rules.Known(gen, self._digest, True)
        writes.append(Write("create", layout.op(op.id), msgspec.json.encode(known)))
        writes += self._repins(ground, steps, gen)
        body = msgspec.structs.replace(
            state.body, gen=gen, op=op.id, pages={**state.body.pages, **dict.fromkeys(made, gen)}
        )
        room = ROOM - sum(write.size for write in writes) - len(msgspec.json.encode(body)) - 200
        _check_room(room, len(steps), pages)
        self._make_folders(state, steps)
        floor, gone = trim(self._reader, state, gen, steps, room, self._deadline)
        body = msgspec.structs.replace(body, floor=floor)
        writes += gone
        writes.append(Write("set", layout.head, msgspec.json.encode(body), state.version))
        if self._settle(self._channel.multi(writes, self._deadline), state.head):
            return self._committed(gen, True, False)
        return None

    def _repins(self, ground: Ground, steps: Sequence[rules.Step], gen: int) -> list[Write]:
        """Tell the revisions that are pinned again, so that no trim takes them."""
        writes = []
        for step in steps:
            old = ground.find(step.object, step.after) if step.after and not step.is_new else None
            if old is not None:
                data = write_revision(msgspec.structs.replace(old, pinned_at=gen))
                writes.append(Write("set", self._layout.revision(old.object, old.rev), data))
        return writes

    def _pages(
        self, state: State, ground: Ground, steps: Sequence[rules.Step]
    ) -> dict[int, dict[str, int]]:
        """The new pages, of the buckets that the steps touch."""
        made: dict[int, dict[str, int]] = {}
        for step in steps:
            bucket = bucket_of(step.object)
            if bucket not in made:
                made[bucket] = dict(ground.pages[bucket])
            if step.after:
                made[bucket][step.object] = step.after if step.body is not None else -step.after
            else:
                del made[bucket][step.object]
        return made

    def _make_folders(self, state: State, steps: Sequence[rules.Step]) -> None:
        """The folders of objects and buckets that nothing was written to before."""
        layout, folders = self._layout, dict[str, None]()
        for step in steps:
            if not step.before:
                folders.update(dict.fromkeys(layout.revisions(step.object)))
            if bucket_of(step.object) not in state.body.pages:
                folders[layout.bucket(bucket_of(step.object))] = None
        if folders:
            self._channel.ensure([(path, False, b"") for path in folders], self._deadline)

    def _settle(self, refusal: Refusal | None, head: Head) -> bool:
        """Whether a transaction was done; False where all has to be looked at again. Raises Gone
        and DataLoss."""
        if refusal is None:
            return True
        path = refusal.write.path
        if refusal.why == "missing":
            raise Gone(path)
        if refusal.why == "exists" and path not in self._may_exist():
            # The transaction compared the head first, so that it is as it was: this generation
            # was made before, and the head forgot it. Twice, since an op or a revision may be ours.
            root = self._layout.root
            if self._clash == (path, head) or path.startswith((f"{root}/log/", f"{root}/page/")):
                raise DataLoss(
                    f"the registry {self._channel.ensemble} stands at generation {head.gen}, and "
                    f"{path} is there already: its history was put back in part; put back all of "
                    "it",
                    executed="no",
                    details={"path": path, "gen": head.gen},
                )
            self._clash = (path, head)
        return False

    def _may_exist(self) -> tuple[str, ...]:
        return () if self._op is None else (self._layout.op(self._op.id),)


def _check_room(room: int, count: int, pages: Sequence[Write]) -> None:
    """Raise InvalidArgument for a change that does not fit into one transaction."""
    if room < 0:
        size = sum(page.size for page in pages)
        raise InvalidArgument(
            f"the change of {count} objects takes {ROOM - room} bytes with all that it touches, "
            f"{size} of them the {len(pages)} pages of pins that it writes anew: ZooKeeper takes "
            f"at most {ROOM} in one generation; make it in parts",
            reason="payload_too_large",
            details={"size": ROOM - room, "limit": ROOM, "pages": size},
        )


def begin(channel: Channel, layout: Layout, deadline: float) -> None:
    """Make a namespace, with its epoch; what is there already stays."""
    theirs = {layout.kind(kind) for kind in OF_INSTANCES} | {f"{layout.root}/alive"}
    rows = [(path, path in theirs, b"") for path in layout.trunk]
    head = HeadBody(os.urandom(16).hex())
    channel.ensure([*rows, (layout.head, False, msgspec.json.encode(head))], deadline)
