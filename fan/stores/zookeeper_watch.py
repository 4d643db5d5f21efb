"""A watch: a thread that keeps ZooKeeper's one-time watches armed, and calls back.

They are armed before the call, so that whatever is written after the call's reads fires again. A
watch ends with its connection, which kazoo tells by an event of type NONE: everything is armed
anew on the next one. Nothing is derived from an event; the callback reads.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

from fan.errors import FanError
from fan.stores.base import HEAD, Hint
from fan.stores.zookeeper_channel import Channel, Issue
from fan.stores.zookeeper_layout import Layout

#: Seconds that arming may take before the connection counts as lost.
_PATIENCE = 2.0

#: kazoo's type of the event that ends all watches of a connection.
_OVER = "NONE"

#: Seconds between two tries while the servers are away or refuse us.
_RETRY = 0.5

#: What is watched of a node: its own changes, or the names below it.
_Arm = tuple[Literal["node", "names"], str]


class ZookeeperWatch:
    """One watch. See `Store.watch`. Of a kind of record these are watched: its folder, which every
    write touches; and the sessions that hold some, since their end touches nothing."""

    def __init__(
        self, channel: Channel, layout: Layout, kind: str, callback: Callable[[Hint], None]
    ) -> None:
        self.kind = kind
        self._channel = channel
        self._path = layout.head if kind == HEAD else layout.kind(kind)
        self._alive = layout.alive(kind)
        self._callback = callback
        self.is_closed = False
        self._is_lost = False
        self._news = threading.Event()
        self._fired: deque[_Arm] = deque()
        self._armed_at = -1
        self._armed: set[_Arm] = set()
        channel.listen(self._news.set)
        self._thread = threading.Thread(target=self._run, name=f"fan-watch-{kind}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it, without waiting for a call that is under way."""
        self.is_closed = True
        self._channel.ignore(self._news.set)
        self._news.set()

    def join(self, timeout: float) -> None:
        """Wait for its thread, unless this is it."""
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def after_fork_in_child(self) -> None:
        """There is no thread on this side."""
        self.is_closed = True

    def _run(self) -> None:
        while True:
            self._news.clear()
            if self.is_closed:
                return
            before = self._armed_at
            if not self._channel.is_up and self._armed_at >= 0:
                self._lose()
            try:
                self._arm(time.monotonic() + _PATIENCE)
            except FanError as error:
                self._armed_at = -1  # whatever was armed of it: all again
                if not self.is_closed:
                    logging.getLogger("fan.stores").debug("watching %s: %s", self._path, error)
                    self._lose()
                    self._news.wait(_RETRY)
                continue
            if before not in (-1, self._armed_at):
                self._lose()  # and back already: whoever reads in one session has to know
            if self._is_lost:
                self._is_lost = False
                self._tell("regained")
            self._tell("changed")
            self._news.wait()

    def _lose(self) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._tell("lost")

    def _tell(self, hint: Hint) -> None:
        if self.is_closed:
            return
        try:
            self._callback(hint)
        except Exception:
            logging.getLogger("fan.stores").exception("a watch of %s failed", self.kind)

    def _arm(self, deadline: float) -> None:
        """Arm what fired, or everything over a new connection. Raises FanError."""
        self._channel.ready(deadline)
        opened = self._channel.opened
        if opened != self._armed_at:
            self._fired.clear()
            self._armed.clear()
        fired = {self._fired.popleft() for _ in range(len(self._fired))}
        self._armed -= fired
        if ("node", self._path) not in self._armed:
            # Not waited for: what the callback reads is asked, and answered, after it.
            self._channel.send(self._issue(("node", self._path)), deadline)
            self._armed.add(("node", self._path))
        if self.kind != HEAD:
            below = {path for what, path in fired if what == "names"}
            self._arm_names(sorted(below | {self._alive}), deadline)
        self._armed_at = opened

    def _arm_names(self, paths: list[str], deadline: float) -> None:
        """Arm the names below those nodes, and below what is found there, unless they are."""
        while paths := [path for path in paths if ("names", path) not in self._armed]:
            issues = [self._issue(("names", path)) for path in paths]
            found = self._channel.ask(issues, paths, deadline)
            # A node that is not there is not watched; its folder is.
            here = [p for p, names in zip(paths, found, strict=True) if names is not None]
            self._armed.update(("names", path) for path in here)
            tops = found[paths.index(self._alive)] if self._alive in paths else None
            paths = [f"{self._alive}/{name}" for name in tops or ()]

    def _issue(self, arm: _Arm) -> Issue:
        what, path = arm

        def names(client: Any) -> Any:
            def fire(event: Any) -> None:
                self._fired.append(arm)
                self._news.set()

            return client.get_children_async(path, watch=fire)

        def node(client: Any) -> Any:
            def fire(event: Any) -> None:
                if event.type == _OVER or self.is_closed:
                    self._fired.append(arm)
                else:
                    node(client)  # here already: before our thread is awake, and asks anything
                self._news.set()

            return client.exists_async(path, watch=fire)

        return node if what == "node" else names
