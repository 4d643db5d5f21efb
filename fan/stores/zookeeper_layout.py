"""Where things stand in the tree, and what the nodes hold.

Below `CHROOT/fan/NAMESPACE`::

    head                    one read of it is one consistent cut: see `HeadBody`
    page/<bucket>/<gen>     the pins of one bucket as of that generation: {"route/orders":7}; a
                            negative revision is a tombstone
    rev/<kind>/<name>/<rev> one immutable body; `pinned_at` is the last generation that pinned it
    log/<gen>               one generation
    op/<id>                 what an operation came to
    refused/<gen>-<id>      which of them made no generation, to find them when they are trimmed
    <kind>/<a>/<b>          the record `a/b` of a kind (inst, iface, needs, subs, override, prep,
                            unique); one without a `/` in its name is <kind>/<name>
    alive/<kind>/<bucket>/<session>  ephemeral: this session holds records of this kind; its end is
                            seen here, as to watch each folder of a kind may take a thousand watches

Names are percent-encoded. A revision and a record are a line of JSON and then the body.
"""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from fan.errors import DataLoss, FailedPrecondition
from fan.stores.base import RETENTION, Entry, Head, Revision

#: The layout that this code reads and writes.
VERSION = 1

#: Pages of a namespace: 100,000 pins in one node would be 4 MB.
BUCKETS = 256

#: Folders that the sessions with records of one kind are spread over: whoever watches reads one of
#: them at each coming and going.
_CROWDS = 64

#: Kinds of records that an instance writes by itself; the others are the operators'.
OF_INSTANCES = frozenset({"inst", "iface", "needs", "subs", "unique"})

#: Names that no kind of record may have for its folder.
_OURS = frozenset({"head", "page", "rev", "log", "op", "refused", "alive"})

#: The folders of a namespace, besides `head`.
FOLDERS = (
    *("page", "rev", "log", "op", "refused", "alive", "override", "prep"),
    *sorted(OF_INSTANCES),
)


class HeadBody(msgspec.Struct, frozen=True):
    """What `head` holds: the generation, and for each bucket the generation of its page."""

    epoch: str
    gen: int = 0
    op: str = ""
    floor: int = 0
    retention: int = RETENTION
    pages: dict[int, int] = msgspec.field(default_factory=dict)
    layout: int = VERSION


class State(msgspec.Struct, frozen=True):
    """One reading of `head`, with the version of its node; of a namespace that is not there the
    version is -1."""

    body: HeadBody
    version: int = -1

    @property
    def head(self) -> Head:
        return Head(self.body.epoch, self.body.gen, self.body.op, self.body.floor)


class Logged(Entry, frozen=True, kw_only=True):
    """What a log entry holds: also the pages that it replaced, bucket -> generation of the old."""

    pages: dict[int, int] = msgspec.field(default_factory=dict)


class _RevisionLine(msgspec.Struct, frozen=True):
    object: str
    rev: int
    parent: int
    who: str
    at: str
    pinned_at: int
    sha256: str
    is_deleted: bool = False


class RecordLine(msgspec.Struct, frozen=True):
    """Who wrote a record; `put` tells one writing from all others."""

    pid: int = 0
    host: str = ""
    put: str = ""


