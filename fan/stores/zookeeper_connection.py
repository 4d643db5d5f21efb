"""One connection to the servers: opened when first used, and anew when it has to be.

The traps of kazoo that are dealt with here: `stop` blocks, so it runs in a thread; the retries are
objects with limits, as the default waits up to an hour; and a client that saw a newer state than a
restored server has is refused forever without being told, so it is replaced.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from kazoo import exceptions as kazoo
from kazoo.protocol.states import KazooState, KeeperState
from kazoo.retry import KazooRetry

from fan.errors import FailedPrecondition
from fan.stores import rules
from fan.stores import zookeeper_errors as errors
from fan.stores.zookeeper_client import Client
from fan.stores.zookeeper_handler import Handler
from fan.stores.zookeeper_tls import TlsHandler, context_of
from fan.stores.zookeeper_url import Ensemble

#: Seconds that closing waits for the servers to say goodbye.
_FAREWELL = 2.0

#: Seconds before a request is sent again over a connection that was just lost.
_PAUSE = 0.01


class Connection:
    """One client of the servers, used by any thread. `opened` counts its connections: watches, and
    what was read before, hold for one. With `is_session` it stands for one session: when that is
    over, so is the connection."""

    def __init__(self, ensemble: Ensemble, timeout: float, *, is_session: bool = False) -> None:
        self.ensemble = ensemble
        self.timeout = timeout
        self.opened = 0
        #: The server's number of our session, as `Node.owner` has it.
        self.session_id = ""
        self.is_over = False
        self._is_session = is_session
        self._client: Client | None = None
        self._ear = _Ear()
        self._news = threading.Condition()
        self._is_up = False
        self._is_closed = False
        #: How often there was news that the server may not have heard of, and up to which of them
        #: it caught up.
        self._rumours = 0
        self._heard = -1
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

    def ready(self, deadline: float) -> None:
        """Be connected. Raises as every request does."""
        self._ready(deadline)

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
            if self._is_session and self.opened:
                self._give_up()
            else:
                self.renew()

    def _open(self) -> None:
        """Begin to connect; used under `_news`."""
        ensemble = self.ensemble
        client = Client(
            hosts=ensemble.hosts,
            timeout=self.timeout,
            randomize_hosts=True,
            command_retry=KazooRetry(max_tries=0),
            connection_retry=KazooRetry(max_tries=-1, delay=0.05, max_delay=0.5),
            auth_data=[("digest", f"{ensemble.user}:{ensemble.password}")] if ensemble.user else [],
            handler=TlsHandler(context_of(ensemble)) if ensemble.tls else Handler(),
            use_ssl=ensemble.tls,
            logger=self._ear,
        )
        client.add_listener(lambda state: self._on_state(client, state))
        self._client = client
        self._down_since = time.monotonic()
        client.start_async()

    def _on_state(self, client: Any, state: str) -> None:
        session = client.client_id
        with self._news:
            if client is not self._client:
                return
            was_up, self._is_up = self._is_up, state == KazooState.CONNECTED
            if self._is_up:
                self.session_id = session_name(session[0])
                self.opened += 1
                self._rumours += 1
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
        self._rumours += 1

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


def session_name(number: int) -> str:
    """A session as the servers number it, in hexadecimal digits as their logs have it."""
    return f"{number & 0xFFFF_FFFF_FFFF_FFFF:x}"
