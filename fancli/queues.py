"""What the commands about queues share: which transports have some, how they are reached, and what
a queue is called."""

from __future__ import annotations

import builtins
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from fancli.catalog import near
from fancli.mask import mask_url
from fancli.params import Usage, check_peers, check_transport

if TYPE_CHECKING:
    from fan import App, Queue, QueueName, ServiceInfo
    from fancli.options import Common

#: The setting that says where the broker of a transport is.
_SETTINGS = {"amqp": "amqp_url", "redis": "redis_url", "database": "database_url"}


class Broker(NamedTuple):
    """The queues of one transport at one address. `url` has no credentials."""

    transport: str
    url: str
    #: As `Transport.queues` gives them.
    queues: Any


class Brokers:
    """Every broker that a command looks at: the one that is named, or those that can be reached.
    One that is not named is left out when it cannot be; that is worth a word where the settings
    name it."""

    def __init__(self, common: Common, app: App, transport: str, peer: str) -> None:
        common.env.asks_broker = True
        self._common = common
        self._app = app
        self.deadline = time.monotonic() + (common.timeout or app.settings.timeout)
        self.is_named = bool(transport or peer)
        if peer:
            self._all = [self._at(peer)]
        else:
            self._all = self._of([transport] if transport else names_with("queue"))

    def list(self, names: Sequence[QueueName]) -> list[tuple[Broker, Queue]]:
        """The queues of all of them, those of `names` and the others that are known, by name.
        Raises FanError where the broker is a named one."""
        from concurrent.futures import ThreadPoolExecutor

        from fan import FanError

        found: list[tuple[Broker, Queue]] = []
        with ThreadPoolExecutor(len(self._all) or 1) as pool:
            asked = [
                (broker, pool.submit(broker.queues.list, names, deadline=self.deadline))
                for broker in self._all
            ]
            for broker, answer in asked:
                try:
                    found += [(broker, queue) for queue in answer.result()]
                except FanError as exc:
                    if self.is_named:
                        raise
                    self._left_out(broker.transport, exc)
        return sorted(found, key=lambda each: (str(each[1].name), each[0].transport))

    def holding(self, name: QueueName) -> Broker:
        """The one that has a queue. Raises NotFound (no_such_queue), and Usage where several
        have."""
        if self.is_named:
            return self._all[0]  # which says itself that it has none
        found = self.list([name])
        holders = [broker for broker, queue in found if queue.name == name]
        if not holders:
            from fan import NotFound

            known = sorted({str(queue.name) for _, queue in found})
            raise NotFound(
                f"there is no queue {name}",
                reason="no_such_queue",
                details={"similar": near(str(name), known)},
            )
        if len(holders) > 1:
            where = " and ".join(broker.transport for broker in holders)
            raise Usage(f"QUEUE {name}: there is one on {where}", f"-t {holders[0].transport}")
        return holders[0]

    def _of(self, transports: Iterable[str]) -> builtins.list[Broker]:
        from fan import FanError

        brokers = []
        for name in transports:
            try:
                transport = self._app.transport(name)
                address = transport.home()
                brokers.append(Broker(name, mask_url(address.url), transport.queues(address)))
            except FanError as exc:
                if self.is_named:
                    raise
                self._left_out(name, exc)
        return brokers

    def _at(self, peer: str) -> Broker:
        from fan import Address

        address = Address(peer)
        transport = self._app.transport_for(address)
        return Broker(transport.scheme, mask_url(peer), transport.queues(address))

    def _left_out(self, transport: str, exc: Exception) -> None:
        origins = self._common.load().origins
        said = f"{transport} is left out: {exc}"
        if origins.get(_SETTINGS.get(transport, ""), "default") != "default":
            self._common.out.warn(said)
        elif self._common.verbose:
            self._common.out.talk(f"* {said}")


def names_with(ability: str) -> list[str]:
    """The transports that can do something: queue, subscribe. One that is broken is left out."""
    from fan import FanError, plugins

    found = []
    for name in plugins.transport_names():
        with suppress(FanError):
            if ability in plugins.transport_class(name).can:
                found.append(name)
    return found


def check_queue(option: str, name: str, ability: str) -> str:
    """The name of a transport over a broker; empty for `auto`. Raises Usage for one that cannot do
    what is asked for."""
    transport = check_transport(option, name)
    if transport:
        _check_ability(f"{option} {name}", transport, ability)
    return transport


