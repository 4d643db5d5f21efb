"""What stands outside the generations: one node for each record, ephemeral or not.

Every write of a record also touches the folder of its kind: that is what watches look at, since a
watch on each of ten thousand records would cost ten thousand requests. The end of a session, which
touches nothing, is seen by a node that goes with it (`alive` in `zookeeper_layout`).
"""

from __future__ import annotations

import os

from fan.errors import DeadlineExceeded, FailedPrecondition, Unavailable
from fan.stores import rules
from fan.stores.base import Record
from fan.stores.zookeeper_channel import Channel, Refusal, Uncertain, Write
from fan.stores.zookeeper_commit import begin
from fan.stores.zookeeper_layout import (
    OF_INSTANCES,
    Layout,
    RecordLine,
    decode,
    read_record,
    write_record,
)
from fan.stores.zookeeper_multiread import Node


def put(
    channel: Channel,
    layout: Layout,
    kind: str,
    name: str,
    body: bytes,
    *,
    session: str,
    alive: set[str],
    is_new: bool,
    deadline: float,
) -> None:
    """Write one record over `channel`, which is the session's own where there is one. `alive` are
    the kinds whose watchers can see the session's end; this one comes to them."""
    line = RecordLine(os.getpid(), os.uname().nodename, os.urandom(8).hex())
    data, path = write_record(line, body), layout.record(kind, name)
    is_loose = False
    while True:
        (node,) = _look(channel, path, deadline, is_loose)
        found = None if node is None else read_record(node.data)
        if is_loose and found is not None and found[0].put == line.put:
            return  # it was done, and only the answer got lost
        rules.check_claim(kind, name, _holder(node), session=session, is_new=is_new)
        writes = _writes(layout, kind, path, data, node, session)
        if session and kind not in alive:
            mark = f"{layout.crowd(kind, session)}/{session}"
            writes.append(_create(kind, mark, b"", session))
        try:
            refusal = channel.multi(writes, deadline)
        except Uncertain:
            is_loose = True
            continue
        if refusal is None:
            alive.add(kind)
            return
        if refusal.why == "exists" and refusal.write.path != path:
            alive.add(kind)  # since an earlier write
            continue
        _clear_the_way(channel, layout, kind, name, session, refusal, deadline)


def _look(channel: Channel, path: str, deadline: float, is_loose: bool) -> list[Node | None]:
    """What is at `path`; where that cannot be told after a write of ours, it may have been done."""
    try:
        return channel.get([path], deadline, sync=is_loose)
    except (Unavailable, DeadlineExceeded) as error:
        if not is_loose or error.reason == "session_lost":
            raise
        raise DeadlineExceeded(
            f"whether {path} was written is unknown: the registry {channel.ensemble} did not "
            "answer in time",
            reason="client_timer",
            executed="maybe",
        ) from error


def _writes(
    layout: Layout, kind: str, path: str, data: bytes, node: Node | None, session: str
) -> list[Write]:
    """What puts the record there, given what is there now."""
    touch = Write("set", layout.kind(kind))
    create = _create(kind, path, data, session)
    if node is None:
        return [create, touch]
    if node.owner == session:
        return [Write("set", path, data, node.version), touch]
    # A persistent one, or an empty folder, that becomes a session's.
    return [Write("delete", path, version=node.version), create, touch]


def _create(kind: str, path: str, data: bytes, session: str) -> Write:
    is_theirs = kind in OF_INSTANCES
    return Write("create", path, data, is_ephemeral=bool(session), by_instances=is_theirs)


def _clear_the_way(
    channel: Channel,
    layout: Layout,
    kind: str,
    name: str,
    session: str,
    refusal: Refusal,
    deadline: float,
) -> None:
    """Make the folders that are missing. What was overtaken is just tried again."""
    if refusal.why == "missing":
        begin(channel, layout, deadline)
        first, slash, _ = name.partition("/")
        folders = [layout.kind(kind)] + ([layout.folder(kind, first)] if slash else [])
        folders += [layout.alive(kind), layout.crowd(kind, session)] if session else []
        channel.ensure([(path, kind in OF_INSTANCES, b"") for path in folders], deadline)
    elif refusal.why in ("not_empty", "no_children"):
        raise FailedPrecondition(
            f"{kind} {name} cannot be there: a record that ends with its session has nothing below "
            "its name; choose another name",
            reason="bad_name",
            details={"kind": kind, "name": name},
        )


def _holder(node: Node | None) -> rules.Holder | None:
    if node is None:
        return None
    found = read_record(node.data)
    if found is None:
        # A folder; or what is no record of ours, and belongs to its session if it has one.
        return rules.Holder(node.owner) if node.owner else None
    return rules.Holder(node.owner, found[0].pid, found[0].host)


def delete(
    channel: Channel, layout: Layout, kind: str, name: str, *, session: str | None, deadline: float
) -> bool:
    """Remove one record; with `session` only that session's. False where there was none."""
    path, is_loose = layout.record(kind, name), False
    while True:
        (node,) = _look(channel, path, deadline, is_loose)
        if node is None or read_record(node.data) is None:
            return is_loose
        if session is not None and node.owner != session:
            return False
        gone = Write("delete", path, version=node.version)
        if node.children:
            gone = Write("set", path, b"", node.version)
        try:
            refusal = channel.multi([gone, Write("set", layout.kind(kind))], deadline)
        except Uncertain:
            is_loose = True
            continue
        if refusal is None:
            return True


def listing(
    channel: Channel, layout: Layout, kind: str, prefix: str, deadline: float
) -> list[Record]:
    """The records whose names begin with `prefix`, by name; each level is read at once."""
    first, slash, rest = prefix.partition("/")
    if slash:
        below = {first: layout.folder(kind, first)}
        return _read(channel, kind, _names(channel, below, rest, deadline), deadline)
    root = layout.kind(kind)
    (steps,) = channel.children([root], deadline)
    tops = [step for step in steps or () if decode(step).startswith(prefix)]
    nodes = channel.get([f"{root}/{step}" for step in tops], deadline)
    records: list[Record] = []
    below = {}
    for step, node in zip(tops, nodes, strict=True):
        if node is None:
            continue  # it went in between
        record = _record(kind, decode(step), node)
        records += [] if record is None else [record]
        if node.children:
            below[decode(step)] = f"{root}/{step}"
    records += _read(channel, kind, _names(channel, below, "", deadline), deadline)
    return sorted(records, key=lambda record: record.name)


def _names(
    channel: Channel, folders: dict[str, str], rest: str, deadline: float
) -> list[tuple[str, str]]:
    """Name and path of what is below some folders."""
    paths = list(folders.values())
    found = channel.children(paths, deadline) if paths else []
    return [
        (f"{first}/{decode(step)}", f"{path}/{step}")
        for (first, path), steps in zip(folders.items(), found, strict=True)
        for step in steps or ()
        if decode(step).startswith(rest)
    ]


def _read(
    channel: Channel, kind: str, wanted: list[tuple[str, str]], deadline: float
) -> list[Record]:
    wanted = sorted(wanted)
    nodes = channel.get([path for _, path in wanted], deadline) if wanted else []
    records = []
    for (name, _), node in zip(wanted, nodes, strict=True):
        record = None if node is None else _record(kind, name, node)
        if record is not None:
            records.append(record)
    return records


def _record(kind: str, name: str, node: Node) -> Record | None:
    found = read_record(node.data)
    if found is None:
        return None
    return Record(kind=kind, name=name, body=found[1], session=node.owner)