class Layout:
    """The paths of one namespace."""

    def __init__(self, chroot: str, namespace: str) -> None:
        self.root = f"{chroot}/fan/{encode(namespace)}"
        self.head = f"{self.root}/head"
        self.refusals = f"{self.root}/refused"
        #: What has to be there before anything else, parents first.
        above = [*chroot.split("/")[1:], "fan", encode(namespace)]
        self.trunk = ["/" + "/".join(above[: i + 1]) for i in range(len(above))]
        self.trunk += [f"{self.root}/{name}" for name in FOLDERS]

    def log(self, gen: int) -> str:
        return f"{self.root}/log/{gen:010d}"

    def op(self, id: str) -> str:
        return f"{self.root}/op/{id}"

    def refusal(self, gen: int, at: int, id: str) -> str:
        """The mark of an op that made no generation; sorted, they are in the order of their times
        `at`, in microseconds."""
        return f"{self.refusals}/{gen:010d}-{at:017d}.{id}"

    def bucket(self, bucket: int) -> str:
        return f"{self.root}/page/{bucket}"

    def page(self, bucket: int, gen: int) -> str:
        return f"{self.root}/page/{bucket}/{gen}"

    def revisions(self, object: str) -> list[str]:
        """The folders of an object's revisions, the parent first."""
        kind, slash, name = object.partition("/")
        folder = f"{self.root}/rev/{encode(kind) or '%'}"
        # An encoded name has two digits after each percent sign: no name is mistaken for these.
        return [folder, f"{folder}/{(encode(name) or '%%') if slash else '%'}"]

    def revision(self, object: str, rev: int) -> str:
        return f"{self.revisions(object)[1]}/{rev}"

    def kind(self, kind: str) -> str:
        return f"{self.root}/{'+' if kind in _OURS else ''}{encode(kind) or '%'}"

    def alive(self, kind: str) -> str:
        return f"{self.root}/alive/{encode(kind) or '%'}"

    def crowd(self, kind: str, session: str) -> str:
        bucket = hashlib.blake2b(session.encode(), digest_size=1).digest()[0] % _CROWDS
        return f"{self.alive(kind)}/{bucket}"

    def folder(self, kind: str, first: str) -> str:
        return f"{self.kind(kind)}/{encode(first) or '%'}"

    def record(self, kind: str, name: str) -> str:
        first, slash, rest = name.partition("/")
        return self.folder(kind, first) + (f"/{encode(rest) or '%'}" if slash else "")


def encode(name: str) -> str:
    """A name as one step of a path: ZooKeeper takes neither `/` nor `.` and `..` alone."""
    encoded = quote(name, safe="@:,=~")
    return encoded.replace(".", "%2E") if encoded in (".", "..") else encoded


def decode(step: str) -> str:
    """What `encode` encoded; `%` alone stands for nothing."""
    return "" if step == "%" else unquote(step)


def bucket_of(object: str) -> int:
    """The page that holds an object's pin."""
    return hashlib.blake2b(object.encode(), digest_size=1).digest()[0]


def read_head(data: bytes, path: str) -> HeadBody:
    """Raises DataLoss for what is no head, FailedPrecondition for one of a newer fan."""
    body: HeadBody = _decode(data, HeadBody, path)
    if body.layout > VERSION:
        raise FailedPrecondition(
            f"{path} was written by a newer fan (layout {body.layout}, this one knows {VERSION}): "
            "update this one",
            reason="newer_schema",
        )
    return body


def read_entry(data: bytes, path: str) -> Logged:
    entry: Logged = _decode(data, Logged, path)
    return entry


def plain(entry: Logged) -> Entry:
    """An entry without what is the tree's own."""
    return Entry(**{name: getattr(entry, name) for name in Entry.__struct_fields__})


def read_page(data: bytes, path: str) -> dict[str, int]:
    pins: dict[str, int] = _decode(data, dict[str, int], path)
    return pins


def write_revision(revision: Revision) -> bytes:
    body = revision.body or b""
    line = _RevisionLine(
        revision.object,
        revision.rev,
        revision.parent,
        revision.who,
        revision.at,
        revision.pinned_at,
        hashlib.sha256(body).hexdigest(),
        revision.body is None,
    )
    return msgspec.json.encode(line) + b"\n" + body


def read_revision(data: bytes, path: str) -> Revision:
    """Raises DataLoss where the body is not what was written."""
    text, _, body = data.partition(b"\n")
    line: _RevisionLine = _decode(text, _RevisionLine, path)
    if hashlib.sha256(body).hexdigest() != line.sha256:
        raise DataLoss(f"{path} is damaged: its body has another hash than was written")
    kept = None if line.is_deleted else body
    return Revision(line.object, line.rev, kept, line.parent, line.who, line.at, line.pinned_at)


def write_record(line: RecordLine, body: bytes) -> bytes:
    return msgspec.json.encode(line) + b"\n" + body


def read_record(data: bytes) -> tuple[RecordLine, bytes] | None:
    """Who wrote a record, and its body; None for a node that is a folder and no record."""
    text, newline, body = data.partition(b"\n")
    if not newline:
        return None
    try:
        return msgspec.json.decode(text, type=RecordLine), body
    except (msgspec.DecodeError, RecursionError):
        return None


def _decode(data: bytes, kind: Any, path: str) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise DataLoss(f"{path} is damaged: {exc}") from exc
