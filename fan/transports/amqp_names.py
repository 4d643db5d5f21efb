"""The exchanges and queues of fan on a broker: their names, and how they are made."""

from __future__ import annotations

from typing import Any

import msgspec

from fan.model import QueueName

#: Durable, direct. Calls go by `SERVICE@VERSION` (`SERVICE@` for whichever version is routed),
#: pushes by `SERVICE`.
RPC = "fan.rpc"
#: Durable, direct; events go by their topic.
EVENTS = "fan.events"
#: Durable, direct: what is dead goes by the name of the queue of the dead.
DEAD = "fan.dead"
#: Holds calls that nobody took in time, until a reaper told their callers.
DEAD_CALLS = "fan.dead.calls"

#: Milliseconds after which a dead call interests nobody.
_DEAD_CALL_TTL = 60_000


class Spec(msgspec.Struct, frozen=True):
    """One queue: how it is declared, and by what its exchange finds it."""

    name: str
    exchange: str = ""
    keys: tuple[str, ...] = ()
    arguments: tuple[tuple[str, Any], ...] = ()
    is_exclusive: bool = False
    is_auto_delete: bool = False
    #: The queue of its dead, to be made with it.
    dead: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """What `queue_declare` takes."""
        return {
            "durable": not self.is_exclusive,
            "exclusive": self.is_exclusive,
            "auto_delete": self.is_auto_delete,
            "arguments": dict(self.arguments),
        }


def call_key(service: str, version: str) -> str:
    """The routing key of a version's calls; without a version, that of the routed one's."""
    return f"{service}@{version.removeprefix('==').strip()}"


def instance_queue(instance: str) -> str:
    """The queue of one instance's own calls, reached by its name."""
    return f"fan.instance.{instance}"


def calls(service: str, version: str) -> Spec:
    """The queue of a version's calls. It is there as long as somebody consumes it, so that a call
    to nobody is known to be one."""
    key = call_key(service, version)
    return Spec(f"fan.call.{key}", RPC, (key,), _REAPED, is_auto_delete=True)


def own_calls(instance: str) -> Spec:
    """The queue of one instance."""
    return Spec(instance_queue(instance), arguments=_REAPED, is_exclusive=True)


def questions(keys: tuple[str, ...], id: str) -> Spec:
    """The queue of what is asked of those who take the calls of these keys."""
    asked = tuple(ask_key(key) for key in keys)
    return Spec(f"fan.ask.{id}", RPC, asked, is_exclusive=True, is_auto_delete=True)


def ask_key(key: str) -> str:
    """The routing key of questions to all who take the calls of a key."""
    return f"?{key}"


_REAPED = (("x-dead-letter-exchange", DEAD), ("x-dead-letter-routing-key", DEAD_CALLS))


def pushes(service: str, deliveries: int) -> Spec:
    """The queue of a service's pushes."""
    name = f"fan.push.{service}"
    return Spec(name, RPC, (service,), _lasting(name, deliveries), dead=dead_queue(name))


def events(topic: str, group: str, deliveries: int) -> Spec:
    """The queue of a group's events of one topic."""
    name = f"fan.event.{topic}/{group}"
    return Spec(name, EVENTS, (topic,), _lasting(name, deliveries), dead=dead_queue(name))


def broadcast(topic: str, id: str) -> Spec:
    """The queue of one subscriber without a group; it goes with its connection."""
    return Spec(f"fan.listen.{id}", EVENTS, (topic,), is_exclusive=True, is_auto_delete=True)


def dead_queue(name: str) -> str:
    """The queue of the dead letters of a queue."""
    return f"fan.dead.{name.removeprefix('fan.')}"


def _lasting(name: str, deliveries: int) -> tuple[tuple[str, Any], ...]:
    return (
        ("x-queue-type", "quorum"),
        # It counts the times a message came back; the first delivery is none.
        ("x-delivery-limit", max(0, deliveries - 1)),
        ("x-dead-letter-exchange", DEAD),
        ("x-dead-letter-routing-key", dead_queue(name)),
        # What dies is in the other queue before it leaves this one.
        ("x-dead-letter-strategy", "at-least-once"),
        ("x-overflow", "reject-publish"),
    )


def dead_calls() -> Spec:
    """The queue of dead calls."""
    return Spec(DEAD_CALLS, DEAD, (DEAD_CALLS,), (("x-message-ttl", _DEAD_CALL_TTL),))


def spec_of(name: QueueName, deliveries: int) -> Spec:
    """The queue of a name."""
    if name.kind == "call":
        return calls(name.service, name.version)
    if name.kind == "push":
        return pushes(name.service, deliveries)
    return events(name.topic, name.group, deliveries)
