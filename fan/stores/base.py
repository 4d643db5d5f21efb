"""The contract of a store: one total order of generations, and records outside of it.

A store knows nothing of services. Objects (`route/greeter`, `config/theme`) are changed by
`commit`, and every change is one generation that pins immutable revisions. Records (instances,
interfaces, subscribers, overrides, preparations) live outside the generations; one bound to a
session vanishes with it. `fan.testing.contracts.StoreContract` holds what is said here against an
implementation.

Every method takes `deadline`, a point of `time.monotonic()`, and raises `DeadlineExceeded` when it
passes (executed "maybe" for a commit that was sent), `Unavailable` when the store cannot be reached
or opened, `DataLoss` when it is damaged, `FailedPrecondition` when it was written by a newer fan.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Literal, Protocol, Self

import msgspec

from fan.errors import InvalidArgument

#: Generations that a namespace keeps.
RETENTION = 1000

#: Bytes that one commit (names and bodies together) or one record may take, in every store:
#: ZooKeeper loses its connection over more.
LIMIT = 900_000


class Head(msgspec.Struct, frozen=True):
    """Where a namespace stands. `epoch` is new when it was created anew; `gen` 0 is empty;
    `floor` is the newest trimmed generation."""

    epoch: str
    gen: int
    op: str = ""
    floor: int = 0


class Op(msgspec.Struct, frozen=True):
    """One intention to commit, told apart from all others: `id` is its own, `epoch` and `gen` are
    where the namespace stood when it was planned. `str()` is the form that is printed and accepted;
    a log entry, a head and a cursor hold the `id` alone."""

    epoch: str
    gen: int
    id: str

    def __str__(self) -> str:
        return f"{self.epoch}:{self.gen}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> Op:
        """Read `epoch:gen:id`. Raises InvalidArgument for anything else."""
        epoch, _, rest = text.partition(":")
        gen, _, id = rest.partition(":")
        if not (gen.isdecimal() and id and id.replace("-", "").replace("_", "").isalnum()):
            raise InvalidArgument(f"{text!r} is no operation: it looks like EPOCH:GENERATION:ID")
        return cls(epoch, int(gen), id)


def new_op(head: Head) -> Op:
    """A new intention, planned on `head`."""
    return Op(head.epoch, head.gen, os.urandom(16).hex())


class Revision(msgspec.Struct, frozen=True):
    """One immutable body of one object, numbered by the generation that created it. `body` None is
    a tombstone; `parent` the revision that was pinned before, 0 for none; `at` RFC 3339 UTC."""

    object: str
    rev: int
    body: bytes | None
    parent: int = 0
    who: str = ""
    at: str = ""
    pinned_at: int = 0


class Diff(msgspec.Struct, frozen=True):
    """What a generation did to one object: pinned revision before and after, 0 for none."""

    object: str
    before: int
    after: int


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One generation in the log. `prev` is the op of the generation before it."""

    gen: int
    op: str
    prev: str
    verb: str
    diff: tuple[Diff, ...]
    undo_of: int = 0
    who: str = ""
    host: str = ""
    reason: str = ""
    at: str = ""
    forced: bool = False


class Cut(msgspec.Struct, frozen=True):
    """One consistent reading: the head, and the pinned revisions as of it (absent: not pinned, or a
    tombstone). `deleted` maps the objects whose pin is a tombstone to its revision, for who wants
    to re-pin it. Of a past generation `head` is what it was then, with today's floor."""

    head: Head
    objects: dict[str, Revision]
    deleted: dict[str, int] = {}


class View(Protocol):
    """The state a commit would leave, for `Plan.check`."""

    def get(self, object: str) -> bytes | None: ...

    def names(self, prefix: str) -> Iterable[str]: ...


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What to do to one object: a new `body`; or re-pin the existing revision `to_rev`; or, with
    neither, delete it (`unpin` removes the pin without a tombstone). `from_rev` is the pin that the
    plan was made on (0: none, or a tombstone); None takes whatever is there. What is there already
    is no change."""

    object: str
    body: bytes | None = None
    to_rev: int | None = None
    unpin: bool = False
    from_rev: int | None = None


class Plan(msgspec.Struct, kw_only=True):
    """One intended generation. `if_gen` demands that the head is still that one. `check` runs
    inside the commit, on the state it would leave, and raises FanError to refuse; it may run more
    than once, and not at all where nothing would change. It must not use the store."""

    changes: tuple[Change, ...]
    verb: str
    if_gen: int | None = None
    undo_of: int = 0
    who: str = ""
    host: str = ""
    reason: str = ""
    forced: bool = False
    check: Callable[[View], None] | None = None

    def digest(self) -> str:
        """Tells a retry from another plan under the same op: what it does to which objects. The
        conditions (`from_rev`, `if_gen`) are left out, so that a retry may be planned anew."""
        import hashlib

        what = sorted((c.object, c.body, c.to_rev, c.unpin) for c in self.changes)
        return hashlib.sha256(msgspec.msgpack.encode((self.verb, self.undo_of, what))).hexdigest()


class Committed(msgspec.Struct, frozen=True):
    """A plan's outcome: the generation it is in force with, and the op as `commit` takes it.
    `is_changed` is False where every object was there already (no generation was made);
    `was_applied` is True where an earlier try of the op did it."""

    gen: int
    op: str
    is_changed: bool = True
    was_applied: bool = False


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One record outside of the generations. `session` is empty for a persistent one. `heard_at` is
    the epoch seconds of the owner's last sign of life, None where the store has no such thing."""

    kind: str
    name: str
    body: bytes
    session: str = ""
    heard_at: float | None = None


