"""Being registered: the instances that this process holds, bound to its session.
`registration_again` writes them again when the registry gave that up.

Keys of the store that live here: records `inst` named `<service>/<id>`, `iface` and `unique` named
`<service>/<version>`, `needs` named `<needed service>/<service>/<version>`; objects
`route/<service>` are written when a service is adopted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import msgspec

from fan.errors import Aborted, AlreadyExists, Unavailable
from fan.model import WHOLE, Instance, Interface, Route
from fan.readings import (
    INSTANCE,
    INTERFACE,
    NEEDS,
    ROUTE,
    UNIQUE,
    decode_interface,
    decode_route,
    safely,
)
from fan.stores.base import Change, Hint, Plan, Revision, Session, Store

#: Seconds between two looks of who stands by that nobody asked for.
IDLE = 30.0


class Registrar:
    """Registers instances."""

    def __init__(self, store: Callable[[], Store], timeout: float = 5.0) -> None:
        self._open = store
        self._timeout = timeout
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._held: dict[str, Instance] = {}
        #: The interfaces of what is held, by the name of their record.
        self._interfaces: dict[str, Interface] = {}
        #: The registry that is registered in; where it has another epoch, it was made anew.
        self._epoch = ""
        #: The routes of what is held, as they were last seen in force there.
        self._routes: dict[str, bytes] = {}
        #: Ids of what is held whose place another has taken: they are to stand by.
        self._ousted: set[str] = set()
        self._is_closed = threading.Event()
        #: Wakes who stands by.
        self._wake = threading.Event()

    def register(
        self,
        instance: Instance,
        interface: Interface,
        *,
        is_lasting: bool = False,
        deadline: float | None = None,
    ) -> None:
        """Make an instance and its interface known; one without methods leaves another alone. What
        is not `is_lasting` is gone with this process. Raises AlreadyExists (duplicate_id) for an id
        that a live instance holds."""
        deadline = self._deadline(deadline)
        store = self._open()
        key = f"{interface.service}/{interface.version}"
        if is_lasting:
            name, body = f"{instance.service}/{instance.id}", msgspec.json.encode(instance)
            store.put(INSTANCE, name, body, is_new=True, deadline=deadline)
        else:
            self._put(instance, is_new=True, deadline=deadline)
            self._held[instance.id] = instance
            self._interfaces[key] = interface
        if interface.methods or not self._has_interface(key, deadline):
            put_interface(store, interface, deadline)

    def _has_interface(self, key: str, deadline: float) -> bool:
        found = self._open().list(INTERFACE, key, deadline=deadline)
        return any(record.name == key for record in found)

    def register_when_free(self, instance: Instance, interface: Interface) -> None:
        """The same, once nobody else has the id, or the place of a `unique` service. Raises what
        keeps the registry from being read."""
        store, has_waited = self._open(), False

        def wake(hint: Hint) -> None:
            self._wake.set()

        with closing(store.watch(INSTANCE, wake)), closing(store.watch(UNIQUE, wake)):
            while True:
                self._wake.clear()
                try:
                    self.register(instance, interface)
                    return
                except AlreadyExists as exc:
                    if not has_waited:
                        _log().warning("%s stands by: %s", instance.service, exc)
                    has_waited = True
                self._wake.wait(IDLE)

    def update(self, instance: Instance, *, deadline: float | None = None) -> None:
        """Write a registered instance again, its state changed; one whose place is taken has that
        written when it comes back."""
        if instance.id in self._held:
            self._held[instance.id] = instance  # first: who registers again meanwhile writes this
        if instance.id in self._ousted:
            return  # it is written once its place is free
        self._put(instance, is_new=False, deadline=self._deadline(deadline))

    def deregister(self, instance_id: str, *, deadline: float | None = None) -> None:
        """Forget an instance of ours; an unknown id is ignored."""
        instance = self._held.pop(instance_id, None)
        if instance is not None and instance_id not in self._ousted:
            self._delete(instance, self._deadline(deadline))

    def _delete(self, instance: Instance, deadline: float) -> None:
        session = self._session
        names = {INSTANCE: f"{instance.service}/{instance.id}"}
        if is_unique(instance):
            names[UNIQUE] = f"{instance.service}/{instance.version}"
        for kind, name in names.items():
            self._open().delete(kind, name, session=session, deadline=deadline)

    def adopt(
        self,
        service: str,
        version: str,
        *,
        force: bool = False,
        who: str = "",
        host: str = "",
        deadline: float | None = None,
    ) -> bool:
        """Give an unrouted service its first route, to `version`; with `force` move an existing
        route. Returns whether it changed. A race with another first version is lost quietly."""

        def make(old: Revision | None) -> bytes | None:
            if old is not None and not force:
                return None
            # One that is damaged has nothing to keep.
            kept = safely(decode_route, old.body or b"") if old is not None else None
            route = msgspec.structs.replace(kept or Route(), versions={version: WHOLE})
            return msgspec.json.encode(route)

        plan = Plan(changes=(), verb="adopt", who=who, host=host,
                    reason=f"{service} {version} started")  # fmt: skip
        deadline = self._deadline(deadline)
        is_changed = self._write_route(service, make, plan, deadline)
        if any(held.service == service for held in self._held.values()):
            self._follow(service, deadline)
        return is_changed

    def _follow(self, service: str, deadline: float) -> None:
        """Know the route of what is held as it changes, for a registry that is made anew."""

    def _write_route(
        self,
        service: str,
        make: Callable[[Revision | None], bytes | None],
        plan: Plan,
        deadline: float,
    ) -> bool:
        """Commit what `make` has of the route that there is; None leaves that."""
        store, name = self._open(), ROUTE + service
        while True:
            pinned = store.read([name], deadline=deadline).objects.get(name)
            body = make(pinned)
            if body is None:
                return False
            change = Change(object=name, body=body, from_rev=pinned.rev if pinned else 0)
            try:
                made = store.commit(
                    msgspec.structs.replace(plan, changes=(change,)), deadline=deadline
                )
                return made.is_changed
            except Aborted:
                if time.monotonic() >= deadline:
                    raise

    def _put(self, instance: Instance, *, is_new: bool, deadline: float) -> None:
        store = self._open()
        with self._lock:
            if self._is_closed.is_set():
                raise Unavailable("this App is closed", reason="session_lost")
            if self._session is None or not self._session.is_alive:
                self._session = store.open_session(on_lost=self._on_lost, deadline=deadline)
            session = self._session
        body, name = msgspec.json.encode(instance), f"{instance.service}/{instance.id}"
        if is_unique(instance):
            self._claim(store, instance, session, is_new, deadline)
        store.put(INSTANCE, name, body, session=session, is_new=is_new, deadline=deadline)

    def _claim(
        self, store: Store, instance: Instance, session: Session, is_new: bool, deadline: float
    ) -> None:
        """Be the one live instance of a `unique` service and version, or raise AlreadyExists. An
        exclusive record decides: of two that look at the list at once, both would see nobody."""
        name, body = f"{instance.service}/{instance.version}", instance.id.encode()
        try:
            store.put(UNIQUE, name, body, session=session, is_new=is_new, deadline=deadline)
        except AlreadyExists as exc:
            records = store.list(UNIQUE, name, deadline=deadline)
            holder = next((r.body.decode() for r in records if r.name == name), "another")
            raise AlreadyExists(
                f"{instance.service} {instance.version} is unique and runs as {holder}",
                reason="duplicate_id",
            ) from exc

    def _on_lost(self) -> None:
        """The store gave our session up."""

    def leave(self) -> None:
        """End the session: what is registered is gone."""
        self._is_closed.set()
        self._wake.set()
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.close()

    def _deadline(self, deadline: float | None) -> float:
        return time.monotonic() + self._timeout if deadline is None else deadline


def put_interface(store: Store, interface: Interface, deadline: float) -> None:
    """Write an interface. Who needs whom comes first: nobody is to find the one without the
    other."""
    key = f"{interface.service}/{interface.version}"
    for needed in sorted(interface.needed):
        store.put(NEEDS, f"{needed}/{key}", b"", deadline=deadline)
    store.put(INTERFACE, key, msgspec.json.encode(interface), deadline=deadline)


def delete_interface(store: Store, key: str, deadline: float) -> None:
    """Remove the interface `<service>/<version>`, and that it needs anybody."""
    for record in store.list(INTERFACE, key, deadline=deadline):
        if record.name == key:
            store.delete(INTERFACE, key, deadline=deadline)
            interface = safely(decode_interface, record.body)
            for needed in sorted(interface.needed) if interface is not None else ():
                store.delete(NEEDS, f"{needed}/{key}", deadline=deadline)


def _log() -> Any:
    import logging

    return logging.getLogger("fan")


def is_unique(instance: Instance) -> bool:
    return instance.meta.get("unique") == "true"
