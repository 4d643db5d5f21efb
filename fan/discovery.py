"""Who serves what: instances, interfaces and routes, read from the store and kept fresh by its
watches.

Keys of the store that live here: records `inst` named `<service>/<id>`, `iface` and `unique` named
`<service>/<version>`, objects `route/<service>`; and the config `<service>/policy`, which is read
in the same cut as the route.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import msgspec

from fan.errors import NO, Aborted, AlreadyExists, FanError, NotFound, Unavailable
from fan.mirror import Mirror, State
from fan.model import WHOLE, Instance, Interface, Route, ServiceInfo
from fan.names import no_such_service
from fan.stores.base import (
    Change,
    Cut,
    Head,
    Hint,
    Plan,
    Record,
    Revision,
    Session,
    Store,
    Watch,
)

INSTANCE = "inst"
INTERFACE = "iface"
#: Records that say which instance is the one of a `unique` service's version.
UNIQUE = "unique"
ROUTE = "route/"
#: Object of the config that says how a service is called.
POLICY = "config/{}/policy"

#: Routes of earlier generations that are kept at hand.
_MOST_PINNED = 256

#: Seconds between two tries to register again while the registry is down.
_LONGEST_WAIT = 5.0

_decode_instance = msgspec.json.Decoder(Instance).decode
_decode_interface = msgspec.json.Decoder(Interface).decode
_decode_route = msgspec.json.Decoder(Route).decode


class Discovery:
    """The registry's services for one App. With `live`, what was looked up once is kept and
    refreshed by watches; without, every look-up reads the store."""

    def __init__(
        self,
        store: Callable[[], Store],
        *,
        live: bool = True,
        timeout: float = 5.0,
        on_change: Callable[[], None] | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        self._open = store
        #: Routes and policies as of one generation; the rest of what is known has no generation.
        self._mirror = Mirror(store, timeout) if mirror is None else mirror
        self._owns_mirror = mirror is None
        self._end_listening: Callable[[], None] | None = None
        #: Services as of earlier generations, for calls that are pinned to those.
        self._pinned: dict[tuple[str, int], Cut] = {}
        self._is_live = live
        self._timeout = timeout
        self._lock = threading.Lock()
        self._cache: dict[str, ServiceInfo] = {}
        #: Numbers the readings in the order in which they began; a name's newest one stays.
        self._readings = 0
        self._newest: dict[str, int] = {}
        self._watches: list[Watch] | None = None
        self._listeners: list[Callable[[], None]] = [on_change] if on_change is not None else []
        self._session: Session | None = None
        self._held: dict[str, Instance] = {}
        self._is_closed = threading.Event()

    def __repr__(self) -> str:
        return f"<Discovery cached={sorted(self._cache)} registered={sorted(self._held)}>"

    # Reading

    def services(self, deadline: float | None = None) -> list[ServiceInfo]:
        """Every known service, by name."""
        deadline = self._deadline(deadline)
        store = self._open()
        cut = store.read(prefix=ROUTE, deadline=deadline)
        instances = _by_service(store.list(INSTANCE, deadline=deadline))
        interfaces = _by_service(store.list(INTERFACE, deadline=deadline))
        routed = {name.removeprefix(ROUTE) for name in cut.objects}
        names = sorted({*instances, *interfaces, *routed})
        return [_info(n, cut, instances.get(n, ()), interfaces.get(n, ())) for n in names]

    def service(self, name: str, deadline: float | None = None) -> ServiceInfo:
        """One service. Raises NotFound (no_such_service) with similar names."""
        cached = self._cache.get(name)
        if cached is not None and not self._mirror.is_dropped:
            return cached
        deadline = self._deadline(deadline)
        if self._is_live:
            self._start_watching()
        info = self._look(name, deadline)  # before it is in use: it may be no service at all
        if not info.is_known:
            raise no_such_service(name, [s.name for s in self.services(deadline)])
        if self._is_live:
            self._mirror.use(ROUTE + name, POLICY.format(name), deadline=deadline)
            with self._lock:
                self._cache[name] = info
            info = self._refresh(name, deadline)  # a change between the read and the cache entry
        return info

    @property
    def gen(self) -> int:
        """The generation of all that is in use, 0 where nothing is kept."""
        return self._mirror.gen

    def as_of(self, info: ServiceInfo, gen: int, deadline: float) -> ServiceInfo:
        """A service with the route that it had in generation `gen`, for a call that is pinned to
        it. Raises Unavailable, executed no, where that is not kept any more."""
        if gen > self.gen and self._is_live:
            self._mirror.refresh(deadline)
            info = self.service(info.name, deadline)
        if info.routed_at <= gen:
            return info
        cut = self._pinned.get((info.name, gen))
        if cut is None:
            objects = [ROUTE + info.name, POLICY.format(info.name)]
            try:
                cut = self._open().read(objects, gen=gen, deadline=deadline)
            except NotFound as exc:
                raise Unavailable(
                    f"the call is pinned to generation {gen}, which is not kept any more",
                    reason="stale_pin",
                    executed=NO,
                ) from exc
            while len(self._pinned) >= _MOST_PINNED:
                self._pinned.pop(next(iter(self._pinned)), None)
            self._pinned[info.name, gen] = cut
        return _routed(info, cut.objects, gen)

    def is_cached(self, name: str) -> bool:
        """Whether a look-up of that service reads no store."""
        return name in self._cache

    def again(self, name: str, deadline: float) -> ServiceInfo:
        """One service, read from the store if what was looked up may be old; else the same
        object."""
        cached = self._cache.get(name)
        if cached is None:
            return self.service(name, deadline)
        if self._is_live:
            self._mirror.refresh(deadline)
        fresh = self._refresh(name, deadline)
        return cached if fresh == cached else fresh

    def forget(self, name: str) -> None:
        """Have the next look-up of a service read the store."""
        with self._lock:
            self._cache.pop(name, None)

    def _look(self, name: str, deadline: float) -> ServiceInfo:
        """What the store has now, whatever is in force here."""
        cut = self._open().read([ROUTE + name, POLICY.format(name)], deadline=deadline)
        return self._with_records(name, cut, deadline)

    def _read(self, name: str, deadline: float) -> ServiceInfo:
        """What is in force here, with the instances that there are now."""
        if not self._is_live:
            return self._look(name, deadline)
        state = self._mirror.use(ROUTE + name, POLICY.format(name), deadline=deadline)
        cut = Cut(Head(state.cursor.epoch if state.cursor else "", state.gen), dict(state.objects))
        return self._with_records(name, cut, deadline)

    def _with_records(self, name: str, cut: Cut, deadline: float) -> ServiceInfo:
        store = self._open()
        instances = store.list(INSTANCE, name + "/", deadline=deadline)
        interfaces = store.list(INTERFACE, name + "/", deadline=deadline)
        return _info(name, cut, instances, interfaces)

    def _refresh(self, name: str, deadline: float) -> ServiceInfo:
        with self._lock:
            self._readings = number = self._readings + 1
        info = self._read(name, deadline)
        with self._lock:
            if self._is_live:  # another generation may be in force by now
                state = self._mirror.state
                info = _routed(info, state.objects, state.gen)
            if number < self._newest.get(name, 0):
                return info  # one that began later is there already, and may know more
            if info.is_known:
                self._newest[name] = number
                self._cache[name] = info
            else:
                self._newest.pop(name, None)
                self._cache.pop(name, None)
        return info

    # Watching

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back, from a store thread, at every change of what is registered or routed, and once
        at the start. Returns what ends it."""
        self._listeners.append(callback)
        try:
            self._start_watching()
        except BaseException:
            self._listeners.remove(callback)
            raise
        callback()
        return lambda: self._listeners.remove(callback)

    def _start_watching(self) -> None:
        store = self._open()
        with self._lock, ExitStack() as undo:  # where it fails, the next look-up tries again
            if self._watches is not None:
                return
            watches: list[Watch] = []
            for kind in (INSTANCE, INTERFACE):
                watches.append(store.watch(kind, self._on_hint))
                undo.callback(watches[-1].close)
            undo.pop_all()
            self._watches = watches
            if self._end_listening is None:
                self._end_listening = self._mirror.listen(self._on_cut)

    def _on_hint(self, hint: Hint) -> None:
        if hint == "lost":
            return  # what is cached is the best there is until the store is back
        for name in list(self._cache):
            try:
                self._refresh(name, self._deadline(None))
            except FanError:
                continue  # stays as it was; the next hint or "regained" reads it again
        for listener in list(self._listeners):
            listener()

    def _on_cut(self, state: State) -> None:
        """Another generation is in force: all routes change in one assignment."""
        with self._lock:
            self._cache = {
                name: _routed(info, state.objects, state.gen) for name, info in self._cache.items()
            }
        for listener in list(self._listeners):
            listener()

    # Registering

    def register(
        self, instance: Instance, interface: Interface, *, deadline: float | None = None
    ) -> None:
        """Make an instance and its interface known. Raises AlreadyExists (duplicate_id) for an id
        that a live instance holds."""
        deadline = self._deadline(deadline)
        store = self._open()
        key = f"{interface.service}/{interface.version}"
        self._put(instance, is_new=True, deadline=deadline)
        self._held[instance.id] = instance
        store.put(INTERFACE, key, msgspec.json.encode(interface), deadline=deadline)

    def update(self, instance: Instance, *, deadline: float | None = None) -> None:
        """Write a registered instance again, its state changed."""
        if instance.id in self._held:
            self._held[instance.id] = instance  # first: who registers again meanwhile writes this
        self._put(instance, is_new=False, deadline=self._deadline(deadline))

    def deregister(self, instance_id: str, *, deadline: float | None = None) -> None:
        """Forget an instance of ours; an unknown id is ignored."""
        instance = self._held.pop(instance_id, None)
        if instance is not None:
            self._delete(instance, self._deadline(deadline))

    def _delete(self, instance: Instance, deadline: float) -> None:
        session = self._session
        names = {INSTANCE: f"{instance.service}/{instance.id}"}
        if _is_unique(instance):
            names[UNIQUE] = f"{instance.service}/{instance.version}"
        for kind, name in names.items():
            self._open().delete(kind, name, session=session, deadline=deadline)

    def adopt(self, service: str, version: str, *, force: bool = False, who: str = "", host: str =
    "",
              deadline: float | None = None) -> bool:  # fmt: skip
        """Give an unrouted service its first route, to `version`; with `force` move an existing
        route. Returns whether it changed. A race with another first version is lost quietly."""
        deadline = self._deadline(deadline)
        store, name = self._open(), ROUTE + service
        while True:
            pinned = store.read([name], deadline=deadline).objects.get(name)
            if pinned is not None and not force:
                return False
            body = msgspec.json.encode(Route(versions={version: WHOLE}))
            if pinned is not None and pinned.body is not None:
                # One that is damaged has nothing to keep.
                old = _safely(_decode_route, pinned.body) or Route()
                body = msgspec.json.encode(msgspec.structs.replace(old, versions={version: WHOLE}))
            change = Change(object=name, body=body, from_rev=pinned.rev if pinned else 0)
            plan = Plan(changes=(change,), verb="adopt", who=who, host=host,
                        reason=f"{service} {version} started")  # fmt: skip
            try:
                return store.commit(plan, deadline=deadline).is_changed
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
        if _is_unique(instance):
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
        """The store gave our session up: register again, with the latest data. The calling
        thread is the store's and must go on: what does not work at once is tried by a thread of our
        own."""
        if not self._register_again():
            thread = threading.Thread(target=self._keep_trying, name="fan-register", daemon=True)
            thread.start()

    def _keep_trying(self) -> None:
        wait = 0.1
        while not self._is_closed.wait(wait) and not self._register_again():
            wait = min(wait * 2, _LONGEST_WAIT)

    def _register_again(self) -> bool:
        """Whether all that we hold could be written again."""
        is_done = True
        for instance_id in list(self._held):
            try:
                self._put_again(instance_id)
            except FanError:
                is_done = False
        return is_done

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

    def close(self) -> None:
        """End the watches and the session."""
        self._is_closed.set()
        with self._lock:
            watches, self._watches = self._watches or [], None
            end, self._end_listening = self._end_listening, None
            session, self._session = self._session, None
            self._cache.clear()
        for watch in watches:
            watch.close()
        if end is not None:
            end()
        if self._owns_mirror:
            self._mirror.close()
        if session is not None:
            session.close()

    def _deadline(self, deadline: float | None) -> float:
        return time.monotonic() + self._timeout if deadline is None else deadline