#: What a watch is told. "changed" is a hint to read again, never the data; "lost" and "regained"
#: speak of the connection to the store. After "regained" everything must be read again.
Hint = Literal["changed", "lost", "regained"]

#: The name under which the generations are watched; any other is a kind of record.
HEAD = "head"


class Watch(Protocol):
    """A running watch. `close()` does not wait for a call that is under way: one may still end
    after it. It may be used inside the callback, and twice does no harm."""

    def close(self) -> None: ...


class Session(Protocol):
    """What ephemeral records hang on: it ends with `close()` or with the process, however that
    dies. `is_alive` is False once it ended; `on_lost` is called, once, from a store thread, where
    the store gave it up by itself. It belongs to the process that opened it: in a forked child it
    is not alive, and closing it there leaves the parent's alone."""

    id: str

    @property
    def is_alive(self) -> bool: ...

    def close(self) -> None: ...


class Store(ABC):
    """A registry's storage, for one namespace. Created lazily, one per App and process;
    thread-safe; a forked child must not use its parent's (implementations reopen, and never keep a
    parent's session alive; watches end at the fork). A namespace that nobody has written to is
    empty: epoch "" and generation 0. A store is a context manager that closes it."""

    scheme: ClassVar[str]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def head(self, *, deadline: float) -> Head:
        """Where the namespace stands. One read of it is one consistent cut."""

    @abstractmethod
    def read(
        self,
        objects: Sequence[str] = (),
        *,
        prefix: str | None = None,
        gen: int | None = None,
        deadline: float,
    ) -> Cut:
        """The pinned revisions of the named objects, or of all whose name begins with `prefix`, as
        of one generation (the newest, or `gen`). Raises NotFound for a trimmed `gen` (reason
        `compacted`) and for one that is not there yet (reason `no_such_generation`)."""

    @abstractmethod
    def revision(self, object: str, rev: int, *, deadline: float) -> Revision:
        """One revision of one object, pinned or not. Raises NotFound: reason `compacted` where it
        may have been trimmed, `no_such_revision` where it cannot."""

    @abstractmethod
    def commit(self, plan: Plan, *, op: str = "", deadline: float) -> Committed:
        """Make one generation of `plan`: all of it, or nothing. The same `op` (`epoch:gen:id`, see
        `new_op`) is applied at most once, however often it is sent, and a refusal of it is final:
        sent again, it is refused the same way, as long as it is among the last ops that made no
        generation, of which as many are remembered as there are generations. Raises Aborted (reason
        conflict, with `details` object, gen (that moved it), rev and expected) for a moved pin or
        head, NotFound (compacted) for a revision to re-pin that is gone, AlreadyExists
        (duplicate_id) for another plan under the same op, Unavailable (outcome_unknown, executed
        "maybe") for an op that is unknown and was planned before the history that is left,
        InvalidArgument (payload_too_large) above 900 kB, and what `plan.check` raises."""

    @abstractmethod
    def log(self, after: int, upto: int | None = None, *, deadline: float) -> list[Entry]:
        """The generations after `after`, oldest first, up to `upto` or the head. Trimmed ones are
        absent: a gap at the start, never in the middle."""

    @abstractmethod
    def watch(self, kind: str, callback: Callable[[Hint], None]) -> Watch:
        """Call back at every change of the head (`HEAD`) or of the records of a kind, the death of
        their sessions included; the first call comes at once. Calls are serial, from a store
        thread; many changes may give one call, and a call may come without one; none is missed:
        what was written before the last call is visible to a read in it. A callback that raises is
        logged."""

    @abstractmethod
    def open_session(
        self, *, on_lost: Callable[[], None] | None = None, deadline: float
    ) -> Session:
        """Begin a session for this process."""

    @abstractmethod
    def put(
        self,
        kind: str,
        name: str,
        body: bytes,
        *,
        session: Session | None = None,
        is_new: bool = False,
        deadline: float,
    ) -> None:
        """Write one record, bound to `session` or persistent. With `is_new` it raises AlreadyExists
        (reason duplicate_id, `details` pid and host where known) when the name is held by another
        live session or by a persistent record; without, it overwrites only what is persistent or
        its own. A dead session's record counts as absent. Raises Unavailable (reason session_lost)
        when `session` is not alive."""

    @abstractmethod
    def delete(
        self, kind: str, name: str, *, session: Session | None = None, deadline: float
    ) -> bool:
        """Remove a record; False where there was none. With `session`, only if that session holds
        it."""

    @abstractmethod
    def list(self, kind: str, prefix: str = "", *, deadline: float) -> list[Record]:
        """The live records of a kind whose names begin with `prefix`, by name."""

    def problems(self, *, deadline: float) -> Sequence[str]:
        """What is wrong with the storage itself although it answers, a sentence each: for whoever
        looks after it. Most have nothing to say."""
        return ()

    @abstractmethod
    def close(self) -> None:
        """End sessions and watches, release everything. Twice does no harm."""
