"""What an operator does with what is registered: take instances out of service and back, remove
what is left over, and wait until an instance has nothing to do any more.

Keys of the store that live here: records `override` named `<service>/<id>`. They are persistent,
and outside of the generations: no rollback brings an instance back that was taken away by hand.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from fan.consumer import SUBSCRIBERS, registered
from fan.context import new_id
from fan.errors import FailedPrecondition, FanError, NotFound, Unavailable
from fan.hosting import instance_of
from fan.model import (
    Address,
    Consumer,
    Instance,
    Interface,
    Override,
    Route,
    ServiceInfo,
    State,
)
from fan.picker import BUILT_IN
from fan.readings import (
    INSTANCE,
    INTERFACE,
    OVERRIDE,
    ROUTE,
    UNIQUE,
    by_service,
    decode_route,
    overrides_of,
    safely,
)
from fan.registration import delete_interface
from fan.shard import ShardRule
from fan.stores.base import Change, Cut, Plan, Record, Revision
from fan.stores.rules import now
from fan.writing import Write, Written, user_name, write

if TYPE_CHECKING:
    from fan.app import App
    from fan.checks import Finding

#: Seconds between two looks at what an instance still does.
_LOOK = 0.1


class Leftover(msgspec.Struct, frozen=True):
    """A record that nobody needs: `kind` is interface, override or unique, `name` its name."""

    kind: str
    name: str
    why: str


class Operations:
    """The operator's verbs for one App."""

    def __init__(self, app: App) -> None:
        self._app = app

    def __repr__(self) -> str:
        return f"<Operations of {self._app!r}>"

    # Out of service, and back

    def find(
        self, service: str, *, id: str = "", version: str = "", deadline: float | None = None
    ) -> tuple[Instance, ...]:
        """The instance of that id, or all of a version (exact, or a prefix: the highest that has
        any). Raises NotFound (no_such_service, no_such_instance) and FailedPrecondition
        (version_missing)."""
        info = self._app.discovery.service(service, deadline)
        if id:
            found = tuple(i for i in info.instances if i.id == id)
            if not found:
                raise _no_such_instance(info, id)
            return found
        from fan.versions import best

        wanted = best(version, {i.version for i in info.instances})
        if wanted is None:
            raise NotFound(
                f"{service} has no instance of version {version}", reason="no_such_instance"
            )
        return tuple(i for i in info.instances if i.version == wanted)

    def override(
        self,
        instances: Iterable[Instance],
        state: Literal["draining", "down"],
        *,
        until: float | None = None,
        why: str = "",
        deadline: float | None = None,
    ) -> tuple[Instance, ...]:
        """Have these instances get no new calls, until that is taken back or the epoch seconds
        `until`. What they were sent before is answered. Returns those that this changed."""
        deadline = self._deadline(deadline)
        new = Override(state=state, until=until, who=user_name(), why=why)
        changed = []
        for instance in instances:
            name = f"{instance.service}/{instance.id}"
            found = self._app.store.list(OVERRIDE, name, deadline=deadline)
            old = overrides_of(r for r in found if r.name == name).get(instance.id)
            if old is not None and (old.state, old.until, old.why) == (state, until, why):
                continue
            body = msgspec.json.encode(new)
            self._app.store.put(OVERRIDE, name, body, deadline=deadline)
            changed.append(instance)
        return tuple(changed)

    def lift(
        self, instances: Iterable[Instance], *, deadline: float | None = None
    ) -> tuple[Instance, ...]:
        """Take back what was said of these instances: their own word counts again. Returns those
        that this changed."""
        deadline = self._deadline(deadline)
        return tuple(
            i
            for i in instances
            if self._app.store.delete(OVERRIDE, f"{i.service}/{i.id}", deadline=deadline)
        )

    def wait_idle(self, instances: Sequence[Instance], timeout: float) -> list[Instance]:
        """Wait until these instances handle no call and none comes any more, at most `timeout`
        seconds; one that is gone is idle. Returns those that are not. Raises what an instance
        answers that does not tell (a foreign one)."""
        end = time.monotonic() + timeout
        before: dict[str, Any] = {}
        busy = list(instances)
        while busy:
            busy = [i for i in busy if not self._is_idle(i, before, end)]
            if not busy or time.monotonic() >= end:
                break
            time.sleep(min(_LOOK, max(0.0, end - time.monotonic())))
        return busy

    def _is_idle(self, instance: Instance, before: dict[str, Any], end: float) -> bool:
        """Whether an instance has nothing to do, and had no other call since the look before: one
        who has not heard yet may still send it some."""
        left = max(_LOOK, end - time.monotonic())
        client = self._app.using(instance=instance.id, timeout=min(left, 2.0), retries=0)
        try:
            self.find(instance.service, id=instance.id)
            stats = client.call(f"{instance.service}.stats")
        except FanError as exc:
            if exc.reason in ("no_such_instance", "no_such_service"):
                return True
            if exc.reason == "unknown_method":
                raise FailedPrecondition(
                    f"{instance.id} does not tell what it still handles: {instance.service} is no"
                    " service of fan",
                    reason="not_told",
                ) from exc
            if exc.reason == "no_instance":
                raise
            if isinstance(exc, Unavailable) or exc.code == "deadline_exceeded":
                return False  # busy, or about to go
            raise
        calls = {
            name: row["calls"] for name, row in stats["methods"].items() if name not in BUILT_IN
        }
        is_idle = stats["in_flight"] <= 1 and before.get(instance.id) == calls
        before[instance.id] = calls
        return is_idle

    # Coming and leaving

    def register(
        self,
        interface: Interface,
        urls: Sequence[str],
        *,
        id: str = "",
        lease: bool = False,
        state: State = "up",
        tags: Sequence[str] = (),
        meta: Mapping[str, str] | None = None,
        deadline: float | None = None,
    ) -> Instance:
        """Register an instance that runs elsewhere, at the addresses `urls`, and give its service a
        route if it has none. With `lease` it is gone when this App is; without, it stays until
        `deregister`. An interface without methods leaves one that is there alone. Raises
        AlreadyExists (duplicate_id), and InvalidArgument (bad_address) for what is no address."""
        deadline = self._deadline(deadline)
        for url in urls:
            self._app.transport(url.partition(":")[0])
        instance = Instance(
            id=id or instance_of(interface.service),
            service=interface.service,
            version=interface.version,
            addresses=tuple(Address(url) for url in urls),
            state=state,
            meta={**(meta or {}), "foreign": "true"},
            tags=tuple(tags),
            nonce=new_id(),
            iface=interface.hash,
            pid=os.getpid() if lease else 0,
            host=os.uname().nodename,
            started_at=now(),
        )
        self._app.discovery.register(
            instance, interface, is_lasting=not lease, deadline=deadline
        )
        self._app.discovery.adopt(
            interface.service,
            interface.version,
            who=user_name(),
            host=os.uname().nodename,
            deadline=deadline,
        )
        return instance

    def deregister(self, service: str, id: str, *, deadline: float | None = None) -> bool:
        """Remove an instance, and what an operator said of it: one that was registered for good, or
        one that does not answer any more. A live one of ours registers itself again at its next
        change; `override` keeps calls away from it. Raises NotFound (no_such_instance)."""
        deadline = self._deadline(deadline)
        store, name = self._app.store, f"{service}/{id}"
        instance = self.find(service, id=id, deadline=deadline)[0]
        is_gone = store.delete(INSTANCE, name, deadline=deadline)
        store.delete(OVERRIDE, name, deadline=deadline)
        claim = f"{service}/{instance.version}"
        for record in store.list(UNIQUE, claim, deadline=deadline):
            if record.name == claim and record.body == id.encode():
                store.delete(UNIQUE, claim, deadline=deadline)
        return is_gone

    def leftovers(self, deadline: float | None = None) -> list[Leftover]:
        """The records that nobody needs: overrides and claims of instances that are gone, overrides
        that are over, interfaces of versions without an instance and a weight."""
        deadline = self._deadline(deadline)
        store = self._app.store
        cut = store.read(prefix=ROUTE, deadline=deadline)
        # Before the instances: who registers meanwhile is seen.
        claims = store.list(UNIQUE, deadline=deadline)
        overrides = store.list(OVERRIDE, deadline=deadline)
        interfaces = store.list(INTERFACE, deadline=deadline)
        instances = {
            info.name: info.instances for info in self._app.discovery.services(deadline)
        }
        found = list(_dead_overrides(overrides, instances))
        found += _dead_claims(claims, instances)
        routes = {
            name.removeprefix(ROUTE): self._versions(revision, deadline)
            for name, revision in cut.objects.items()
        }
        return found + list(_dead_interfaces(interfaces, instances, routes))

    def _versions(self, pinned: Revision, deadline: float) -> set[str]:
        """The versions that a route names, and those that the next rollback would return to."""
        bodies = [pinned.body]
        if pinned.parent:
            with contextlib.suppress(NotFound):  # trimmed: no rollback goes there
                before = self._app.store.revision(pinned.object, pinned.parent, deadline=deadline)
                bodies.append(before.body)
        routes = [safely(decode_route, body) or Route() for body in bodies if body]
        weights = [w for route in routes for w in (route.versions, *route.overrides.values())]
        return {version for each in weights for version in each}

    def remove(self, leftovers: Iterable[Leftover], deadline: float | None = None) -> None:
        """Remove records of `leftovers`."""
        deadline = self._deadline(deadline)
        kinds = {"override": OVERRIDE, "unique": UNIQUE}
        for each in leftovers:
            if each.kind == "interface":
                delete_interface(self._app.store, each.name, deadline)
            else:
                self._app.store.delete(kinds[each.kind], each.name, deadline=deadline)

    # Shards

    def reshard(
        self,
        service: str,
        rule: ShardRule | None,
        how: Write | None = None,
        *,
        deadline: float | None = None,
    ) -> Written:
        """Have the keys of a service spread by another rule, or None by none: one generation, which
        can be rolled back. Raises FailedPrecondition (unrouted) for a service without a route."""
        if rule is not None:
            rule.check()
        body = msgspec.to_builtins(rule) if rule is not None else {}
        object = ROUTE + service

        def plan(cut: Cut) -> Plan:
            pinned = cut.objects.get(object)
            route = safely(decode_route, (pinned and pinned.body) or b"")
            if pinned is None or route is None:
                raise FailedPrecondition(
                    f"{service} has no route that could say how it is sharded", reason="unrouted"
                )
            new = msgspec.json.encode(msgspec.structs.replace(route, shard=body))
            change = Change(object=object, body=new, from_rev=pinned.rev)
            return Plan(changes=(change,), verb="reshard")

        deadline = self._deadline(deadline)
        self._app.discovery.service(service, deadline)  # or it is not known
        return write(
            self._app.store, plan, how or Write(), objects=(object,), deadline=deadline,
            tries_again=True,
        )  # fmt: skip

    # What is wrong

    def check(self, service: str = "", deadline: float | None = None) -> list[Finding]:
        """What is wrong with what is registered, or with one service of it."""
        from fan.checks import findings

        return findings(self._app.discovery, self._app.store, service, self._deadline(deadline))

    # Who is there

    def subscribers(self, deadline: float | None = None) -> list[Consumer]:
        """Every App that follows the registry, with the generation that it has in force."""
        records = self._app.store.list(SUBSCRIBERS, deadline=self._deadline(deadline))
        return [found for r in records if (found := registered(r)) is not None]

    def _deadline(self, deadline: float | None) -> float:
        timeout = self._app.settings.timeout
        return time.monotonic() + timeout if deadline is None else deadline