def _by_service(records: Iterable[Record]) -> dict[str, list[Record]]:
    out: dict[str, list[Record]] = {}
    for record in records:
        out.setdefault(record.name.rpartition("/")[0], []).append(record)
    return out


def _info(
    name: str, cut: Cut, instances: Iterable[Record], interfaces: Iterable[Record]
) -> ServiceInfo:
    found = (_safely(_decode_interface, r.body) for r in interfaces)
    bare = ServiceInfo(
        name=name,
        interfaces={i.version: i for i in found if i is not None},
        instances=tuple(_instances(instances)),
    )
    return _routed(bare, cut.objects, cut.head.gen)


def _routed(info: ServiceInfo, objects: Mapping[str, Revision], gen: int) -> ServiceInfo:
    """A service with the route and the policy that it has among these objects; the same one where
    they are those it has."""
    pinned = objects.get(ROUTE + info.name)
    route = _safely(_decode_route, pinned.body) if pinned is not None and pinned.body else None
    said = objects.get(POLICY.format(info.name))
    policy = _safely(msgspec.json.decode, said.body) if said is not None and said.body else None
    policy = policy if isinstance(policy, dict) else {}
    routed_at = pinned.pinned_at if pinned is not None else 0
    if info.gen and (route, policy, routed_at) == (info.route, info.policy, info.routed_at):
        return info
    return msgspec.structs.replace(
        info, route=route, policy=policy, gen=gen, routed_at=routed_at
    )


def _instances(records: Iterable[Record]) -> list[Instance]:
    found = (_safely(_decode_instance, r.body) for r in records)
    return [i for i in found if i is not None]


def _is_unique(instance: Instance) -> bool:
    return instance.meta.get("unique") == "true"


def _safely(decode: Callable[[bytes], Any], body: bytes) -> Any:
    """A body that somebody else damaged must not break the list: it is left out."""
    try:
        return decode(body)
    except (msgspec.DecodeError, RecursionError):  # the latter of a thousand brackets
        return None
