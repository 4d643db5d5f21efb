"""The queues of a broker, for who looks after them; over plain AMQP, without its plugins."""

from __future__ import annotations

import builtins
import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from fan.errors import FanError, NotFound
from fan.message import JSON, Request
from fan.model import Letter, Queue, QueueName
from fan.transports.amqp_broker import Broker
from fan.transports.amqp_failures import NOT_FOUND, Refused
from fan.transports.amqp_names import Spec, spec_of
from fan.transports.amqp_reaper import cause_of_death
from fan.transports.amqp_steps import Desk, Steps, make
from fan.transports.amqp_wire import (
    AT,
    DELIVERIES,
    ERROR,
    RETURNED,
    copy_of,
    number,
    request_of,
    text_headers,
)
from fan.transports.base import Queues, queue_in_use

#: Why RabbitMQ says a message is dead, as fan says it.
_DEATHS = {
    "expired": "deadline_exceeded/expired_in_queue: its ttl was over",
    "delivery_limit": "unavailable/connection_lost: it came back from too many workers",
    "maxlen": "resource_exhausted/quota: its queue was full",
    "rejected": "invalid_argument/malformed: it was refused",
}


class BrokerQueues(Queues):
    """RabbitMQ tells of a queue only to who knows its name, so `list` finds no others. It gives a
    message only to who takes it: what `letters` looked at in a queue of the living stands at the
    queue's end afterwards, in the same order."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._user = broker.link.place.user

    def __repr__(self) -> str:
        return f"<BrokerQueues {self._broker.link.url}>"

    def list(self, names: Sequence[QueueName], *, deadline: float) -> builtins.list[Queue]:
        return self._broker.perform(partial(self._list, names=names), deadline)  # type: ignore[no-any-return]

    def letters(
        self, name: QueueName, *, dead: bool = False, limit: int = 100, deadline: float
    ) -> builtins.list[Letter]:
        return self._perform(partial(self._letters, dead=dead, limit=limit), name, deadline)  # type: ignore[no-any-return]

    def requeue(self, name: QueueName, numbers: Sequence[str] = (), *, deadline: float) -> int:
        return self._perform(partial(self._requeue, numbers=frozenset(numbers)), name, deadline)  # type: ignore[no-any-return]

    def purge(self, name: QueueName, *, dead: bool = False, deadline: float) -> int:
        return self._perform(partial(self._purge, dead=dead), name, deadline)  # type: ignore[no-any-return]

    def delete(self, name: QueueName, *, deadline: float) -> int:
        return self._perform(partial(self._delete, name=name), name, deadline)  # type: ignore[no-any-return]

    def _perform(self, steps: Callable[..., Steps], name: QueueName, deadline: float) -> Any:
        spec = spec_of(name, self._broker.deliveries)
        try:
            return self._broker.perform(lambda desk: steps(desk, spec), deadline)
        except FanError as exc:
            cause = exc.__cause__
            if isinstance(cause, Refused) and cause.code == NOT_FOUND:
                raise NotFound(
                    f"there is no queue {name} at {self._broker.link.url}", reason="no_such_queue"
                ) from None
            raise

    def _list(self, desk: Desk, names: Sequence[QueueName]) -> Steps:
        found = []
        for name in names:
            spec = spec_of(name, self._broker.deliveries)
            counted = yield from _count(desk, spec.name)
            if counted is None:
                continue
            dead = (yield from _count(desk, spec.dead)) if spec.dead else None
            found.append(
                Queue(
                    name=name,
                    ready=counted.message_count,
                    dead=dead.message_count if dead is not None else 0,
                    consumers=counted.consumer_count,
                )
            )
        return sorted(found, key=lambda queue: str(queue.name))

    def _letters(self, desk: Desk, spec: Spec, *, dead: bool, limit: int) -> Steps:
        yield desk.count(spec.name)
        if dead:
            return (yield from self._dead_letters(desk, spec, limit))
        found: builtins.list[Letter] = []
        counted = yield desk.count(spec.name)
        for _ in range(min(limit, counted.method.message_count)):
            got = yield desk.get(spec.name)
            if got is None:
                break
            method, properties, body = got
            found.append(letter_of(properties, body))
            # Given back, it would count as delivered: once more for its limit, or as a call that
            # may have run. So a copy goes to the end, and then it leaves.
            yield desk.publish("", spec.name, self._unread(properties), body)
            yield desk.ack(method.delivery_tag)
        return found

    def _unread(self, properties: Any) -> Any:
        headers = dict(properties.headers or {})
        deliveries = number(properties, DELIVERIES) + number(properties, RETURNED)
        headers.pop(RETURNED, None)
        if deliveries:
            headers[DELIVERIES] = str(deliveries)
        return copy_of(properties, self._user, headers=headers)

    def _dead_letters(self, desk: Desk, spec: Spec, limit: int) -> Steps:
        found: builtins.list[Letter] = []
        last = 0
        while spec.dead and len(found) < limit:
            got = yield desk.get(spec.dead)
            if got is None:
                break
            method, properties, body = got
            last = method.delivery_tag
            found.append(letter_of(properties, body))
        if last:
            yield desk.give_back(last, many=True)
        return found

    def _requeue(self, desk: Desk, spec: Spec, *, numbers: frozenset[str]) -> Steps:
        yield desk.count(spec.name)
        if not spec.dead:
            return 0
        yield from make(desk, spec)
        moved = 0
        counted = yield desk.count(spec.dead)
        for _ in range(counted.method.message_count):
            got = yield desk.get(spec.dead)
            if got is None:
                break
            method, properties, body = got
            if numbers and number_of(properties, body) not in numbers:
                continue  # it stays in hand, and goes back when the channel closes
            if (yield desk.publish("", spec.name, self._anew(properties), body)):
                yield desk.ack(method.delivery_tag)
                moved += 1
        return moved

    def _anew(self, properties: Any) -> Any:
        """The properties of a message that was never delivered."""
        gone = (DELIVERIES, RETURNED, ERROR, "x-death")
        headers = {
            name: value
            for name, value in (properties.headers or {}).items()
            if name not in gone and not name.startswith(("x-first-death-", "x-last-death-"))
        }
        headers[AT] = str(int(datetime.now(UTC).timestamp() * 1000))
        ttl = number(properties, "fan-ttl-ms")
        return copy_of(
            properties, self._user, headers=headers, expiration=str(ttl) if ttl else None
        )

    def _purge(self, desk: Desk, spec: Spec, *, dead: bool) -> Steps:
        yield desk.count(spec.name)
        name = spec.dead if dead else spec.name
        if not name:
            return 0
        purged = yield desk.purge(name)
        return purged.method.message_count

    def _delete(self, desk: Desk, spec: Spec, *, name: QueueName) -> Steps:
        counted = yield desk.count(spec.name)
        consumers = counted.method.consumer_count
        if consumers:  # RabbitMQ itself asks that of no quorum queue ("if-unused")
            raise queue_in_use(name, self._broker.link.url, consumers)
        # The dead first: where this ends in the middle, the queue is there to be deleted again.
        gone = 0
        for queue in (spec.dead, spec.name):
            if queue:
                deleted = yield desk.delete(queue)
                gone += deleted.method.message_count
        return gone


def _count(desk: Desk, name: str) -> Steps:
    try:
        counted = yield desk.count(name)
    except Refused as exc:
        if exc.code != NOT_FOUND:
            raise
        return None
    return counted.method


def number_of(properties: Any, body: bytes) -> str:
    """The name of a message for who looks at it: its id, or a sum over one that has none."""
    return properties.message_id or f"crc-{zlib.crc32(body):08x}"


def letter_of(properties: Any, body: bytes) -> Letter:
    """A message, for who looks at it; of one that is no request, what there is."""
    try:
        request = request_of(properties, body)
    except FanError:
        request = Request(
            id=properties.message_id or "", service="", method="", timeout_ms=0, kind="push",
            content_type=properties.content_type or JSON, body=body,
        )  # fmt: skip
    at = number(properties, AT)
    error = dict(text_headers(properties.headers)).get(ERROR, "")
    return Letter(
        number=number_of(properties, body),
        request=request,
        deliveries=number(properties, DELIVERIES) + number(properties, RETURNED),
        at=_moment(at) if at else "",
        error=error or _DEATHS.get(cause_of_death(properties.headers), ""),
    )


def _moment(ms: int) -> str:
    try:
        moment = datetime.fromtimestamp(ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return ""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
