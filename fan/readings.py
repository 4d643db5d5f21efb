"""What the records and objects of the registry say of services, as values.

Keys of the store: records `inst` and `override` named `<service>/<id>`, `iface` and `unique` named
`<service>/<version>`, `needs` named `<needed service>/<service>/<version>`; objects
`route/<service>` and `config/<service>/policy`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from fan.model import Instance, Interface, Override, Route, ServiceInfo
from fan.stores.base import Cut, Record, Revision

INSTANCE = "inst"
INTERFACE = "iface"
#: Records that say, under the name of a service, who needs it: empty, the interfaces tell the rest.
NEEDS = "needs"
#: What operators say of instances.
OVERRIDE = "override"
#: Records that say which instance is the one of a `unique` service's version.
UNIQUE = "unique"
ROUTE = "route/"
#: Object of the config that says how a service is called.
POLICY = "config/{}/policy"

decode_instance = msgspec.json.Decoder(Instance).decode
decode_interface = msgspec.json.Decoder(Interface).decode
decode_override = msgspec.json.Decoder(Override).decode
decode_route = msgspec.json.Decoder(Route).decode


def by_service(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Records that are named `<service>/<something>`, by service."""
    out: dict[str, list[Record]] = {}
    for record in records:
        out.setdefault(record.name.rpartition("/")[0], []).append(record)
    return out


def info_of(
    name: str,
    cut: Cut,
    instances: Iterable[Record],
    interfaces: Iterable[Record],
    overrides: Iterable[Record] = (),
) -> ServiceInfo:
    """All that is known of one service."""
    found = (safely(decode_interface, r.body) for r in interfaces)
    said = overrides_of(overrides)
    bare = ServiceInfo(
        name=name,
        interfaces={i.version: i for i in found if i is not None},
        instances=tuple(overridden(i, said.get(i.id)) for i in instances_of(instances)),
        overrides=said,
    )
    return routed(bare, cut.objects, cut.head.gen)


def routed(info: ServiceInfo, objects: Mapping[str, Revision], gen: int) -> ServiceInfo:
    """A service with the route and the policy that it has among these objects; the same one where
    they are those it has."""
    pinned = objects.get(ROUTE + info.name)
    route = safely(decode_route, pinned.body) if pinned is not None and pinned.body else None
    said = objects.get(POLICY.format(info.name))
    policy = safely(msgspec.json.decode, said.body) if said is not None and said.body else None
    policy = policy if isinstance(policy, dict) else {}
    routed_at = pinned.pinned_at if pinned is not None else 0
    if info.gen and (route, policy, routed_at) == (info.route, info.policy, info.routed_at):
        return info
    return msgspec.structs.replace(
        info, route=route, policy=policy, gen=gen, routed_at=routed_at
    )


def instances_of(records: Iterable[Record]) -> list[Instance]:
    """The instances of records, without what somebody damaged."""
    found = (safely(decode_instance, r.body) for r in records)
    return [i for i in found if i is not None]


def overrides_of(records: Iterable[Record]) -> dict[str, Override]:
    """What operators say now, by the id of the instance; what is over does not count."""
    now = time.time()
    found = {r.name.rpartition("/")[2]: safely(decode_override, r.body) for r in records}
    return {id: o for id, o in found.items() if o is not None and (o.until or now + 1) > now}


def overridden(instance: Instance, override: Override | None) -> Instance:
    """An instance as it is to be treated: an operator's word counts above its own."""
    if override is None or override.state == instance.state:
        return instance
    return msgspec.structs.replace(instance, state=override.state)


def safely(decode: Callable[[bytes], Any], body: bytes) -> Any:
    """A body, or None for one that somebody damaged: it must not break a list."""
    try:
        return decode(body)
    except (msgspec.DecodeError, RecursionError):  # the latter of a thousand brackets
        return None
