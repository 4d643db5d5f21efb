"""The queues in a Redis, for who looks after them."""

from __future__ import annotations

import builtins
import datetime as dt
import re
import time
from collections.abc import Sequence

from fan.errors import NotFound
from fan.model import Letter, Queue, QueueName
from fan.transports.base import Queues, queue_in_use
from fan.transports.redis_fields import (
    AT,
    DELIVERIES,
    ERROR,
    Fields,
    decode_anything,
    fields_of,
)
from fan.transports.redis_keys import PRIVATE, Keys, Source
from fan.transports.redis_pipe import Pipe
from fan.transports.redis_scripts_care import DELETE, PURGE, REQUEUE, STATE, WAITING

#: Entries that one step looks at or throws away.
STEP = 1000
_is_number = re.compile(r"\d{1,20}-\d{1,20}").fullmatch


class RedisQueues(Queues):
    """Looks through the same keys that the workers use."""

    def __init__(self, pipe: Pipe, keys: Keys) -> None:
        self._pipe = pipe
        self._keys = keys

    def __repr__(self) -> str:
        return f"<RedisQueues {self._pipe.place.url}>"

    def list(self, names: Sequence[QueueName], *, deadline: float) -> list[Queue]:
        wanted = {*names, *self._known(deadline)}
        found = (self._state(name, deadline) for name in wanted)
        return sorted((q for q in found if q is not None), key=lambda queue: str(queue.name))

    def letters(
        self, name: QueueName, *, dead: bool = False, limit: int = 100, deadline: float
    ) -> builtins.list[Letter]:
        source = self._existing(name, deadline)
        if dead:
            command = ("XRANGE", source.dead, "-", "+", "COUNT", limit)
            (entries,) = self._pipe.ask(command, deadline=deadline) if source.dead else ([],)
            return [_letter(name, number, flat, 0) for number, flat in entries]
        keys, args = (source.stream, source.later), (source.group, limit)
        found = self._pipe.ask_script(WAITING, keys, args, deadline=deadline)
        return [_letter(name, *entry) for entry in found]

    def requeue(self, name: QueueName, numbers: Sequence[str] = (), *, deadline: float) -> int:
        source = self._existing(name, deadline)
        if not source.dead:
            return 0
        if numbers:
            return sum(
                self._requeue(source, number.encode(), deadline)
                for number in numbers
                if _is_number(number)
            )
        # Up to the last one of now: what fails again meanwhile is not put back twice.
        command = ("XREVRANGE", source.dead, "+", "-", "COUNT", 1)
        (newest,) = self._pipe.ask(command, deadline=deadline)
        count, since = 0, b"-"
        while newest:
            step = ("XRANGE", source.dead, since, newest[0][0], "COUNT", STEP)
            (entries,) = self._pipe.ask(step, deadline=deadline)
            if not entries:
                break
            count += sum(self._requeue(source, entry[0], deadline) for entry in entries)
            since = b"(" + entries[-1][0]
        return count

    def purge(self, name: QueueName, *, dead: bool = False, deadline: float) -> int:
        source = self._existing(name, deadline)
        if dead:
            return self._purge_dead(source, deadline)
        count, keys = 0, (source.stream, source.later)
        args = (source.group, int(source.is_deleted), STEP)
        while more := self._pipe.ask_script(PURGE, keys, args, deadline=deadline):
            count += more
        return count

    def delete(self, name: QueueName, *, deadline: float) -> int:
        source = self._existing(name, deadline)
        keys = (source.stream, source.later, source.hand, source.dead or source.later)
        args = (source.group, source.at, int(source.is_deleted))
        consumers, gone = self._pipe.ask_script(DELETE, keys, args, deadline=deadline)
        if consumers:
            raise queue_in_use(name, self._pipe.place.url, consumers)
        return int(gone)

    def _known(self, deadline: float) -> set[QueueName]:
        """The queues that there are, from the names of keys."""
        names, cursor = set[QueueName](), b"0"
        pattern = self._keys.prefix + "*"
        while True:
            command = ("SCAN", cursor, "MATCH", pattern, "COUNT", STEP, "TYPE", "stream")
            ((cursor, keys),) = self._pipe.ask(command, deadline=deadline)
            for key in keys:
                text = key.decode("utf-8", "replace")
                name = self._keys.name_of(text)
                if name is not None:
                    names.add(name)
                elif (topic := self._keys.topic_of(text)) is not None:
                    names |= self._groups(topic, deadline)
            if cursor == b"0":
                return names

    def _groups(self, topic: str, deadline: float) -> set[QueueName]:
        command = ("XINFO", "GROUPS", self._keys.topic(topic))
        (found,) = self._pipe.ask(command, deadline=deadline, allowed=("ERR", "NOGROUP"))
        names = set()
        for row in found if isinstance(found, builtins.list) else ():
            group = row[row.index(b"name") + 1].decode("utf-8", "replace")
            if not group.startswith(PRIVATE):
                names.add(QueueName(topic=topic, group=group))
        return names

    def _existing(self, name: QueueName, deadline: float) -> Source:
        if self._state(name, deadline) is None:
            raise NotFound(
                f"there is no queue {name} at {self._pipe.place.url}", reason="no_such_queue"
            )
        return self._keys.of(name)

    def _state(self, name: QueueName, deadline: float) -> Queue | None:
        source = self._keys.of(name)
        keys = (
            source.stream, source.later, source.hand if source.kind == "call" else "", source.dead,
        )  # fmt: skip
        args = (source.group, source.at, int(source.is_deleted))
        exists, *rest = self._pipe.ask_script(STATE, keys, args, deadline=deadline)
        if not exists:
            return None
        ready, in_flight, dead, consumers, first = rest
        oldest = max(0.0, time.time() - _seconds(first)) if first else None
        return Queue(
            name=name,
            ready=max(0, ready),
            in_flight=max(0, in_flight),
            dead=dead,
            consumers=consumers,
            oldest=oldest,
        )

    def _requeue(self, source: Source, number: bytes, deadline: float) -> int:
        more = ("for", source.group) if source.kind == "event" else ()
        args = (number, ERROR, DELIVERIES, AT, "for", "", *more)
        keys = (source.dead, source.stream)
        done: int = self._pipe.ask_script(REQUEUE, keys, args, deadline=deadline)
        return done

    def _purge_dead(self, source: Source, deadline: float) -> int:
        if not source.dead:
            return 0
        count, _ = self._pipe.ask(("XLEN", source.dead), ("UNLINK", source.dead), deadline=deadline)
        return int(count)


def _letter(name: QueueName, number: bytes, flat: builtins.list[bytes], deliveries: int) -> Letter:
    fields = fields_of(flat)
    text = number.decode()
    began = fields.get(AT, b"")
    at = int(began) / 1000 if began.isdigit() else _seconds(number)
    counted = fields.get(DELIVERIES, b"")
    return Letter(
        number=text,
        request=decode_anything(fields, text, name.service),
        deliveries=int(counted) if counted.isdigit() else deliveries,
        at=_time_of(at),
        error=_text(fields, ERROR),
    )


def _text(fields: Fields, name: bytes) -> str:
    return fields.get(name, b"").decode("utf-8", "replace")


def _seconds(number: bytes) -> float:
    """Epoch seconds of an entry's number, which begins with them in milliseconds."""
    return int(number.partition(b"-")[0]) / 1000


def _time_of(seconds: float) -> str:
    moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