def _no_such_instance(info: ServiceInfo, id: str) -> NotFound:
    from difflib import get_close_matches

    return NotFound(
        f"{info.name} has no instance {id}",
        reason="no_such_instance",
        details={"similar": get_close_matches(id, [i.id for i in info.instances])},
    )


def _dead_overrides(
    records: Iterable[Record], instances: dict[str, tuple[Instance, ...]]
) -> Iterator[Leftover]:
    for service, found in by_service(records).items():
        ids = {i.id for i in instances.get(service, ())}
        in_force = overrides_of(found)
        for record in found:
            id = record.name.rpartition("/")[2]
            if id not in ids:
                yield Leftover("override", record.name, "the instance is gone")
            elif id not in in_force:
                yield Leftover("override", record.name, "it is over")


def _dead_claims(
    records: Iterable[Record], instances: dict[str, tuple[Instance, ...]]
) -> Iterator[Leftover]:
    for record in records:
        service = record.name.rpartition("/")[0]
        ids = {i.id.encode() for i in instances.get(service, ())}
        if not record.session and record.body not in ids:
            yield Leftover("unique", record.name, "the instance is gone")


def _dead_interfaces(
    records: Iterable[Record],
    instances: dict[str, tuple[Instance, ...]],
    routes: dict[str, set[str]],
) -> Iterator[Leftover]:
    for record in records:
        service, _, version = record.name.rpartition("/")
        live = {i.version for i in instances.get(service, ())}
        if version not in live and version not in routes.get(service, ()):
            yield Leftover("interface", record.name, "no instance, and no part of the route")
