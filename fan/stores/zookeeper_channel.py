"""A connection to the servers: opened when first used, and anew when it has to be.

The traps of kazoo that are dealt with here: every request is asynchronous and waited for with a
deadline, since a synchronous one blocks while the servers are down; `stop` blocks too, so it runs
in a thread; the retries are objects with limits, as the default waits up to an hour; a transaction
never raises, so each of its results is looked at; and a client that saw a newer state than a
restored server has is refused forever without being told, so it is replaced.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
from kazoo import exceptions as kazoo
from kazoo.client import KazooClient
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import KazooState, KeeperState
from kazoo.retry import KazooRetry
from kazoo.security import ACL, Id

from fan.errors import FailedPrecondition, FanError
from fan.stores import rules
from fan.stores import zookeeper_errors as errors
from fan.stores.zookeeper_url import CREATE, DELETE, READ, WRITE, Ensemble

#: Seconds that closing waits for the servers to say goodbye.
_FAREWELL = 2.0

#: Seconds before a request is sent again over a connection that was just lost.
_PAUSE = 0.01

#: What an access list and a node's bookkeeping take of a request, about.
_OVERHEAD = 100

Issue = Callable[[Any], Any]


class Node(msgspec.Struct, frozen=True):
    """A node as read. `owner` is the session that it ends with, empty for none."""

    data: bytes
    version: int
    owner: str = ""
    children: int = 0


class Write(msgspec.Struct, frozen=True):
    """One part of a transaction. `version` -1 takes any; `by_instances` says who may write it."""

    verb: Literal["check", "create", "set", "delete"]
    path: str
    data: bytes = b""
    version: int = -1
    is_ephemeral: bool = False
    by_instances: bool = False

    @property
    def size(self) -> int:
        return len(self.path.encode()) + len(self.data) + _OVERHEAD


class Refusal(msgspec.Struct, frozen=True):
    """The first part of a transaction that did not fit the tree; nothing of it was done."""

    write: Write
    why: str


class Uncertain(Exception):
    """A write whose answer got lost: whether it was done is unknown."""


class Channel:
    """One client of the servers, used by any thread. `opened` counts its connections: watches, and
    what was read before, hold for one. With `is_session` it stands for one session: when that is
    over, so is the channel."""

    def __init__(self, ensemble: Ensemble, timeout: float, *, is_session: bool = False) -> None:
        self.ensemble = ensemble
        self.timeout = timeout
        self.opened = 0
        #: The server's number of our session, as `Node.owner` has it.
        self.session_id = ""
        self.is_over = False
        self._is_session = is_session
        self._client: KazooClient | None = None
        self._ear = _Ear()
        self._news = threading.Condition()
        self._is_up = False
        self._is_closed = False
        self._is_stale = True
        self._down_since = 0.0
        self._listeners: list[Callable[[], None]] = []

    @property
    def is_open(self) -> bool:
        return self._client is not None

    @property
    def is_up(self) -> bool:
        return self._is_up

    @property
    def patience(self) -> float:
        """Seconds left until a connection that is down counts as lost for good."""
        return self._down_since + 2 * self.timeout - time.monotonic()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call back, briefly, from a thread of the driver, when the connection comes or goes."""
        self._listeners.append(listener)

    def ignore(self, listener: Callable[[], None]) -> None:
        with contextlib.suppress(ValueError):
            self._listeners.remove(listener)

    # Asking

    def ready(self, deadline: float) -> None:
        """Be connected. Raises as every request does."""
        self._ready(deadline)

    def get(
        self, paths: Sequence[str], deadline: float, *, sync: bool = False
    ) -> list[Node | None]:
        """The nodes at some paths, all asked for at once; None where there is none."""
        found = self.ask([_get(path) for path in paths], paths, deadline, sync=sync)
        return [None if answer is None else _node(*answer) for answer in found]

    def children(self, paths: Sequence[str], deadline: float) -> list[list[str] | None]:
        """The names below some nodes; None where there is no such node."""
        return self.ask([_children(path) for path in paths], paths, deadline)

    def ask(
        self, issues: Sequence[Issue], paths: Sequence[str], deadline: float, *, sync: bool = False
    ) -> list[Any]:
        """Send all requests, then wait for the answers, in order; None stands for no such node.
        Asked again over a new connection where one is lost. With `sync`, and wherever another
        server may have taken what we know of, the server first catches up with its leader."""
        rules.check_deadline(deadline, "use the registry")
        while True:
            client = self._ready(deadline)
            opened = self.opened
            pending = []
            if sync or self._is_stale or self.ensemble.is_many:
                pending = [client.sync_async("/")]
            ahead = len(pending)
            pending += [issue(client) for issue in issues]
            try:
                answers = [
                    self._answer(asked, paths[i - ahead] if i >= ahead else "/", deadline)
                    for i, asked in enumerate(pending)
                ]
            except errors.LOST:
                self._pause()
                continue
            if ahead and opened == self.opened:
                self._is_stale = False
            return answers[ahead:]

    def send(self, issue: Issue, deadline: float) -> None:
        """Send a request whose answer nobody needs: what is asked later is answered later. One that
        is lost with the connection is not repeated, see `opened`."""
        issue(self._ready(deadline))

    def _answer(self, asked: Any, path: str, deadline: float) -> Any:
        try:
            return asked.get(timeout=max(0.0, deadline - time.monotonic()))
        except kazoo.NoNodeError:
            return None
        except kazoo.NoAuthError as error:
            raise self._denied(path, READ, deadline) from error
        except KazooTimeoutError as error:
            raise errors.too_slow(self.ensemble) from error
        except errors.LOST:
            raise
        except kazoo.KazooException as error:
            raise errors.translate(error, self.ensemble, path) from error

    # Writing

    def multi(self, writes: Sequence[Write], deadline: float) -> Refusal | None:
        """Do all of it or nothing; None where it was done. Raises Uncertain where the answer got
        lost or did not come in time."""
        rules.check_deadline(deadline, "write to the registry")
        client = self._ready(deadline)
        transaction = client.transaction()
        for write in writes:
            if write.verb == "check":
                transaction.check(write.path, write.version)
            elif write.verb == "create":
                acl = self._access(write.by_instances)
                transaction.create(write.path, write.data, acl, write.is_ephemeral)
            elif write.verb == "set":
                transaction.set_data(write.path, write.data, write.version)
            else:
                transaction.delete(write.path, write.version)
        try:
            results = transaction.commit_async().get(timeout=max(0.0, deadline - time.monotonic()))
        except KazooTimeoutError as error:
            raise Uncertain from error
        except errors.LOST as error:
            self._pause()
            raise Uncertain from error
        except kazoo.KazooException as error:
            raise errors.translate(error, self.ensemble, writes[0].path) from error
        return self._refusal(writes, results, deadline)

    def _refusal(
        self, writes: Sequence[Write], results: Sequence[Any], deadline: float
    ) -> Refusal | None:
        for write, result in zip(writes, results, strict=True):
            if not isinstance(result, Exception) or isinstance(result, errors.FOLLOWERS):
                continue
            why = errors.REFUSED.get(type(result))
            if why is not None:
                return Refusal(write, why)
            if isinstance(result, kazoo.NoAuthError):
                above = write.path.rpartition("/")[0]
                if write.verb in ("create", "delete"):
                    needs = CREATE if write.verb == "create" else DELETE
                    raise self._denied(above, needs, deadline) from result
                raise self._denied(write.path, WRITE, deadline) from result
            raise errors.translate(result, self.ensemble, write.path) from result
        return None

    def ensure(self, paths: Sequence[tuple[str, bool, bytes]], deadline: float) -> None:
        """Make the nodes that are missing, parents first: path, whether instances write there, and
        what it holds."""
        names = [path for path, _, _ in paths]
        found = self.ask([_exists(path) for path in names], names, deadline)
        missing = [row for row, stat in zip(paths, found, strict=True) if stat is None]
        while missing:
            client = self._ready(deadline)
            pending = [
                client.create_async(path, data, acl=self._access(by_instances))
                for path, by_instances, data in missing
            ]
            try:
                for (path, _, _), made in zip(missing, pending, strict=True):
                    try:
                        made.get(timeout=max(0.0, deadline - time.monotonic()))
                    except kazoo.NodeExistsError:
                        continue
                    except kazoo.NoAuthError as error:
                        above = path.rpartition("/")[0] or "/"
                        raise self._denied(above, CREATE, deadline) from error
                return
            except KazooTimeoutError as error:
                raise errors.too_slow(self.ensemble) from error
            except errors.LOST:
                self._pause()
            except kazoo.KazooException as error:
                raise errors.translate(error, self.ensemble, names[0]) from error

    def _access(self, by_instances: bool) -> list[Any] | None:
        grants = self.ensemble.access(by_instances=by_instances)
        if grants is None:
            return None
        return [ACL(grant.permissions, Id(grant.scheme, grant.id)) for grant in grants]

    def _denied(self, path: str, needs: int, deadline: float) -> FanError:
        """Why `path` is closed to us."""
        access = None
        with contextlib.suppress(kazoo.KazooException, KazooTimeoutError, FanError):
            asked = self._ready(deadline).get_acls_async(path or "/")
            found, _ = asked.get(timeout=max(0.0, deadline - time.monotonic()))
            access = [(row.perms, row.id.scheme, row.id.id) for row in found]
        return errors.denied(self.ensemble, path, needs, access)

    # Connecting

    def _ready(self, deadline: float) -> Any:
        """The connected client."""
        while True:
            with self._news:
                if self._is_closed:
                    raise FailedPrecondition(
                        f"the registry {self.ensemble} was closed by this process"
                    )
                if self.is_over:
                    raise rules.session_lost(self.session_id)
                if self._client is None:
                    self._open()
                elif self._client.client_state == KeeperState.AUTH_FAILED:
                    raise errors.translate(kazoo.AuthFailedError(), self.ensemble)
                if self._is_up:
                    return self._client
                wait = min(deadline - time.monotonic(), self.patience)
                if wait > 0:
                    self._news.wait(wait)
                    continue
            if time.monotonic() >= deadline:
                raise errors.unreachable(self.ensemble, self._ear.last)
            if self._is_session:
                self._give_up()
            else:
                self.renew()

    def _open(self) -> None:
        """Begin to connect; used under `_news`."""
        ensemble = self.ensemble
        client = KazooClient(
            hosts=ensemble.hosts,
            timeout=self.timeout,
            randomize_hosts=True,
            command_retry=KazooRetry(max_tries=0),
            connection_retry=KazooRetry(max_tries=-1, delay=0.05, max_delay=0.5),
            auth_data=[("digest", f"{ensemble.user}:{ensemble.password}")] if ensemble.user else [],
            use_ssl=ensemble.tls,
            ca=ensemble.ca or None,
            certfile=ensemble.cert or None,
            keyfile=ensemble.key or None,
            check_hostname=ensemble.tls,
            logger=self._ear,
        )
        client.add_listener(lambda state: self._on_state(client, state))
        self._client = client
        self._down_since = time.monotonic()
        client.start_async()

    def _on_state(self, client: Any, state: str) -> None:
        with self._news:
            if client is not self._client:
                return
            was_up, self._is_up = self._is_up, state == KazooState.CONNECTED
            if self._is_up:
                self.session_id = _hex(client.client_id[0])
                self.opened += 1
                self._is_stale = True
            elif was_up:
                self._down_since = time.monotonic()
            if self._is_session and state == KazooState.LOST:
                self.is_over = True
            self._news.notify_all()
        self._tell()

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    def _give_up(self) -> None:
        with self._news:
            self.is_over = True
            self._news.notify_all()
        self._tell()

    def _pause(self) -> None:
        """Let the news of a lost connection arrive, so that nothing spins until it does."""
        with self._news:
            self._news.wait(_PAUSE)

    def mark_stale(self) -> None:
        """Somebody else's connection wrote what the next answer has to know of."""
        self._is_stale = True

    def renew(self) -> None:
        """Begin anew, with another client and perhaps another server."""
        with self._news:
            old, self._client, self._is_up = self._client, None, False
        if old is not None:
            _part(old)

    def close(self) -> None:
        """Close for good. Twice does no harm."""
        with self._news:
            self._is_closed = True
            old, self._client, self._is_up = self._client, None, False
            self._news.notify_all()
        if old is not None:
            _part(old).join(_FAREWELL)

    def after_fork_in_child(self, *, is_over: bool) -> None:
        """Leave the connection to the parent: the child closes its copies of the sockets, which
        says nothing to the server."""
        old, self._client, self._is_up = self._client, None, False
        self._news = threading.Condition()
        self._listeners = []
        self.is_over = self.is_over or is_over
        if old is None:
            return
        atexit.unregister(old.handler.stop)  # its threads are not on this side
        connection = old._connection
        for name in ("_socket", "_read_sock", "_write_sock"):
            found = getattr(connection, name, None)
            if found is not None:
                with contextlib.suppress(OSError):
                    found.close()


