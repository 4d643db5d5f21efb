"""The registry on ZooKeeper: for the many machines of a cluster.

The parts: `zookeeper_url` reads the URL, `zookeeper_layout` knows where things stand,
`zookeeper_channel` keeps the connection and its deadlines, `zookeeper_reading` and
`zookeeper_commit` hold the generations, `zookeeper_records` the rest, `zookeeper_watch` and
`zookeeper_session` what goes on; what a commit may do is in `fan.stores.rules`. kazoo is imported
with the first store. Reading creates nothing.
"""

from __future__ import annotations

import builtins
import threading
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

from fan import forks
from fan.errors import InvalidArgument
from fan.stores import rules
from fan.stores.base import (
    Committed,
    Cut,
    Entry,
    Head,
    Hint,
    Plan,
    Record,
    Revision,
    Session,
    Store,
    Watch,
)
from fan.stores.zookeeper_layout import Layout
from fan.stores.zookeeper_url import parse

if TYPE_CHECKING:
    from fan.stores.zookeeper_channel import Channel
    from fan.stores.zookeeper_session import ZookeeperSession
    from fan.stores.zookeeper_watch import ZookeeperWatch

#: Seconds without a sign of life after which the servers end a session: of who only asks, and of
#: who serves.
TIMEOUT = 4.0
SESSION_TIMEOUT = 10.0

#: Seconds that closing waits for the watches' threads.
_FAREWELL = 2.0

#: The stores that a fork has to pass by.
_STORES: weakref.WeakSet[ZookeeperStore] = weakref.WeakSet()


