"""Being registered again, after the registry gave our session up or was made anew."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec

from fan.errors import AlreadyExists, FanError, PermissionDenied
from fan.model import WHOLE, Instance, Route
from fan.readings import INSTANCE, UNIQUE, decode_instance, safely
from fan.registration import Registrar, is_unique, put_interface
from fan.stores.base import Plan, Revision, Store

#: Seconds between two tries while the registry is down, or another has the place, at most.
_LONGEST_WAIT = 5.0


class KeptRegistered(Registrar):
    """Registers instances, and keeps them registered.

    Where another took the place of one meanwhile (its id, or that of a `unique` service),
    `on_place` is told: it has to rest until `on_place` says that its place is its own again."""

    def __init__(self, store: Callable[[], Store], timeout: float = 5.0) -> None:
        super().__init__(store, timeout)
        #: Told from a thread of ours that may wait: an instance, and whether it has its place.
        self.on_place: Callable[[Instance, bool], None] | None = None
        #: Held by who registers again.
        self._again = threading.Lock()
        #: Ids of what has to be written again.
        self._unwritten: set[str] = set()
        #: Whether each of those that `on_place` is told of has its place.
        self._places: dict[str, bool] = {}
        #: What was logged of each that could not be written: a reason is told once.
        self._told: dict[str, str] = {}
        self._trying = threading.Lock()
        self._is_trying = self._is_due = False

    def _on_lost(self) -> None:
        """The store gave our session up: register again, with the latest data. The calling
        thread is the store's and must go on: what does not work at once is tried by a thread of our
        own."""
        self._unwritten.update(list(self._held))
        if not self._register_again():
            self._try_on()

    def _begin_again(self) -> None:
        """Register again, in a thread of our own."""
        self._unwritten.update(list(self._held))
        self._try_on()

    def _try_on(self) -> None:
        with self._trying:
            self._is_due = True
            if self._is_trying:
                return
            thread = threading.Thread(target=self._keep_trying, name="fan-register", daemon=True)
            thread.start()
            self._is_trying = True

    def _keep_trying(self) -> None:
        wait = 0.1
        while True:
            self._tell_places()
            if self._is_closed.wait(wait):
                return
            with self._trying:
                self._is_due = False
            is_done = self._register_again()
            with self._trying:
                if is_done and not self._is_due and not self._places:
                    self._is_trying = False
                    return
            wait = min(wait * 2, _LONGEST_WAIT)

    def _tell_places(self) -> None:
        while self._places:
            instance_id, has_place = self._places.popitem()
            instance = self._held.get(instance_id)
            if instance is None or self.on_place is None:
                continue
            try:
                self.on_place(instance, has_place)
            except Exception:
                _log().exception("could not have %s rest", instance_id)

    def _register_again(self) -> bool:
        """Whether all that we hold could be written again."""
        with self._again:
            for instance_id in list(self._unwritten):
                # First: it is put back where it fails, or where the session is lost once more.
                self._unwritten.discard(instance_id)
                try:
                    self._put_again(instance_id)
                except FanError as exc:
                    self._unwritten.add(instance_id)
                    self._note_failure(instance_id, exc)
                else:
                    self._note_success(instance_id)
            if not self._is_restored():
                # A registry that is being made anew may have lost what was written a moment ago.
                self._unwritten.update(list(self._held))
            return not self._unwritten and not self._is_closed.is_set()

    def _note_failure(self, instance_id: str, exc: FanError) -> None:
        instance = self._held.get(instance_id)
        if instance is None:
            return
        if isinstance(exc, AlreadyExists) and self._is_taken(instance):
            if instance_id not in self._ousted:
                self._ousted.add(instance_id)
                self._places[instance_id] = False
                _log().error("%s lost its place and stands by: %s", instance_id, exc)
        elif self._told.get(instance_id) != exc.reason:
            _log().warning("%s is not registered, and tries on: %s", instance_id, exc)
        self._told[instance_id] = exc.reason

    def _note_success(self, instance_id: str) -> None:
        if self._told.pop(instance_id, None) is not None and instance_id in self._held:
            _log().warning("%s is registered again", instance_id)
        if instance_id in self._ousted:
            self._ousted.discard(instance_id)
            self._places[instance_id] = True

    def _is_taken(self, instance: Instance) -> bool:
        """Whether another has the place, rather than a session of ours that is not over yet."""
        store, deadline = self._open(), self._deadline(None)
        name = f"{instance.service}/{instance.id}"
        try:
            if is_unique(instance):
                place = f"{instance.service}/{instance.version}"
                for record in store.list(UNIQUE, place, deadline=deadline):
                    if record.name == place and record.body.decode() != instance.id:
                        return True
            for record in store.list(INSTANCE, name, deadline=deadline):
                if record.name == name:
                    holder = safely(decode_instance, record.body)
                    return holder is None or holder.nonce != instance.nonce
        except FanError:
            pass  # the next try asks again
        return False

    def _is_restored(self) -> bool:
        """Whether a registry that was made anew has all of us that outlives a session."""
        try:
            epoch = self._open().head(deadline=self._deadline(None)).epoch
            if epoch != self._epoch and self._epoch:
                for instance in list(self._held.values()):
                    self._restore(instance)
                epoch = self._open().head(deadline=self._deadline(None)).epoch
                self._see_routes()
                # Made anew once more meanwhile, it may look as it did before the first time, and
                # nobody would tell.
                if not epoch or self._open().head(deadline=self._deadline(None)).epoch != epoch:
                    return False
        except FanError:
            return False
        self._epoch = epoch
        return True

    def _see_routes(self) -> None:
        """See what is in the registry now. Raises what the store raises."""

    def _restore(self, instance: Instance) -> None:
        key = f"{instance.service}/{instance.version}"
        interface = self._interfaces.get(key)
        if interface is not None and not self._has_interface(key, self._deadline(None)):
            put_interface(self._open(), interface, self._deadline(None))
        self._adopt_again(instance)

    def _adopt_again(self, instance: Instance) -> None:
        """Where the registry was made anew, give it the route that was last seen in force. Who
        registers again first writes it, and all who saw the same write the same; without one it is
        as at a first start."""
        from fan.writing import user_name

        first = msgspec.json.encode(Route(versions={instance.version: WHOLE}))
        body = self._routes.get(instance.service, first)
        reason = f"{instance.service} {instance.version} found the registry made anew"
        plan = Plan(changes=(), verb="adopt", who=user_name(), host=instance.host, reason=reason)

        def make(old: Revision | None) -> bytes | None:
            if old is not None and old.body is not None:
                self._routes[instance.service] = old.body  # somebody was first
            return body if old is None else None

        try:
            self._write_route(instance.service, make, plan, self._deadline(None))
        except PermissionDenied as exc:
            _log().warning("%s has no route: %s", instance.service, exc)

    def _put_again(self, instance_id: str) -> None:
        """Write what is held of an instance, until that is what was written: it may change or be
        deregistered meanwhile."""
        written: Instance | None = None
        while (instance := self._held.get(instance_id)) is not written:
            if instance is None:
                assert written is not None
                self._delete(written, self._deadline(None))
                return
            self._put(instance, is_new=False, deadline=self._deadline(None))
            written = instance


def _log() -> Any:
    import logging

    return logging.getLogger("fan")
