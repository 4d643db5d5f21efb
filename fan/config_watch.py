"""Configs as they change: events that can be resumed where somebody stopped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Self

import msgspec

from fan.config_values import CONFIG, check_key, decode
from fan.errors import InvalidArgument, OutOfRange
from fan.following import Cursor, Follower
from fan.following import Step as FollowStep
from fan.mirror import read_names
from fan.stores.base import Cut, Diff, Entry, Head, Store

Kind = Literal[
    "snapshot", "set", "delete", "reset", "compacted", "disconnected", "connected", "idle"
]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to one watched name. A "snapshot" of a prefix has a map of all its configs as
    `value` and 0 as `rev`; that of a key that is not there has None and 0. The `cursor` is with the
    last event of a generation: who has handled it resumes there."""

    event: Kind
    key: str = ""
    value: Any = None
    rev: int = 0
    gen: int = 0
    cursor: str = ""


class Batch(msgspec.Struct, frozen=True):
    """The events of one generation, which belong together; `cursor` is empty where nothing is to be
    resumed behind them. "idle", without events, says that there are no more for now."""

    events: tuple[Event, ...]
    cursor: str = ""
    is_idle: bool = False


class ConfigWatch:
    """An endless iterator of events, by generations: the present state first, or with a cursor only
    what came after it. It is a context manager that closes it; see `Configs.watch`."""

    def __init__(
        self, store: Store, names: Sequence[str], cursor: Cursor | None, **how: Any
    ) -> None:
        if not names:
            raise InvalidArgument("what is to be watched has no name", reason="bad_key")
        self.names = tuple(dict.fromkeys(names))
        for name in self.names:
            check_key(name.rstrip("/") if name.endswith("/") else name)
        self._is_strict = how.pop("strict")
        self._follower = Follower(store, read=self._read, look=self._look, cursor=cursor, **how)

    def __repr__(self) -> str:
        return f"<ConfigWatch {' '.join(self.names)} {self._follower!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, from any thread. Twice does no harm."""
        self._follower.close()

    def __iter__(self) -> Iterator[Event]:
        for batch in self.batches():
            yield from batch.events

    def batches(self) -> Iterator[Batch]:
        """The events by generations. Raises OutOfRange (compacted) with `strict` where generations
        after the cursor are not kept any more, once it has said so."""
        for step in self._follower:
            if step.kind == "idle":
                yield Batch((), str(step.cursor), is_idle=True)
            elif step.kind in ("snapshot", "generation"):
                yield _completed(step.what, str(step.cursor))
            else:
                yield self._said(step)
                if step.kind == "compacted" and self._is_strict:
                    head: Head = step.what
                    raise OutOfRange(
                        f"generations up to {head.floor} are not kept any more: history compacted",
                        reason="compacted",
                        executed="no",
                    )

    def _said(self, step: FollowStep) -> Batch:
        gen = step.what.gen if isinstance(step.what, Head) else 0
        return Batch((Event(event=step.kind, gen=gen),))  # type: ignore[arg-type]

    def wants(self, object: str) -> bool:
        """Whether an object of the store is watched."""
        key = object.removeprefix(CONFIG)
        return object.startswith(CONFIG) and any(
            key.startswith(name) if name.endswith("/") else key == name for name in self.names
        )

    def _read(self, store: Store, deadline: float) -> tuple[Head, tuple[Event, ...]]:
        cut = read_names(store, [CONFIG + name for name in self.names], deadline)
        return cut.head, tuple(_snapshot(name, cut) for name in self.names)

    def _look(self, store: Store, entry: Entry, deadline: float) -> tuple[Event, ...] | None:
        events = tuple(
            _change(store, diff, entry.gen, deadline)
            for diff in entry.diff
            if self.wants(diff.object)
        )
        return events or None


def _snapshot(name: str, cut: Cut) -> Event:
    gen = cut.head.gen
    if not name.endswith("/"):
        found = cut.objects.get(CONFIG + name)
        if found is None or found.body is None:
            return Event(event="snapshot", key=name, gen=gen)
        value = decode(CONFIG + name, found.body)
        return Event(event="snapshot", key=name, value=value, rev=found.rev, gen=gen)
    values = {
        object.removeprefix(CONFIG): decode(object, revision.body)
        for object, revision in sorted(cut.objects.items())
        if object.startswith(CONFIG + name) and revision.body is not None
    }
    return Event(event="snapshot", key=name, value=values, gen=gen)


def _change(store: Store, diff: Diff, gen: int, deadline: float) -> Event:
    key = diff.object.removeprefix(CONFIG)
    revision = store.revision(diff.object, diff.after, deadline=deadline) if diff.after else None
    if revision is None or revision.body is None:
        return Event(event="delete", key=key, rev=diff.after, gen=gen)
    value = decode(diff.object, revision.body)
    return Event(event="set", key=key, value=value, rev=revision.rev, gen=gen)


def _completed(events: tuple[Event, ...], cursor: str) -> Batch:
    *rest, last = events
    return Batch((*rest, msgspec.structs.replace(last, cursor=cursor)), cursor)