class ZookeeperStore(Store):
    """One namespace of a ZooKeeper ensemble. `place` is what follows `zk:` in the URL::

        zk://h1,h2:2182,h3/chroot           any of these servers, below a chroot that need not exist
        zk://USER:PASSWORD@h1/chroot        digest credentials, percent-encoded
        zk://h1?tls=1&ca=F&cert=F&key=F     TLS; `ca` besides the system's, `cert` and `key` our own
        zk://...?acl=operator=USER:HASH,instance=USER:HASH,reader=anyone

    With credentials alone, what is made there is for these credentials alone. With `acl` it is for
    the roles: an *operator* does everything; an *instance* writes its own records (`inst`, `iface`,
    `needs`, `subs`, `unique`) and reads; a *reader* reads. HASH is the base64 of the SHA-1 of
    `USER:PASSWORD`; a role may be given several times, and `anyone` needs no credentials. All
    processes state the same `acl`, and each its own credentials. An operator has to write first.
    What a role may not do is PermissionDenied; unknown credentials are Unauthenticated.

    Session `timeout`s are seconds; the servers bound them by their own."""

    scheme: ClassVar[str] = "zk"

    def __init__(
        self,
        place: str,
        namespace: str = "default",
        *,
        timeout: float = TIMEOUT,
        session_timeout: float = SESSION_TIMEOUT,
    ) -> None:
        from fan.stores.zookeeper_channel import Channel
        from fan.stores.zookeeper_reading import Reader

        self.ensemble = parse(place)
        self.namespace = namespace
        self._session_timeout = session_timeout
        self._layout = Layout(self.ensemble.chroot, namespace)
        self._channel = Channel(self.ensemble, timeout)
        self._reader = Reader(self._channel, self._layout)
        self._sessions: weakref.WeakSet[ZookeeperSession] = weakref.WeakSet()
        self._watches: set[ZookeeperWatch] = set()
        self._guard = threading.Lock()
        _STORES.add(self)

    def __repr__(self) -> str:
        return f"<ZookeeperStore {self.ensemble} {self.namespace}, {len(self._sessions)} sessions>"

    def __del__(self) -> None:
        if hasattr(self, "_channel") and self._channel.is_open:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=1)

    def head(self, *, deadline: float) -> Head:
        return self._reader.state(deadline).head

    def read(
        self,
        objects: Sequence[str] = (),
        *,
        prefix: str | None = None,
        gen: int | None = None,
        deadline: float,
    ) -> Cut:
        return self._reader.cut(objects, prefix, gen, deadline)

    def revision(self, object: str, rev: int, *, deadline: float) -> Revision:
        (found,) = self._reader.revisions([(object, rev)], deadline)
        if found is None:
            raise rules.missing_revision(object, rev, self.head(deadline=deadline))
        return found

    def log(self, after: int, upto: int | None = None, *, deadline: float) -> builtins.list[Entry]:
        return self._reader.log(after, upto, deadline)

    def commit(self, plan: Plan, *, op: str = "", deadline: float) -> Committed:
        from fan.stores.zookeeper_commit import Commit

        rules.check_plan(plan)
        return Commit(self._reader, plan, op, deadline).run()

    def watch(self, kind: str, callback: Callable[[Hint], None]) -> Watch:
        from fan.stores.zookeeper_watch import ZookeeperWatch

        watch = ZookeeperWatch(self._channel, self._layout, kind, callback)
        with self._guard:
            self._watches = {known for known in self._watches if not known.is_closed}
            self._watches.add(watch)
        return watch

    def open_session(
        self, *, on_lost: Callable[[], None] | None = None, deadline: float
    ) -> ZookeeperSession:
        from fan.stores.zookeeper_channel import Channel
        from fan.stores.zookeeper_session import ZookeeperSession

        rules.check_deadline(deadline, "open a session")
        channel = Channel(self.ensemble, self._session_timeout, is_session=True)
        try:
            channel.ready(deadline)
        except BaseException:
            channel.close()
            raise
        session = ZookeeperSession(channel, on_lost)
        self._sessions.add(session)
        return session

    def put(
        self,
        kind: str,
        name: str,
        body: bytes,
        *,
        session: Session | None = None,
        is_new: bool = False,
        deadline: float,
    ) -> None:
        from fan.stores import zookeeper_records
        from fan.stores.zookeeper_session import ZookeeperSession

        rules.check_deadline(deadline, "write to the registry")
        rules.check_size(f"{kind} {name}", len(body) + len(name.encode()))
        zookeeper_records.put(
            self._channel_of(session),
            self._layout,
            kind,
            name,
            body,
            session=session.id if session else "",
            alive=session.kinds if isinstance(session, ZookeeperSession) else set(),
            is_new=is_new,
            deadline=deadline,
        )
        if session is not None:
            self._channel.mark_stale()

    def _channel_of(self, session: Session | None) -> Channel:
        from fan.stores.zookeeper_session import ZookeeperSession

        if session is None:
            return self._channel
        if not session.is_alive:
            raise rules.session_lost(session.id)
        if not isinstance(session, ZookeeperSession):
            raise InvalidArgument(f"the session {session.id} is of another store")
        return session.channel

    def delete(
        self, kind: str, name: str, *, session: Session | None = None, deadline: float
    ) -> bool:
        from fan.stores import zookeeper_records

        owner = session.id if session else None
        return zookeeper_records.delete(
            self._channel, self._layout, kind, name, session=owner, deadline=deadline
        )

    def list(self, kind: str, prefix: str = "", *, deadline: float) -> builtins.list[Record]:
        from fan.stores import zookeeper_records

        return zookeeper_records.listing(self._channel, self._layout, kind, prefix, deadline)

    def problems(self, *, deadline: float) -> Sequence[str]:
        from fan.stores.zookeeper_servers import problems

        return tuple(problems(self.ensemble, deadline))

    def close(self) -> None:
        with self._guard:
            watches, self._watches = self._watches, set()
        for watch in watches:
            watch.close()
        while self._sessions:
            self._sessions.pop().close()
        self._channel.close()
        for watch in watches:
            watch.join(_FAREWELL)

    def _after_fork_in_child(self) -> None:
        self._channel.after_fork_in_child(is_over=False)
        self._reader.after_fork_in_child()
        for session in self._sessions:
            session.after_fork_in_child()
        for watch in self._watches:
            watch.after_fork_in_child()
        self._sessions = weakref.WeakSet()
        self._watches = set()
        self._guard = threading.Lock()


def _after_fork_in_child() -> None:
    for store in tuple(_STORES):
        store._after_fork_in_child()


forks.in_child("stores", _after_fork_in_child)