class _Ear(logging.Logger):
    """Keeps the last warning of kazoo, which says why it cannot connect; nothing reaches the
    program's own logs but as errors of fan."""

    def __init__(self) -> None:
        super().__init__("fan.stores.kazoo", logging.WARNING)
        self.last = ""

    def handle(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()
        logging.getLogger("fan.stores").debug("kazoo: %s", self.last)


def _part(client: Any) -> threading.Thread:
    """Stop a client, in a thread: it waits for its servers, at most for the session's timeout."""

    def run() -> None:
        for _ in range(3):
            with contextlib.suppress(Exception):
                client.stop()
            try:
                client._connection.stop(1.0)
                client.close()
                return
            except Exception as error:
                logging.getLogger("fan.stores").debug("a client did not stop yet: %s", error)

    thread = threading.Thread(target=run, name="fan-zookeeper-stop", daemon=True)
    thread.start()
    return thread


def _get(path: str) -> Issue:
    return lambda client: client.get_async(path)


def _children(path: str) -> Issue:
    return lambda client: client.get_children_async(path)


def _exists(path: str) -> Issue:
    return lambda client: client.exists_async(path)


def _node(data: bytes, stat: Any) -> Node:
    owner = _hex(stat.ephemeralOwner) if stat.ephemeralOwner else ""
    return Node(data, stat.version, owner, stat.numChildren)


def _hex(session: int) -> str:
    return f"{session & 0xFFFF_FFFF_FFFF_FFFF:x}"
