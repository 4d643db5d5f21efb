"""The names of what the redis transport keeps in Redis. They are public: the README lists them.

| key | type | what |
|---|---|---|
| `fan:rq:<service>:<version>` | stream | calls of one version |
| `fan:rq:<service>:<version>:<instance>` | stream | calls of one instance |
| `fan:rq:<service>` | stream | calls that name no version |
| `fan:pq:<service>` | stream | pushes to a service |
| `fan:ev:<topic>` | stream | events of a topic, one consumer group per group |
| `fan:rp:<caller>` | list | replies to one calling process |
| `fan:hand:<stream>` | hash | calls that were acknowledged and are being handled, and by whom |
| `fan:later:<stream>/<group>` | sorted set | messages that are delivered again, and when |
| `fan:dead:<queue>` | stream | dead letters |
| `fan:once:<key>` | string | an answer that is shared, or who is about to make it |

`<stream>` is a stream's name without `fan:`. Channels: a process subscribes to `fan:up:<consumer>`
while it lives and to `fan:at:<db>:<stream>/<group>` while it takes from a stream, so that `PUBSUB
NUMSUB` tells at once who is gone (the databases of a server share their channels). A namespace
other than `default` has `fan.<namespace>:` in the place of `fan:`.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from fan.model import QueueName

#: Consumer group of the streams that one group alone reads: calls and pushes.
GROUP = "fan"
#: Owner of what waits to be delivered again.
LATER = "~later"
#: Groups of subscribers without a group begin with it; no name of a group does.
PRIVATE = "~"

#: What may follow `fan:rp:`; a request must not make us write elsewhere.
is_caller = re.compile(r"[A-Za-z0-9._-]{1,128}").fullmatch

Kind = Literal["call", "push", "event"]


class Source(msgspec.Struct, frozen=True):
    """One stream as one consumer group reads it, and the keys beside it."""

    kind: Kind
    stream: str
    group: str
    #: Hash of the calls in hand.
    hand: str
    #: Sorted set of what is delivered again.
    later: str
    #: Channel of those who take from it.
    at: str
    #: Stream of its dead letters; empty where there are none to keep.
    dead: str = ""
    service: str = ""
    version: str = ""
    #: Of calls: the only instance that is meant.
    instance: str = ""

    @property
    def is_deleted(self) -> bool:
        """Whether an entry goes from the stream with its acknowledgement: nobody else reads it."""
        return self.kind != "event"

    @property
    def is_private(self) -> bool:
        """Whether it ends with its only consumer."""
        return self.group.startswith(PRIVATE)


class Keys:
    """The names in one namespace of one database."""

    def __init__(self, namespace: str = "default", db: int = 0) -> None:
        self._db = db
        self.prefix = "fan:" if namespace == "default" else f"fan.{namespace}:"

    def __repr__(self) -> str:
        return f"<Keys {self.prefix}>"

    def calls(self, service: str, version: str = "", instance: str = "") -> Source:
        """Where calls go: of one version, of one instance of it, or of whichever is routed."""
        name = f"rq:{service}"
        if version:
            name = f"{name}:{version}:{instance}" if instance else f"{name}:{version}"
        return self._source("call", name, GROUP, service, version, instance)

    def pushes(self, service: str) -> Source:
        """Where the pushes to a service go."""
        return self._source("push", f"pq:{service}", GROUP, service, dead=service)

    def events(self, topic: str, group: str) -> Source:
        """A topic as a group hears it."""
        dead = "" if group.startswith(PRIVATE) else f"{topic}/{group}"
        return self._source("event", f"ev:{topic}", group, dead=dead)

    def of(self, name: QueueName) -> Source:
        """What a queue's name means here."""
        if name.kind == "event":
            return self.events(name.topic, name.group)
        return self.calls(name.service, name.version) if name.version else self.pushes(name.service)

    def topic(self, topic: str) -> str:
        """The stream of a topic."""
        return f"{self.prefix}ev:{topic}"

    def topic_of(self, key: str) -> str | None:
        """The topic of a stream, None where it is that of something else."""
        name = key.removeprefix(f"{self.prefix}ev:")
        return name if name != key else None

    def replies(self, caller: str) -> str:
        """The list that a calling process reads."""
        return f"{self.prefix}rp:{caller}"

    def up(self, consumer: str = "") -> str:
        """The channel of a consumer that lives."""
        return f"{self.prefix}up:{consumer}"

    def once(self, key: str) -> str:
        """An answer of the ledger."""
        return f"{self.prefix}once:{key}"

    def name_of(self, key: str) -> QueueName | None:
        """The queue that a stream belongs to, or its dead letters; None for what is no queue, and
        for a topic, which has one per group."""
        kind, _, rest = key.removeprefix(self.prefix).partition(":")
        try:
            if kind == "dead":
                return QueueName.parse(rest)
            if kind == "pq":
                return QueueName(rest)
        except ValueError:
            return None
        parts = rest.split(":")
        return QueueName(*parts) if kind == "rq" and len(parts) == 2 else None

    def _source(
        self,
        kind: Kind,
        name: str,
        group: str,
        service: str = "",
        version: str = "",
        instance: str = "",
        dead: str = "",
    ) -> Source:
        prefix = self.prefix
        return Source(
            kind=kind,
            stream=f"{prefix}{name}",
            group=group,
            hand=f"{prefix}hand:{name}",
            later=f"{prefix}later:{name}/{group}",
            at=f"{prefix}at:{self._db}:{name}/{group}",
            dead=f"{prefix}dead:{dead}" if dead else "",
            service=service,
            version=version,
            instance=instance,
        )