def check_broker(option: str, url: str, ability: str, vars: Mapping[str, str]) -> str:
    """The URL of a broker, empty for none, its references replaced. Raises Usage for a URL of
    something else."""
    if not url:
        return ""
    (peer,) = check_peers((url,), option, vars)
    _check_ability(f"{option} {mask_url(url)}", peer.partition(":")[0], ability)
    return peer


def check_place(
    transport: str, peer: str, ability: str, vars: Mapping[str, str]
) -> tuple[str, str]:
    """`-t` and `-p` of a command that asks one broker. Raises Usage, also for both at once."""
    name, url = check_queue("-t", transport, ability), check_broker("-p", peer, ability, vars)
    if name and url:
        raise Usage("-t and -p", "one of them")
    return name, url


def _check_ability(given: str, scheme: str, ability: str) -> None:
    from fan import plugins

    cls = plugins.transport_class(scheme)
    if ability not in cls.can:
        what = "has no queues" if ability == "queue" else "carries no events"
        raise Usage(f"{given}: {cls.scheme} {what}", f"there are {', '.join(names_with(ability))}")


def parse_queue(text: str) -> QueueName:
    """`greeter` (pushes), `greeter@1.0.0` (calls), `orders.created/shop` (events)."""
    from fan import QueueName

    try:
        return QueueName.parse(text)
    except ValueError as exc:
        raise Usage(f"QUEUE {exc}", "fan queue list") from None


def candidates(infos: Iterable[ServiceInfo]) -> list[QueueName]:
    """Every queue that what is registered may have, for brokers that tell of a queue only to who
    knows its name."""
    from fan import QueueName

    names: dict[QueueName, None] = {}
    for info in infos:
        names[QueueName(info.name)] = None
        for version, interface in info.interfaces.items():
            names[QueueName(info.name, version)] = None
            for topic, group in topics_of(interface.methods):
                if group:
                    names[QueueName(topic=topic, group=group)] = None
    return list(names)


def topics_of(methods: Iterable[Any]) -> list[tuple[str, str]]:
    """The topics that methods handle, with the group, which is empty for a broadcast."""
    pairs = (each.rpartition("/") for method in methods for each in method.topics)
    return list(dict.fromkeys((topic, group) for topic, _, group in pairs))


def queue_row(broker: Broker, queue: Queue) -> dict[str, Any]:
    """One queue."""
    return {
        "queue": str(queue.name),
        "kind": queue.name.kind,
        "transport": broker.transport,
        "address": broker.url,
        "ready": queue.ready,
        "in_flight": queue.in_flight,
        "dead": queue.dead,
        "consumers": queue.consumers,
        "oldest": None if queue.oldest is None else round(queue.oldest, 3),
    }


def age(seconds: float | None) -> str:
    """`320ms`, `12s`, `5m`, `3h`, as durations are typed."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def check_all(wanted: Iterable[QueueName], found: Collection[QueueName]) -> None:
    """Raise NotFound (no_such_queue) where one of `wanted` was not found."""
    missing = [name for name in wanted if name not in found]
    if missing:
        from fan import NotFound

        raise NotFound(f"there is no queue {missing[0]}", reason="no_such_queue")


def count_of(broker: Broker, name: QueueName, deadline: float, *, is_dead: bool) -> int:
    """How many there are to throw away. Raises NotFound (no_such_queue)."""
    found = one_queue(broker, name, deadline)
    return int(found.dead if is_dead else found.ready)


def one_queue(broker: Broker, name: QueueName, deadline: float) -> Queue:
    """How a queue stands. Raises NotFound (no_such_queue)."""
    listed: Sequence[Queue] = broker.queues.list([name], deadline=deadline)
    found = [queue for queue in listed if queue.name == name]
    check_all([name], [queue.name for queue in found])
    return found[0]


def count_dead(broker: Broker, name: QueueName, ids: tuple[str, ...], deadline: float) -> int:
    """How many of its dead letters would be put back. Raises NotFound (no_such_queue)."""
    count = count_of(broker, name, deadline, is_dead=True)
    if not ids:
        return count
    letters = broker.queues.letters(name, dead=True, limit=max(1, count), deadline=deadline)
    return len({letter.number for letter in letters} & set(ids))
