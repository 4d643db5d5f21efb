"""A session of the registry: a connection of its own, on which ephemeral records hang."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from fan.stores.zookeeper_channel import Channel


class ZookeeperSession:
    """What `ZookeeperStore.open_session` gives. It is lost when the servers have not heard of it
    for its timeout; and where nobody can say, since no server has been there for twice that."""

    def __init__(self, channel: Channel, on_lost: Callable[[], None] | None) -> None:
        self.id = channel.session_id
        self.channel = channel
        #: The kinds of records whose watchers can see its end.
        self.kinds: set[str] = set()
        self._on_lost = on_lost
        self._pid = os.getpid()
        self._news = threading.Event()
        self._is_over = False
        channel.listen(self._news.set)
        self._thread = threading.Thread(
            target=self._watch, name=f"fan-session-{self.id[:8]}", daemon=True
        )
        self._thread.start()

    def __repr__(self) -> str:
        return f"<ZookeeperSession {self.id} of process {self._pid}>"

    @property
    def is_alive(self) -> bool:
        return not self._is_over and not self.channel.is_over and self._pid == os.getpid()

    def close(self) -> None:
        """End it: its records go at once."""
        if self._pid != os.getpid():
            return
        self._is_over = True
        self._news.set()
        self.channel.close()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def after_fork_in_child(self) -> None:
        """Leave the session to the parent."""
        self._is_over = True
        self.channel.after_fork_in_child(is_over=True)

    def _watch(self) -> None:
        while True:
            self._news.clear()
            if self._is_over or self.channel.is_over or self._is_forsaken():
                break
            self._news.wait(None if self.channel.is_up else max(0.05, self.channel.patience))
        if self._is_over:
            return
        self._is_over = True
        self.channel.close()
        if self._on_lost is not None:
            try:
                self._on_lost()
            except Exception:
                logging.getLogger("fan.stores").exception("a session's on_lost failed")

    def _is_forsaken(self) -> bool:
        return not self.channel.is_up and self.channel.patience <= 0
