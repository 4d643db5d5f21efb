"""Who serves what: instances, interfaces and routes, read from the store and kept fresh by its
watches.

What is read stands in `readings`; the config `<service>/policy` is read in the same cut as the
route. `registration` is how this process's own instances get there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from fan.chores import RETRY, Chore, held
from fan.errors import NO, DeadlineExceeded, FanError, NotFound, Unavailable
from fan.mirror import Mirror, State
from fan.model import ServiceInfo
from fan.readings import (
    INSTANCE,
    INTERFACE,
    OVERRIDE,
    POLICY,
    ROUTE,
    by_service,
    info_of,
    routed,
)
from fan.registration_again import KeptRegistered
from fan.stores.base import HEAD, Cut, Head, Hint, Store, Watch

if TYPE_CHECKING:
    from fan.following import Follower

#: Routes of earlier generations that are kept at hand.
_MOST_PINNED = 256
#: Seconds behind the end of an override until it is looked again.
_LATER = 0.01
#: Seconds that the names of all services may take to be read, for who mistook one, and for which
#: they are good enough then.
_NAMING = 0.5
_NAMES_LAST = 5.0


class Discovery(KeptRegistered):
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
        """`on_change` is called with each change before it is acknowledged, and waits for nobody;
        who uses `watch` may."""
        super().__init__(store, timeout)
        #: Routes and policies as of one generation; the rest of what is known has no generation.
        self._mirror = Mirror(store, timeout) if mirror is None else mirror
        self._owns_mirror = mirror is None
        self._end_listening: Callable[[], None] | None = None
        self._end_remembering: Callable[[], None] | None = None
        #: Services as of earlier generations, for calls that are pinned to those.
        self._pinned: dict[tuple[str, int], Cut] = {}
        self._is_live = live
        #: Held while what is kept here is replaced, and for nothing that may wait.
        self._guard = threading.Lock()
        #: Held by who begins to watch: see `held`.
        self._door = threading.Lock()
        self._cache: dict[str, ServiceInfo] = {}
        #: Numbers the readings in the order in which they began; a name's newest one stays.
        self._readings = 0
        self._newest: dict[str, int] = {}
        #: The names of all services, for who mistook one, and until when they are good enough.
        self._known_names: list[str] = []
        self._named_until = 0.0
        #: Reads again where that failed behind a hint, and when an override is over.
        self._catching_up = Chore("fan-discovery", "read instances again", self._catch_up)
        self._watches: list[Watch] | None = None
        self._on_change = on_change
        self._listeners: list[Callable[[], None]] = []
        self._telling = Chore("fan-discovery-news", "tell of what changed", self._tell_all)

    def __repr__(self) -> str:
        return f"<Discovery cached={sorted(self._cache)} registered={sorted(self._held)}>"

    # Reading

    def services(self, deadline: float | None = None) -> list[ServiceInfo]:
        """Every known service, by name."""
        deadline = self._deadline(deadline)
        store = self._open()
        cut = store.read(prefix=ROUTE, deadline=deadline)
        instances = by_service(store.list(INSTANCE, deadline=deadline))
        interfaces = by_service(store.list(INTERFACE, deadline=deadline))
        overrides = by_service(store.list(OVERRIDE, deadline=deadline))
        names = {*instances, *interfaces, *(name.removeprefix(ROUTE) for name in cut.objects)}
        found = [
            info_of(n, cut, instances.get(n, ()), interfaces.get(n, ()), overrides.get(n, ()))
            for n in sorted(names)
        ]
        self._look_when_over(found)
        return found

    def service(self, name: str, deadline: float | None = None) -> ServiceInfo:
        """One service. Raises NotFound (no_such_service) with similar names."""
        cached = self._cache.get(name)
        if cached is not None and not self._mirror.is_dropped:
            return cached
        deadline = self._deadline(deadline)
        if self._is_live:
            self._start_watching(deadline)
        info = self._look(name, deadline)  # before it is in use: it may be no service at all
        if not info.is_known:
            from fan.names import no_such_service

            raise no_such_service(name, self._names(deadline))
        if self._is_live:
            self._mirror.use(ROUTE + name, POLICY.format(name), deadline=deadline)
            with self._guard:
                self._cache[name] = info
            info = self._refresh(name, deadline)  # a change between the read and the cache entry
        return info

    def _names(self, deadline: float) -> list[str]:
        """The names there are, for who mistook one; a list of all there is takes a large registry
        seconds, so that it is made once in a while, and done without where it takes long."""
        now = time.monotonic()
        if now >= self._named_until:
            try:
                self._known_names = [
                    info.name for info in self.services(min(deadline, now + _NAMING))
                ]
            except FanError:
                self._known_names = []
            self._named_until = time.monotonic() + _NAMES_LAST
        return self._known_names

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
        return routed(info, cut.objects, gen)

    def at_hand(self, name: str) -> ServiceInfo | None:
        """A service as it was looked up last, None where it was not: this waits for nobody."""
        return self._cache.get(name)

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

    def keep(self, info: ServiceInfo) -> None:
        """Answer look-ups of a service with this until `again` or `forget`: who has just read it
        spares the call that follows a reading. With `live` all is kept anyway."""
        if not self._is_live:
            with self._guard:
                self._cache[info.name] = info

    def forget(self, name: str) -> None:
        """Have the next look-up of a service read the store."""
        with self._guard:
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
        overrides = store.list(OVERRIDE, name + "/", deadline=deadline)
        return info_of(name, cut, instances, interfaces, overrides)

    def _refresh(self, name: str, deadline: float) -> ServiceInfo:
        with self._guard:
            self._readings = number = self._readings + 1
        info = self._read(name, deadline)
        self._look_when_over([info])
        with self._guard:
            if self._is_live:  # another generation may be in force by now
                state = self._mirror.state
                info = routed(info, state.objects, state.gen)
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

    def watch(
        self, callback: Callable[[], None], *, all_routes: bool = False
    ) -> Callable[[], None]:
        """Call back, from a thread of its own, after every change of what is registered or of a
        route in use, with `all_routes` after every generation; and once at the start. Several may
        give one call, and nobody waits for it. Returns what ends it."""
        with ExitStack() as undo:
            self._listeners.append(callback)
            undo.callback(self._listeners.remove, callback)
            self._start_watching(self._deadline(None))
            if all_routes:
                undo.callback(self._open().watch(HEAD, lambda hint: self._telling.ask()).close)
            callback()
            return undo.pop_all().close

    def follow(self, since: str = "") -> Follower:
        """The generations of routes, to be closed: `what` of a step is service -> Route (None: it
        has none any more), of a snapshot all of them. `since` is a cursor, as its text. Raises
        InvalidArgument (bad_cursor)."""
        from fan.following import Cursor, Follower
        from fan.route_log import all_routes, routes_in

        cursor = Cursor.parse(since) if since else None
        return Follower(
            self._open(), read=all_routes, look=routes_in, cursor=cursor, timeout=self._timeout
        )

    def _start_watching(self, deadline: float) -> None:
        if self._is_watching():
            return
        store = self._open()
        with held(self._door, deadline), ExitStack() as undo:
            # Where it fails, the next look-up tries again.
            if self._is_watching():
                return
            watches: list[Watch] = []
            for kind in (INSTANCE, INTERFACE, OVERRIDE):
                watches.append(store.watch(kind, self._on_hint))
                undo.callback(watches[-1].close)
            undo.pop_all()
            self._watches = watches
            if self._end_listening is None:
                self._end_listening = self._mirror.listen(self._on_cut)

    def _is_watching(self) -> bool:
        return self._watches is not None

    def _on_hint(self, hint: Hint) -> None:
        if hint == "lost":
            return  # what is cached is the best there is until the store is back
        try:
            self._catch_up()
        except FanError:
            self._catching_up.ask(RETRY)  # no other hint may come

    def _catch_up(self) -> None:
        """Read again what is cached. Raises what keeps any of it from that."""
        failure: FanError | None = None
        for name in list(self._cache):
            try:
                self._refresh(name, self._deadline(None))
            except FanError as exc:
                failure = exc
                if isinstance(exc, (Unavailable, DeadlineExceeded)):
                    break  # the others would wait for the same
        self._tell()
        if failure is not None:
            raise failure

    def _tell(self) -> None:
        if self._on_change is not None:
            self._on_change()
        if self._listeners:
            self._telling.ask()

    def _tell_all(self) -> None:
        for listener in list(self._listeners):
            try:
                listener()
            except Exception:  # the others are told all the same
                _log().exception("who watches what is registered failed")

    def _look_when_over(self, infos: list[ServiceInfo]) -> None:
        """Look again when the first of the overrides is over, of which no watch tells."""
        ends = [o.until for info in infos for o in info.overrides.values() if o.until]
        if ends and self._is_live:
            self._catching_up.ask(max(0.0, min(ends) - time.time()) + _LATER)

    def _on_cut(self, state: State) -> None:
        """Another generation is in force: all routes change in one assignment."""
        with self._guard:
            before = self._cache
            self._cache = {n: routed(info, state.objects, state.gen) for n, info in before.items()}
            is_new = any(self._cache[name] is not info for name, info in before.items())
        if is_new:
            self._tell()

    # The routes of what is held here

    def _follow(self, service: str, deadline: float) -> None:
        with self._guard:
            if self._end_remembering is None:
                self._end_remembering = self._mirror.listen(self._remember)
        self._remember(self._mirror.use(ROUTE + service, deadline=deadline))

    def _see_routes(self) -> None:
        self._mirror.refresh()

    def _remember(self, state: State) -> None:
        """Keep the routes of what is held here; in a registry that was made anew these are gone,
        and we with them, also where our session was not."""
        epoch = state.cursor.epoch if state.cursor is not None else ""
        if epoch != self._epoch and self._epoch:
            self._begin_again()
            return
        self._epoch = epoch
        names = {instance.service for instance in list(self._held.values())}
        bodies = {name: state.body(ROUTE + name) for name in names}
        self._routes = {name: body for name, body in bodies.items() if body is not None}

    def close(self) -> None:
        """End the watches and the session."""
        self._is_closed.set()
        self._catching_up.close()
        self._telling.close()
        with self._guard:
            watches, self._watches = self._watches or [], None
            ends = [self._end_listening, self._end_remembering]
            self._end_listening = self._end_remembering = None
            self._cache.clear()
        for watch in watches:
            watch.close()
        for end in ends:
            if end is not None:
                end()
        if self._owns_mirror:
            self._mirror.close()
        self.leave()


def _log() -> Any:
    import logging

    return logging.getLogger("fan")
