"""What a config was: its revisions, the generations that changed it, and the way back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from fan.config_values import CONFIG, MISSING, check_key, decode
from fan.errors import NotFound
from fan.stores.base import Change, Cut, Entry, Revision, Store


class ConfigEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One config as of one reading: `rev` is its revision, `gen` the registry's generation. In a
    comparison it may be a deleted one."""

    key: str
    value: Any
    rev: int
    gen: int
    who: str = ""
    at: str = ""

    @property
    def is_deleted(self) -> bool:
        """Whether there is no value."""
        return self.value is MISSING


class ConfigEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a config, as the history has it: generation `gen` put revision `rev` in force
    (0: none)."""

    gen: int
    rev: int
    value: Any
    verb: str
    who: str = ""
    host: str = ""
    at: str = ""
    message: str = ""
    undo_of: int = 0

    @property
    def is_deleted(self) -> bool:
        """Whether there is no value: it was deleted, or is not kept any more."""
        return self.value is MISSING


def no_such_config(key: str, why: str = "") -> NotFound:
    """The error for a config that is not there."""
    return NotFound(f"no such config: {key}{why and f' ({why})'}", reason="no_such_config")


def entry_of(key: str, revision: Revision, gen: int) -> ConfigEntry:
    """A revision that has a body."""
    assert revision.body is not None
    value = decode(CONFIG + key, revision.body)
    return ConfigEntry(
        key=key, value=value, rev=revision.rev, gen=gen, who=revision.who, at=revision.at
    )


def pinned(key: str, cut: Cut) -> Revision:
    """The revision in force. Raises NotFound (no_such_config)."""
    found = cut.objects.get(CONFIG + key)
    if found is None:
        gone = cut.deleted.get(CONFIG + key)
        raise no_such_config(key, f"deleted in generation {gone}" if gone else "")
    return found


def read_entry(
    store: Store, key: str, rev: int | None, gen: int | None, deadline: float
) -> ConfigEntry:
    """One config: in force now, or in generation `gen`, or its revision `rev`. Raises NotFound."""
    object = CONFIG + check_key(key)
    cut = store.read([object], gen=gen, deadline=deadline)
    if rev is None:
        return entry_of(key, pinned(key, cut), cut.head.gen)
    found = store.revision(object, rev, deadline=deadline)
    if found.body is None:
        raise no_such_config(key, f"revision {rev} deleted it")
    return entry_of(key, found, cut.head.gen)


def history(store: Store, key: str, deadline: float) -> list[ConfigEvent]:
    """The changes of a config that the history keeps, the newest first; the revision in force is
    among them also where the generation that made it is not kept. Raises NotFound."""
    object = CONFIG + check_key(key)
    cut = store.read([object], deadline=deadline)
    log = store.log(cut.head.floor, cut.head.gen, deadline=deadline)
    events = [_event(store, object, entry, deadline) for entry in log if _touches(entry, object)]
    now = cut.objects.get(object)
    if now is not None and not any(event.rev == now.rev for event in events):
        value = decode(object, now.body or b"null")
        old = ConfigEvent(gen=now.rev, rev=now.rev, value=value, verb="", who=now.who, at=now.at)
        events.insert(0, old)
    if not events:
        raise no_such_config(key)
    return events[::-1]


def _touches(entry: Entry, object: str) -> bool:
    return any(diff.object == object for diff in entry.diff)


def _event(store: Store, object: str, entry: Entry, deadline: float) -> ConfigEvent:
    rev = next(diff.after for diff in entry.diff if diff.object == object)
    return ConfigEvent(
        gen=entry.gen,
        rev=rev,
        value=_value(store, object, rev, deadline),
        verb=entry.verb,
        who=entry.who,
        host=entry.host,
        at=entry.at,
        message=entry.reason,
        undo_of=entry.undo_of,
    )


def _value(store: Store, object: str, rev: int, deadline: float) -> Any:
    if not rev:
        return MISSING
    try:
        body = store.revision(object, rev, deadline=deadline).body
    except NotFound:
        return MISSING
    return MISSING if body is None else decode(object, body)


def compared(
    store: Store, key: str, first: int | None, second: int | None, deadline: float
) -> tuple[ConfigEntry, ConfigEntry]:
    """Two revisions of a config: the two that are named; one and the one in force; the one in force
    and its parent. A deleted one has the value `MISSING`. Raises NotFound."""
    object = CONFIG + check_key(key)
    cut = store.read([object], deadline=deadline)
    if second is None:
        now = cut.objects[object].rev if object in cut.objects else cut.deleted.get(object, 0)
        if not now:
            raise no_such_config(key)
        second = now
        if first is None:
            first = store.revision(object, now, deadline=deadline).parent
    assert first is not None

    def side(rev: int) -> ConfigEntry:
        value = MISSING
        if rev:
            body = store.revision(object, rev, deadline=deadline).body
            value = MISSING if body is None else decode(object, body)
        return ConfigEntry(key=key, value=value, rev=rev, gen=cut.head.gen)

    return side(first), side(second)


def way_back(store: Store, key: str, cut: Cut, to_rev: int | None, deadline: float) -> Change:
    """Re-pin the parent of the revision in force, so that doing it again walks further back; or
    revision `to_rev`. Raises NotFound: nothing to undo, or not kept any more (compacted)."""
    object = CONFIG + key
    now = cut.objects[object].rev if object in cut.objects else cut.deleted.get(object, 0)
    if not now:
        raise no_such_config(key)
    target = to_rev
    if target is None:
        target = store.revision(object, now, deadline=deadline).parent
        if not target:
            raise NotFound(
                f"nothing to undo: revision {now} of config {key} is its first",
                reason="nothing_to_undo",
            )
    store.revision(object, target, deadline=deadline)
    return Change(object=object, to_rev=target, from_rev=now)


def under(prefix: str, cut: Cut) -> Iterator[ConfigEntry]:
    """The configs of a reading whose keys begin with `prefix`, by key."""
    for object, revision in cut.objects.items():
        key = object.removeprefix(CONFIG)
        if object.startswith(CONFIG) and key.startswith(prefix):
            yield entry_of(key, revision, cut.head.gen)
